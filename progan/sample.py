"""Figures of the ProGAN paper, from a checkpoint of progan/train.py.

    python progan/sample.py                            from runs/progan/ckpt.pt, beside it
    python progan/sample.py --ckpt path/to/ckpt.pt --out figures
    python progan/sample.py --nearest --swd 5000       beside the run's data, too
    python progan/sample.py --n 10000 --each pngs --real reals    single files, for the FID tools
    python progan/sample.py --official karras.pth --out figures   a generator of the authors

All by G's averaged weights. --official takes a state dict as gandissect has made them of the
authors' networks (layer1.conv.weight, layer1.wscale.b, ..., output_256x256.conv.weight).
"""
import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import SIZES, Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.images import grid, save_gif, save_grid, to_uint8

NAME = "progan"
SMOOTH = 0.75 / 0.12  # frames of walk.gif in 0.75 seconds, its filter's deviation [Sec. 6.3]


def settings(add) -> None:
    add("--nearest", action="store_true", help="nearest.png: samples beside the training set")
    add("--swd", type=int, default=0, help="the sliced Wasserstein distance of so many samples to "
        "as many images, all if there are fewer; paper: 16384")
    add("--official", type=Path, dest="ckpt", metavar="PTH", default=argparse.SUPPRESS,
        help="instead of --ckpt, a generator of the authors in gandissect's names")


def build(ckpt: dict) -> Generator:
    """G as averaged."""
    if "paper" not in ckpt:
        return official(ckpt)
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["fmap_base"], run["fmap_max"],
                  run["config"])
    G.load_state_dict(ckpt["G_ema"])
    return G.eval()


