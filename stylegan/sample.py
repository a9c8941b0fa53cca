"""Figures of the StyleGAN paper, from a checkpoint of stylegan/train.py.

    python stylegan/sample.py                          from runs/stylegan/ckpt.pt, beside it
    python stylegan/sample.py --ckpt path/to/ckpt.pt --out figures --psi 0.5
    python stylegan/sample.py --ppl 1000               the path length too, of 1,000 pairs
    python stylegan/sample.py --n 10000 --each pngs --real reals    single files, for the FID tools

All by G's averaged weights, and without truncation, but samples.png [Fig. 2] and walk.gif.
"""
import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator, n_layers, sample_noise

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.images import grid, save_gif, save_grid

NAME = "stylegan"
PSI = (1, 0.7, 0.5, 0, -0.5, -1)  # [Fig. 8]
BRIGHT = 0.2  # of 2: the deviation that is white in fig4.png [ours]


def settings(add) -> None:
    add("--psi", type=float, help="truncation; by default 0.7, and 1 for --each")
    add("--ppl", type=int, default=0, help="pairs for the path length; paper: 100,000")


def build(ckpt: dict) -> Generator:
    """G as averaged."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["w_dim"], run["fmap_base"],
                  run["fmap_max"], run["mapping_layers"], run["config"], run["noise_lr"])
    G.load_state_dict(ckpt["G_ema"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim, device=device)


def paint(G: Generator, ckpt: dict, w: torch.Tensor,
          noise: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Pictures of styles w (n, n_layers, w_dim), as the run has grown, as large as it will grow.
    noise: a map (1, 1, h, w) for each layer, by default G's own."""
    x = [G.synthesis(part, noise, ckpt["size"], ckpt["alpha"]) for part in w.split(8)]
    return F.interpolate(torch.cat(x), scale_factor=G.size // ckpt["size"])


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0, psi: float = 1.0
             ) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w), each on new noise: a function of
    (G, n, seed, psi)."""
    device = ckpt["z_fixed"].device
    torch.manual_seed(seed)
    w = G.styles(G.mapping(sample_z(n, ckpt["args"]["z_dim"], device)), psi=psi)
    for part in w.split(min(250, max(1, 8192 // G.size))):
        yield torch.cat([paint(G, ckpt, some, sample_noise(len(some), ckpt["size"], device))
                         for some in part.split(8)])


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures."""
    psi = 1.0 if args.psi is None else args.psi
    pictures = (x for part in generate(G, ckpt, args.n, args.seed, psi) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def bands(n_layers: int) -> tuple[int, int]:
    """Where the middle and the fine layers begin: of 18 at 16x16 and at 64x64 [Fig. 3]; of fewer
    so that there are some of each [ours]."""
    return {4: (1, 2), 6: (2, 4), 8: (4, 6)}.get(n_layers, (4, 8))


def mixed(w_a: torch.Tensor, w_b: torch.Tensor) -> torch.Tensor:
    """Fig. 3's styles (6, 5, n_layers, w_dim): row i is w_a[i], but in its coarse (i = 0, 1, 2),
    middle (3, 4) or fine (5) layers w_b[j]."""
    middle, fine = bands(w_a.shape[1])
    layers = [slice(0, middle)] * 3 + [slice(middle, fine)] * 2 + [slice(fine, None)]
    w = w_a[:, None].repeat(1, len(w_b), 1, 1)
    for row, part in zip(w, layers, strict=True):
        row[:, part] = w_b[:, part]
    return w


def stochastic(G: Generator, ckpt: dict, w: torch.Tensor, n: int = 100) -> torch.Tensor:
    """Fig. 4, six pictures for each w: on G's own noise, on four others, and of n the deviation of
    the brightness, black where noise changes nothing."""
    rows = []
    for one in w.split(1):
        x = torch.cat([paint(G, ckpt, one, sample_noise(1, ckpt["size"], w.device))
                       for _ in range(n)])
        deviation = x.mean(1, keepdim=True).std(0, keepdim=True) / BRIGHT * 2 - 1
        rows += [paint(G, ckpt, one), x[:4], deviation.expand(-1, x.shape[1], -1, -1)]
    return torch.cat(rows)


def noise_ablation(G: Generator, ckpt: dict, w: torch.Tensor) -> torch.Tensor:
    """Fig. 5, four pictures for each w: noise in all layers, in none, in the fine, in the rest."""
    noise, fine = G.fixed_noise(), bands(n_layers(ckpt["size"]))[1]
    choices = [range(G.n_layers), (), range(fine, G.n_layers), range(fine)]
    columns = [paint(G, ckpt, w, [maps * (i in on) for i, maps in enumerate(noise)])
               for on in choices]
    return torch.stack(columns, 1).flatten(0, 1)


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """From a to b (n, z_dim) along a great circle of the unit sphere. [Eq. 2]"""
    a, b = F.normalize(a), F.normalize(b)
    cos = (a * b).sum(1, keepdim=True)
    return a * (t * cos.acos()).cos() + F.normalize(b - cos * a) * (t * cos.acos()).sin()


def path_length(G: Generator, ckpt: dict, n: int, space: str, full: bool, eps: float = 1e-4
                ) -> float:
    """E[d(G(at t), G(at t + eps)) / eps^2] between n pairs in "z" [Eq. 2] or "w" [Eq. 3], t from
    U(0, 1) or, if not full, 0; without the lowest and highest hundredth [authors' code]. float64.

    Departure: d is no VGG's distance but the mean square difference of pixels in [-1, 1], at 64x64
    at most. So it compares runs on one data set, not with the paper's table.
    """
    G, d = copy.deepcopy(G).double(), []
    for _ in range(n):
        z = sample_z(2, ckpt["args"]["z_dim"], G.w_avg.device).double()
        t = torch.rand(1, 1, device=z.device).double() * full
        if space == "z":
            w = G.mapping(torch.cat([slerp(z[:1], z[1:], t), slerp(z[:1], z[1:], t + eps)]))
        else:
            w = torch.lerp(*G.mapping(z)[:, None], torch.cat([t, t + eps]))
        x = paint(G, ckpt, G.styles(w))
        x = F.avg_pool2d(x, max(1, G.size // 64))
        d.append((x[0] - x[1]).square().mean() / eps ** 2)
    d = torch.stack(d).sort().values
    return d[n // 100:n - n // 100].mean().item()


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    truncated = 0.7 if args.psi is None else args.psi  # [Fig. 2]

    def styles(n: int, psi: float = 1.0, layers: int = 8) -> torch.Tensor:
        """Of the first n z of this seed: the same faces in all figures."""
        torch.manual_seed(args.seed)
        z = sample_z(64, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
        return G.styles(G.mapping(z[:n]), psi=psi, truncated=layers)

    def save(name: str, x: torch.Tensor, n_cols: int, captions: list[str] | None = None) -> None:
        save_grid(out / name, x, n_cols, captions=captions, scale=2)

    # Fig. 2: with G's own noise, as in the run's own grids
    save("samples.png", paint(G, ckpt, G.styles(G.mapping(ckpt["z_fixed"]), psi=truncated)), 8)

    # Fig. 3: sources B above, A at the left
    w_a, w_b = styles(11).split([6, 5])
    x_a, x_b = paint(G, ckpt, w_a), paint(G, ckpt, w_b)
    rows = paint(G, ckpt, mixed(w_a, w_b).flatten(0, 1)).unflatten(0, (6, 5))
    rows = torch.cat([torch.cat([torch.ones_like(x_a[:1]), x_b])[None],
                      torch.cat([x_a[:, None], rows], 1)])
    save("fig3.png", rows.flatten(0, 1), 6, ["B", *["coarse"] * 3, *["middle"] * 2, "fine"])

    # Figs. 4 and 5: noise
    if G.epilogues[0].noise is not None:
        save("fig4.png", stochastic(G, ckpt, styles(3)), 6)
        save("fig5.png", noise_ablation(G, ckpt, styles(4)), 4)

    # Fig. 8: all layers truncated, a column for each psi [authors' code]
    x = torch.stack([paint(G, ckpt, styles(6, psi, G.n_layers)) for psi in PSI], 1)
    save("fig8.png", x.flatten(0, 1), len(PSI))

    # From each of six points in W to the next, eight times
    w = styles(48, truncated).unflatten(0, (6, 8))
    ends = torch.cat([w, w[:1]])
    at = torch.linspace(0, 6, args.frames + 1).tolist()[:-1]
    film = [torch.lerp(ends[int(t)], ends[int(t) + 1], t % 1) for t in at]
    save_gif(out / "walk.gif", [grid(paint(G, ckpt, frame), 4, scale=2) for frame in film],
             hold=0.12)
    noisy = "fig4.png, fig5.png, " if G.epilogues[0].noise is not None else ""
    print(f"wrote samples.png, fig3.png, {noisy}fig8.png, walk.gif to {out}")
    if args.ppl > 0:
        print(f"path length, {args.ppl} pairs, pixels:", ", ".join(
            f"{space} {'full' if full else 'end'} " +
            f"{path_length(G, ckpt, args.ppl, space, full):.1f}"
            for space in "zw" for full in (True, False)))


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
