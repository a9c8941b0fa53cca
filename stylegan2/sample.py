"""Figures of the StyleGAN2 paper, from a checkpoint of stylegan2/train.py.

    python stylegan2/sample.py                         from runs/stylegan2/ckpt.pt, beside it
    python stylegan2/sample.py --ckpt path/to/ckpt.pt --out figures --psi 0.7
    python stylegan2/sample.py --ppl 1000              Fig. 4 too, and the mean path length
    python stylegan2/sample.py --project photos --vgg vgg16.pth     Sec. 5: the w of given pictures
    python stylegan2/sample.py --official stylegan2-ffhq-config-f.pt    weights of rosinality's code
    python stylegan2/sample.py --n 10000 --each pngs --real reals   single files, for the FID tools

All by G's averaged weights, and without truncation, but samples.png and walk.gif.
"""
import argparse
import copy
import csv
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator, sample_noise

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.folders import images_below
from common.images import grid, read_image, save_curves, save_gif, save_grid, write_bytes

NAME = "stylegan2"
PSI = (1, 0.7, 0.5, 0, -0.5, -1)  # [StyleGAN, Fig. 8]
BRIGHT = 0.2  # of 2: the deviation that is white in noise.png [ours]


def settings(add) -> None:
    add("--psi", type=float, help="truncation; by default 0.5, and 1 for --each")
    add("--ppl", type=int, default=0, help="pairs for the path length, 16 or more; paper: 50,000")
    add("--project", type=Path, metavar="PATH", help="a picture, or a folder of which the first "
        "eight count: their w, and as many of G's own pictures', into projected.png alone")
    add("--project-steps", type=int, default=1000, help="of Adam, in W [Sec. 5]")
    add("--vgg", type=Path, metavar="FILE", help="compare pictures for --ppl and --project by the "
        "features of VGG16 or VGG19, torchvision's weights; by default by their pixels")
    add("--official", type=Path, dest="ckpt", metavar="PT", default=argparse.SUPPRESS,
        help="instead of --ckpt, a generator in the names of rosinality/stylegan2-pytorch")


def build(ckpt: dict) -> Generator:
    """G as averaged."""
    if "paper" not in ckpt:
        return official(ckpt)
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["w_dim"], run["fmap_base"],
                  run["fmap_max"], run["mapping_layers"], run["config"], run["noise_lr"])
    G.load_state_dict(ckpt["G_ema"])
    return G.eval()


def official_name(ours: str) -> str:
    """What rosinality's code calls a weight of ours."""
    part, *rest = ours.split(".")
    if part.startswith("noise"):
        return f"noises.noise_{part[5:]}"
    if part in ("const", "w_avg"):
        return {"const": "input.input", "w_avg": "latent_avg"}[part]
    if part == "mapping":                                   # mapping.layers.0.weight
        return f"style.{int(rest[1]) + 1}.{rest[2]}"
    i, name = int(rest[0]), ".".join(rest[1:]).replace("style", "modulation")
    if part == "convs":                                     # convs.0.conv.style.bias
        name = {"noise": "noise.weight", "bias": "activate.bias"}.get(name, name)
        return f"convs.{i - 1}.{name}" if i else f"conv1.{name}"
    return f"to_rgbs.{i - 1}.{name}" if i else f"to_rgb1.{name}"