def official(ckpt: dict) -> Generator:
    """G from a state dict in gandissect's names, new or old. Its shapes tell size and channels; of
    the layers to RGB it has the last one, the others are 0 here."""
    p = ckpt.get("state_dict", ckpt)
    old = "features.0.conv.weight" in p
    layers = [f"features.{i}" if old else f"layer{i + 1}" for i in range(2 * len(SIZES) + 2)]
    layers = [name for name in layers if f"{name}.conv.weight" in p]
    c = [len(p[f"{name}.conv.weight"]) for name in layers[::2]]
    size = 2 << len(c)
    rgb = "output" if old else f"output_{size}x{size}"
    G = Generator(size, 3, p[f"{layers[0]}.conv.weight"].shape[1], c[-1] * size // 2, max(c))
    if [len(conv.weight) for conv in G.convs[::2]] != c:
        fail(f"--official: channels {c}; looked for the paper's, which double as the size halves")
    first = p[f"{layers[0]}.conv.weight"].flip(2, 3)  # on z as a picture of 1x1, padded by 3
    ours = {"dense.weight": first.permute(0, 2, 3, 1).flatten(0, 2),
            "bias": p[f"{layers[0]}.wscale.b"][:, None, None]}
    names = {f"convs.{i}": name for i, name in enumerate(layers[1:])}
    for ours_name, theirs in {**names, f"to_rgb.{len(c) - 1}": rgb}.items():
        ours[f"{ours_name}.weight"] = p[f"{theirs}.conv.weight"]
        ours[f"{ours_name}.bias"] = p[f"{theirs}.wscale.b"]
    rest = {k: torch.zeros_like(v) for k, v in G.state_dict().items() if k not in ours}
    G.load_state_dict(ours | rest)
    torch.manual_seed(0)
    z = sample_z(max(8, min(64, 4096 // size)), first.shape[1], first.device)
    ckpt.update(args={"z_dim": first.shape[1], "size": size, "data": None, "data_root": None,
                      "skip_bad": False}, size=size, alpha=1.0, z_fixed=z, channels=3)
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim, device=device)


def paint(G: Generator, ckpt: dict, z: torch.Tensor, size: int | None = None,
          alpha: float | None = None) -> torch.Tensor:
    """G(z), as the run has grown or as said, as large as it will grow."""
    size, alpha = size or ckpt["size"], ckpt["alpha"] if alpha is None else alpha
    x = torch.cat([G(part, size, alpha) for part in z.split(8)])
    return F.interpolate(x, scale_factor=G.size // size)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed)."""
    torch.manual_seed(seed)
    z = sample_z(n, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
    return (paint(G, ckpt, part) for part in z.split(min(250, max(1, 8192 // G.size))))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures."""
    pictures = (x for part in generate(G, ckpt, args.n, args.seed) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    if not ckpt["args"]["data"]:
        fail("no data are known of that generator: name them, --data FOLDER")
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def low_pass(z: torch.Tensor, deviation: float) -> torch.Tensor:
    """z (frames, n, z_dim) filtered along the frames by a Gaussian of this deviation, the last one
    next to the first, and each z brought back to a mean square of 1. [Sec. 6.3]"""
    f = torch.fft.rfftfreq(len(z), device=z.device)[:, None, None]
    gaussian = torch.exp(-2 * (math.pi * deviation * f) ** 2)  # its Fourier transform
    z = torch.fft.irfft(torch.fft.rfft(z, dim=0) * gaussian, len(z), dim=0)
    return z / z.square().mean(2, keepdim=True).sqrt()


def nearest(x: torch.Tensor, data: Data, k: int) -> torch.Tensor:
    """For each x its k nearest images of the set (n, k, c, h, w), the nearest first. Departure: by
    the square distance of pixels, at 32x32 at most, not by VGG's features [App. F]."""
    def small(x):
        return F.avg_pool2d(x, max(1, x.shape[-1] // 32)).flatten(1)

    d = torch.cat([torch.cdist(small(x), small(data[i:i + 250]))
                   for i in range(0, len(data), 250)], 1)
    rows = d.topk(min(k, len(data)), largest=False).indices
    return torch.stack([data[row] for row in rows])


def smooth(x: torch.Tensor) -> torch.Tensor:
    """Binomial, 5x5, mirrored at the border. [authors' code]"""
    k = torch.tensor([1.0, 4, 6, 4, 1], device=x.device) / 16
    x = F.pad(x, (2, 2, 2, 2), "reflect")
    return F.conv2d(x, k.outer(k).expand(x.shape[1], 1, 5, 5), groups=x.shape[1])


def pyramid(x: torch.Tensor) -> list[torch.Tensor]:
    """Laplacian: of each size down to 16 what the next one lacks; the last is a picture. [Sec. 5;
    the filter: authors' code]"""
    levels = [x]
    while levels[-1].shape[-1] >= 32:
        below = smooth(levels[-1])[..., ::2, ::2]
        spread = torch.zeros_like(levels[-1])
        spread[..., ::2, ::2] = below
        levels[-1] = levels[-1] - 4 * smooth(spread)
        levels.append(below)
    return levels


def descriptors(parts: Iterable[torch.Tensor], seed: int, per_image: int = 128
                ) -> dict[int, torch.Tensor]:
    """For each level of the pyramid, by its size, 7x7 patches of all images, 128 of each at random
    places, as rows (n, 49 c); each channel has mean 0 and deviation 1. [Sec. 5]"""
    found: dict[int, list] = {}
    at = torch.Generator().manual_seed(seed)
    for x in parts:
        for level in pyramid(to_uint8(x).float()):
            y, x0 = torch.randint(level.shape[-1] - 6, (2, len(level), per_image), generator=at)
            image = torch.arange(len(level))[:, None]
            patches = level.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5)
            found.setdefault(level.shape[-1], []).append(
                patches[image, y, x0].flatten(0, 1))  # (128 b, c, 7, 7)
    for size, some in found.items():
        d = torch.cat(some)
        d -= d.mean((0, 2, 3), keepdim=True)
        found[size] = (d / d.std((0, 2, 3), correction=0, keepdim=True)).flatten(1)
    return found


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, seed: int, directions: int = 512
                       ) -> float:
    """Of two sets of as many points (n, k): the mean, over random directions, of the distance of
    their projections, which sorting pairs. [Rabin et al. 2011; Sec. 5]"""
    draw, total = torch.Generator().manual_seed(seed), 0.0
    for _ in range(directions // 32):
        d = F.normalize(torch.randn(a.shape[1], 32, generator=draw), dim=0).to(a.device)
        total += ((a @ d).sort(0).values - (b @ d).sort(0).values).abs().mean().item()
    return total / (directions // 32)


def swd(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor], seed: int) -> str:
    """The distances times 10^3 of as many pictures, of each level and their mean, as a text."""
    a, b = descriptors(a, seed), descriptors(b, seed)
    values = {size: 1000 * sliced_wasserstein(a[size], b[size], seed) for size in a}
    return ", ".join(f"{size}x{size} {v:.2f}" for size, v in values.items()) + (
        f", mean {sum(values.values()) / len(values):.2f}")


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    z_dim, device, done = ckpt["args"]["z_dim"], ckpt["z_fixed"].device, ["samples.png"]
    data = None
    if args.swd < 0:
        fail(f"--swd {args.swd}: looked for a number of samples")
    if args.nearest or args.swd:
        run = ckpt["args"]
        data = real(ckpt, args, root=run["data_root"], skip_bad=run["skip_bad"],
                    device=device).of(ckpt["channels"])
    save_grid(out / "samples.png", paint(G, ckpt, ckpt["z_fixed"]), 8, scale=2)

    # Fig. 2: a row for each size; of two z, as the new layers weigh 0, 0.5 and 1
    torch.manual_seed(args.seed)
    z, sizes = sample_z(2, z_dim, device), [s for s in SIZES if s <= ckpt["size"]]
    if "paper" in ckpt and sizes:
        x = [paint(G, ckpt, z, size, alpha) for size in sizes for alpha in (0.0, 0.5, 1.0)]
        x = torch.stack(x).unflatten(0, (-1, 3)).transpose(1, 2)  # (sizes, z, alpha, ...)
        save_grid(out / "growth.png", x.flatten(0, 2), 6, captions=[f"{s}" for s in sizes],
                  scale=2 if G.size <= 128 else 1)
        done.append("growth.png")

    # Of eight z that move, filtered along time [Sec. 6.3]
    z = low_pass(sample_z(args.frames * 8, z_dim, device).unflatten(0, (-1, 8)), SMOOTH)
    save_gif(out / "walk.gif", [grid(paint(G, ckpt, frame), 4, scale=2) for frame in z], hold=0.12)
    done.append("walk.gif")

    # App. F: six samples, at the left, and the nearest images of the training set
    if args.nearest:
        x = paint(G, ckpt, ckpt["z_fixed"][:6])
        near = nearest(x, data, 5)
        save_grid(out / "nearest.png", torch.cat([x[:, None], near], 1).flatten(0, 1),
                  1 + near.shape[1], scale=2)
        done.append("nearest.png")
    print(f"wrote {', '.join(done)} to {out}")

    if args.swd:  # Table 1
        n = min(args.swd, len(data))
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(args.seed))[:n]

        def images(rows):
            return (data[part] for part in rows.split(250))

        print(f"sliced Wasserstein distance x 10^3, 128 patches an image\n  {n:,} samples to {n:,} "
              f"images: {swd(generate(G, ckpt, n, args.seed), images(rows), args.seed)}")
        if n > 1:
            a, b = rows[:n // 2], rows[n // 2:2 * (n // 2)]
            print(f"  {n // 2:,} of these images to {n // 2:,} others: "
                  f"{swd(images(a), images(b), args.seed)}")


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