def official(theirs: dict) -> Generator:
    """G of a file as rosinality/stylegan2-pytorch saves it, or converts NVIDIA's: a dict with g_ema
    and perhaps latent_avg, or g_ema's state alone. Sizes are read off the weights; where there is
    no latent_avg it is the mean w of 10,000 z. It has seen no data that we know of."""
    state = {**theirs.get("g_ema", theirs)}
    n = len({key.split(".")[1] for key in state if key.startswith("to_rgbs.")})
    size, layers = 4 << n, sum(key.startswith("style.") for key in state) // 2
    w_dim, z_dim = state["style.1.weight"].shape
    _, channels, c, *_ = state[f"to_rgbs.{n - 1}.conv.weight"].shape
    G = Generator(size, channels, z_dim, w_dim, c * size // 2, state["input.input"].shape[1],
                  layers).to(state["input.input"].device).requires_grad_(False)
    torch.manual_seed(0)
    z = sample_z(10_000, z_dim, G.const.device)
    state["latent_avg"] = theirs.get("latent_avg", G.w_avg)
    for name, tensor in G.state_dict().items():
        tensor.copy_(state[official_name(name)].view_as(tensor))  # some have more dimensions
    if "latent_avg" not in theirs:
        G.w_avg.copy_(G.mapping(z).mean(0))
    theirs.update(channels=channels, z_fixed=z[:max(8, min(64, 4096 // size))], args={
        "size": size, "z_dim": z_dim, "data": None, "data_root": None, "skip_bad": False})
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim, device=device)


def paint(G: Generator, w: torch.Tensor, noise: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Pictures of styles w (n, n_layers, w_dim). noise: a map (1, 1, h, w) for each convolution, by
    default G's own."""
    return torch.cat([G.synthesis(part, noise) for part in w.split(8)])


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0, psi: float = 1.0
             ) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w), each on new noise: a function of
    (G, n, seed, psi)."""
    device = ckpt["z_fixed"].device
    torch.manual_seed(seed)
    w = G.styles(G.mapping(sample_z(n, ckpt["args"]["z_dim"], device)), psi=psi)
    for part in w.split(min(250, max(1, 8192 // G.size))):
        yield torch.cat([G.synthesis(some, sample_noise(len(some), G.size, device))
                         for some in part.split(8)])


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures."""
    psi = 1.0 if args.psi is None else args.psi
    pictures = (x for part in generate(G, ckpt, args.n, args.seed, psi) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    if not ckpt["args"]["data"]:
        fail("--real: no data are known of an --official generator: name a set by --data")
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def bands(n_layers: int) -> tuple[int, int]:
    """Where the middle and the fine layers begin: of 18 at 16x16 and at 64x64 [StyleGAN, Fig. 3];
    of fewer so that there are some of each [ours]."""
    return {4: (1, 2), 6: (2, 4), 8: (4, 6)}.get(n_layers, (4, 8))


def mixed(w_a: torch.Tensor, w_b: torch.Tensor) -> torch.Tensor:
    """Styles (6, 5, n_layers, w_dim): row i is w_a[i], but in its coarse (i = 0, 1, 2), middle
    (3, 4) or fine (5) layers w_b[j]. [StyleGAN, Fig. 3]"""
    middle, fine = bands(w_a.shape[1])
    layers = [slice(0, middle)] * 3 + [slice(middle, fine)] * 2 + [slice(fine, None)]
    w = w_a[:, None].repeat(1, len(w_b), 1, 1)
    for row, part in zip(w, layers, strict=True):
        row[:, part] = w_b[:, part]
    return w


def stochastic(G: Generator, w: torch.Tensor, n: int = 100) -> torch.Tensor:
    """Seven pictures for each w: without noise, on G's own, on four other draws, and of n the
    deviation of the brightness, black where noise changes nothing. [StyleGAN, Figs. 4 and 5]"""
    rows = []
    for one in w.split(1):
        x = torch.cat([paint(G, one, sample_noise(1, G.size, w.device)) for _ in range(n)])
        deviation = x.mean(1, keepdim=True).std(0, keepdim=True) / BRIGHT * 2 - 1
        rows += [paint(G, one, [maps * 0 for maps in G.fixed_noise()]), paint(G, one), x[:4],
                 deviation.expand(-1, x.shape[1], -1, -1)]
    return torch.cat(rows)


def addends(G: Generator, w: torch.Tensor) -> torch.Tensor:
    """For each w what 4x4, 8x8, ... add to the picture, each made as large as it, and their sum.
    [Fig. 7b]"""
    columns = []
    for part in G.parts(w):
        while part.shape[-1] < G.size:
            part = G.up(part)
        columns.append(part)
    return torch.stack([*columns, sum(columns)], 1).flatten(0, 1)


def shares(G: Generator, z: torch.Tensor) -> list[float]:
    """Fig. 8: the deviations of what the resolutions add, as percents of their sum."""
    parts = zip(*(G.parts(G.styles(G.mapping(part))) for part in z.split(8)), strict=True)
    deviations = torch.stack([torch.cat(part).var((0, 2, 3)).mean().sqrt() for part in parts])
    return (100 * deviations / deviations.sum()).tolist()


def fig8(G: Generator, z: torch.Tensor, ckpts: list[Path], out: Path) -> None:
    """Prints this checkpoint's shares; those of several that --keep-every left are curves."""
    now = shares(G, z)
    names = [f"{4 << i}x{4 << i}" for i in range(len(now))]
    print("shares of the picture:", ", ".join(f"{name} {share:.0f} %" for name, share in
                                             zip(names, now, strict=True)))
    if len(ckpts) > 1:
        rows = [["step", *names]]
        for path in ckpts:
            G, ckpt = load_generator(path, z.device)
            rows.append([ckpt["step"], *shares(G, z)])
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        write_bytes(out / "fig8.csv", text.getvalue().encode())
        save_curves(out / "fig8.png", out / "fig8.csv")


def read_vgg(path: Path | None) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Of each convolution weight, bias, whether a pooling follows it; nothing without a file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True) if path else {}
        at = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
        layers = [(state[f"features.{i}.weight"], state[f"features.{i}.bias"], i + 2 not in at)
                  for i in at]
        if len(layers) not in (0, 13, 16) or bool(layers) != bool(path):
            raise ValueError("looked for 13 or 16 convolutions without batch norm")
    except Exception as e:  # a file may hold anything
        fail(f"--vgg {path.resolve()} holds no VGG16 or VGG19 of torchvision's ({e})")
    return layers


def look(x: torch.Tensor, vgg: list) -> torch.Tensor:
    """(n, k): the distance of two pictures is the square of what their looks differ by.

    Without VGG: of pixels in [-1, 1] the mean square difference. With it: of the last features
    before each pooling, scaled to unit length at every place, the mean over places, summed, as in
    LPIPS. Departure: without LPIPS's learned weights of the features. At 256x256 at most."""
    x = F.avg_pool2d(x, max(1, x.shape[-1] // 256))
    if not vgg:
        return x.flatten(1) / x[0].numel() ** 0.5
    mean, std = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    h, looks = ((x + 1) / 2 - mean[:, None, None]) / std[:, None, None], []
    for weight, bias, pooled in vgg:
        h = F.relu(F.conv2d(h, weight.to(h), bias.to(h), padding=1))
        if pooled:
            looks.append(F.normalize(h).flatten(1) / h[0, 0].numel() ** 0.5)
            h = F.max_pool2d(h, 2, ceil_mode=True)
    return torch.cat(looks, 1)


def ppl(G: Generator, w: torch.Tensor, vgg: list, eps: float = 1e-4) -> torch.Tensor:
    """d(G(w_a), G(w_b)) / eps^2 (n,) for pairs w (2, n, w_dim), w_b eps of the way from one to the
    other: the perceptual path length at the ends of paths in W, without crop. float64. [Table 1;
    StyleGAN, Eq. 3]"""
    G, lengths = copy.deepcopy(G).double(), []
    for a, b in w.double().unbind(1):
        pair = torch.stack([a, torch.lerp(a, b, eps)])
        one, other = look(G.synthesis(G.styles(pair)), vgg)
        lengths.append((one - other).square().sum() / eps ** 2)
    return torch.stack(lengths)


def correlation(noise: list[torch.Tensor]) -> torch.Tensor:
    """Sum over all maps, at all their resolutions down to 8x8, of the square of what neighbours
    have in common: noise that carries no signal has none. [Sec. 5; authors' code]"""
    total = 0
    for maps in noise:
        while True:
            for dim in (2, 3):
                total = total + (maps * maps.roll(1, dim)).mean((1, 2, 3)).square().sum()
            if maps.shape[-1] <= 8:
                break
            maps = F.avg_pool2d(maps, 2)
    return total


def project(G: Generator, x: torch.Tensor, z_dim: int, vgg: list, steps: int = 1000
            ) -> tuple[torch.Tensor, torch.Tensor]:
    """What G can make of pictures x: G(w) for the nearest w that was found, and the distances (n,).
    w starts at its mean and is searched for together with the noise, which has to stay noise:
    distance + 1e5 correlation(noise). [Sec. 5; constants: authors' code]"""
    w = G.mapping(sample_z(10_000, z_dim, x.device))
    sigma = (w - w.mean(0)).square().sum(1).mean().sqrt()
    w = w.mean(0).repeat(len(x), 1).requires_grad_()
    noise = [maps.requires_grad_() for maps in sample_noise(len(x), G.size, x.device)]
    opt, target = torch.optim.Adam([w, *noise], lr=0.1, betas=(0.9, 0.999)), look(x, vgg)
    for step in range(steps):
        t = step / steps
        fall = 0.5 - 0.5 * math.cos(min(1.0, (1 - t) / 0.25) * math.pi)
        opt.param_groups[0]["lr"] = 0.1 * fall * min(1.0, t / 0.05)
        shake = 0.05 * sigma * max(0.0, 1 - t / 0.75) ** 2
        picture = G.synthesis(G.styles(w + shake * torch.randn_like(w)), noise)
        loss = (look(picture, vgg) - target).square().sum() + 1e5 * correlation(noise)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for maps in noise:  # mean 0, deviation 1
                maps.sub_(maps.mean((2, 3), keepdim=True))
                maps.mul_(maps.square().mean((2, 3), keepdim=True).rsqrt())
    with torch.no_grad():
        picture = G.synthesis(G.styles(w), noise)
        return picture, (look(picture, vgg) - target).square().sum(1)


def projected(G: Generator, ckpt: dict, args: argparse.Namespace, vgg: list, out: Path) -> None:
    """projected.png: pictures, G's nearest, and the same of G's own pictures. [Sec. 5, Fig. 9]"""
    files = images_below(args.project) if args.project.is_dir() else [args.project]
    if not files:
        fail(f"--project {args.project.resolve()}: looked for a picture, or a folder of them")
    try:
        x = [read_image(path, G.size, ckpt["channels"]) / 127.5 - 1 for path in files[:8]]
    except (OSError, ValueError) as e:
        fail(f"--project: a picture of {args.project.resolve()} cannot be read ({e})")
    x = torch.stack(x).to(ckpt["z_fixed"].device)
    own, = generate(G, ckpt, len(x), args.seed)
    print(f"{len(x)} pictures, each as its central square of {G.size} px, and {len(own)} of G's "
          f"own, {args.project_steps:,} steps", flush=True)
    (near, d), (near_own, d_own) = (
        project(G, some, ckpt["args"]["z_dim"], vgg, args.project_steps) for some in (x, own))
    save_grid(out / "projected.png", torch.cat([x, near, own, near_own]), len(x), scale=2)
    print(f"wrote projected.png to {out}: pictures, projected; G's own, projected\n"
          f"distance by {'VGG' if vgg else 'pixels'}: {d.mean().item():.4f}, "
          f"of G's own {d_own.mean().item():.4f}")


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    truncated = 0.5 if args.psi is None else args.psi
    if args.ppl and args.ppl < 16 or args.project_steps < 1:
        fail(f"--ppl {args.ppl}, --project-steps {args.project_steps}: looked for 16 pairs "
             "and a step, or more")
    vgg = read_vgg(args.vgg)
    if vgg and ckpt["channels"] != 3:
        fail(f"--vgg looks at 3 channels, G draws {ckpt['channels']}: leave it out")
    if args.project:
        return projected(G, ckpt, args, vgg, out)

    torch.manual_seed(args.seed)
    z = sample_z(256, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)

    def styles(n: int, psi: float = 1.0) -> torch.Tensor:
        """Of the first n z of this seed: the same faces in all figures."""
        return G.styles(G.mapping(z[:n]), psi=psi)

    def save(name: str, x: torch.Tensor, n_cols: int, captions: list[str] | None = None) -> None:
        save_grid(out / name, x, n_cols, captions=captions, scale=2)

    # With G's own noise, as in the run's own grids
    save("samples.png", paint(G, G.styles(G.mapping(ckpt["z_fixed"]), psi=truncated)), 8)

    # Style mixing: sources B above, A at the left
    w_a, w_b = styles(11).split([6, 5])
    x_a, x_b = paint(G, w_a), paint(G, w_b)
    rows = paint(G, mixed(w_a, w_b).flatten(0, 1)).unflatten(0, (6, 5))
    rows = torch.cat([torch.cat([torch.ones_like(x_a[:1]), x_b])[None],
                      torch.cat([x_a[:, None], rows], 1)])
    save("mixing.png", rows.flatten(0, 1), 6, ["B", *["coarse"] * 3, *["middle"] * 2, "fine"])

    # Noise; truncation, a column for each psi
    save("noise.png", stochastic(G, styles(3)), 7)
    x = torch.stack([paint(G, styles(6, psi)) for psi in PSI], 1)
    save("truncation.png", x.flatten(0, 1), len(PSI))
    names = "samples.png, mixing.png, noise.png, truncation.png"

    # Fig. 8: what each resolution adds
    if len(G.to_rgb) > 1:
        save("addends.png", addends(G, styles(6)), len(G.to_rgb) + 1)
        kept = sorted(args.ckpt.parent.glob("ckpt-*.pt"))
        fig8(G, z, kept, out)
        names += ", addends.png" + ", fig8.png" * (len(kept) > 1)

    # Fig. 4: of many pictures those with the shortest and the longest paths
    if args.ppl:
        w = G.mapping(sample_z(2 * args.ppl, ckpt["args"]["z_dim"], z.device)).unflatten(0, (2, -1))
        lengths = ppl(G, w, vgg)
        order = lengths.argsort()
        save("fig4.png", paint(G, G.styles(w[0, torch.cat([order[:8], order[-8:]])])), 8,
             ["short", "long"])
        print(f"path length, {args.ppl} pairs, ends in W, {'VGG' if vgg else 'pixels'}: "
              f"{lengths.mean().item():.2f}, median {lengths.median().item():.2f}")
        names += ", fig4.png"

    # From each of six points in W to the next, eight times
    w = styles(48, truncated).unflatten(0, (6, 8))
    ends = torch.cat([w, w[:1]])
    at = torch.linspace(0, 6, args.frames + 1).tolist()[:-1]
    film = [torch.lerp(ends[int(t)], ends[int(t) + 1], t % 1) for t in at]
    save_gif(out / "walk.gif", [grid(paint(G, frame), 4, scale=2) for frame in film], hold=0.12)
    print(f"wrote {names}, walk.gif to {out}")


# ----------------------------------------------------------------------------------------------
# Loading and flags. The same text in every folder: whoever edits it in dcgan/sample.py copies it to
# the others with `python tests/copy_run.py`.

import zipfile

from common.data import BadFile, fail
from common.images import write_image


def load_generator(path: Path | str, device: str = "cpu") -> tuple[Generator, dict]:
    """G, and its checkpoint on the device. No flag of the training run is needed again."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():
            raise ValueError  # torch does not look at its checksums
        ckpt = torch.load(path, map_location=device, weights_only=True)
        if (paper := ckpt.get("paper", NAME)) == NAME:
            G = build(ckpt).to(device).requires_grad_(False)
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run {NAME}/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of ours ({type(e).__name__})")
    if paper != NAME:
        fail(f"{path.resolve()} is a checkpoint of {paper}: {paper}/sample.py reads it")
    if not all(p.isfinite().all() for p in G.parameters()):
        fail(f"{path.resolve()} holds weights that are not finite")
    return G, ckpt


def write_all(folder: Path, pictures: Iterator[tuple[str, torch.Tensor]]) -> None:
    """One by one, into a folder without pictures: two models in one would spoil any metric."""
    if any(path.suffix.lower() == ".png" for path in folder.glob("*")):
        fail(f"{folder.resolve()} has pictures already: name another folder")
    n = 0
    for name, x in pictures:
        write_image(folder / f"{name}.png", x)
        n += 1
    print(f"wrote {n:,} to {folder}")


def real_pictures(data: Data, n: int, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """n of the set, or all if there are fewer, chosen by the seed."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n]
    return ((f"{i:06d}", data[[i]][0]) for i in chosen.sort().values.tolist())


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    settings(p.add_argument)
    p.add_argument("--ckpt", type=Path, default=f"runs/{NAME}/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--frames", type=int, default=60, help="of films")
    p.add_argument("--n", type=int, default=64, help="how many single pictures")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--real", type=Path, help="folder for --n images of the run's data, likewise")
    p.add_argument("--data", help="where the run's folder of data lies now")
    p.add_argument("--data-root", help="where downloaded sets are kept now")
    p.add_argument("--skip-bad", action="store_true", help="leave the data's unreadable images out")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--device", default=str(best), help="cuda, mps or cpu; the best there is")
    args = p.parse_args(argv)
    for name, low in (("n", 1), ("frames", 2), ("seed", 0)):
        if not low <= getattr(args, name) < 2**32:
            fail(f"--{name} {getattr(args, name)}: looked for {low} or more, below {2**32}")
    for name, value in vars(args).items():
        if isinstance(value, float) and not abs(value) < float("inf"):
            fail(f"--{name.replace('_', '-')} {value}: looked for a number")
    if (args.each or args.real) and vars(args).get("input"):
        fail("--input writes to --out: leave --each and --real away")
    try:
        torch.zeros(1, device=args.device).item()
    except Exception as e:  # each backend raises its own kinds
        fail(f"--device {args.device}: {str(e).splitlines()[0]}")
    G, ckpt = load_generator(args.ckpt, args.device)
    run = ckpt["args"]
    run.update({k: v for k in ("data", "data_root", "skip_bad") if (v := getattr(args, k))})
    if args.each:
        write_all(args.each, each(G, ckpt, args))
    if args.real:
        data = real(ckpt, args, root=run["data_root"], skip_bad=run["skip_bad"])
        write_all(args.real, real_pictures(data, args.n, args.seed))
    if not (args.each or args.real):
        out = args.out or args.ckpt.parent / "figures"
        figures(G, ckpt, args, out)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name
    try:
        main()
    except (BadFile, OSError) as e:  # a folder that cannot be written, a full disk, a broken file
        fail(f"{e}: mend that, or change --out, --each or --real")
