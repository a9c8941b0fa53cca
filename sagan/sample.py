"""Figures of the SAGAN paper, from a checkpoint of sagan/train.py.

    python sagan/sample.py                          from runs/sagan/ckpt.pt into runs/sagan/figures/
    python sagan/sample.py --classes 3 7            rows and attention maps of these classes
    python sagan/sample.py --points 0.5 0.2 0.3 0.9    where to ask what a place looks at: x y x y
    python sagan/sample.py --n 50000 --each pngs --real reals    single files, for FID tools
"""
import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.images import COLOURS, grid, save_gif, save_grid

NAME = "sagan"
POINTS = 0.5, 0.5, 0.5, 0.25, 0.5, 0.75, 0.3, 0.5, 0.06, 0.06  # the middle, around it, a corner


def settings(add) -> None:
    add("--classes", nargs="+", metavar="NAME", help="of the rows, and of --each; else the first "
        "ten, and all of them")
    add("--points", nargs="+", type=float, metavar="X", help="x y x y ... in [0, 1), whose "
        "attention attention.png shows; else five")


def build(ckpt: dict) -> Generator:
    """G as it was saved, with batch norm's running averages, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["width_g"],
                  len(ckpt["classes"]), run["attention"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), N(0, I), as in train.py."""
    return torch.randn(n, z_dim, device=device)


def chosen(ckpt: dict, names: list[str] | None) -> torch.Tensor:
    """The classes of these names, int64 (k,), or all."""
    classes = ckpt["classes"]
    if unknown := set(names or ()) - set(classes):
        fail(f"--classes {' '.join(sorted(unknown))}: this run's are {', '.join(classes)}")
    return torch.tensor([classes.index(name) for name in names or classes],
                        device=ckpt["z_fixed"].device)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0,
             y: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed, y).

    y int64 (n,): their classes; without, each in turn.
    """
    torch.manual_seed(seed)
    z = sample_z(n, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
    y = torch.arange(n) % G.n_classes if y is None else y
    return (G(*part) for part in zip(z.split(250), y.to(z.device).split(250), strict=True))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names, with the class, and pictures."""
    y = chosen(ckpt, args.classes)
    y = y[torch.arange(args.n) % len(y)]
    pictures = (x for part in generate(G, ckpt, args.n, args.seed, y) for x in part)
    return ((f"{i:06d}-{y[i]}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def looks(G: Generator, z: torch.Tensor, y: torch.Tensor,
          points: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, c, h, w), and where each one's points look: (n, k, h, w), 1 at the most. Their
    rows of the attention's weights, made as large as the picture."""
    seen = []
    hook = G.attention.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    x = G(z, y)
    hook.remove()
    h, w = seen[0].shape[2:]
    rows = G.attention.weights(seen[0])[:, [int(b * h) * w + int(a * w) for a, b in points]]
    maps = (rows / rows.amax(2, keepdim=True)).unflatten(2, (h // 2, w // 2))
    return x, F.interpolate(maps, size=x.shape[2:], mode="bilinear")


def overlay(x: torch.Tensor, maps: torch.Tensor, points: list[tuple[float, float]],
            scale: int = 4) -> torch.Tensor:
    """(n (1 + k), 3, scale h, scale w): each picture with its points, each in a colour; then for
    each point the darkened picture, and in the point's colour what it looks at. [Figs. 1, 5]"""
    rgb = [list(bytes.fromhex(COLOURS[i % len(COLOURS)][1:])) for i in range(len(points))]
    rgb = torch.tensor(rgb).to(x) / 127.5 - 1
    x, maps = x.expand(-1, 3, -1, -1)[:, None], maps[:, :, None]
    seen = torch.lerp((x - 1) / 2, rgb[:, :, None, None], maps)  # dark, or of that colour
    sheet = torch.cat([x, seen], 1).repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    for i, (a, b) in enumerate(points):
        top, left = int(b * sheet.shape[3]), int(a * sheet.shape[4])
        for j, colour in (0, rgb[i]), (i + 1, torch.ones_like(rgb[i])):
            sheet[:, j, :, max(top - 2, 0):top + 3, max(left - 2, 0):left + 3] = colour[
                :, None, None]
    return sheet.flatten(0, 1)


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    z, y = ckpt["z_fixed"], chosen(ckpt, args.classes)
    points = args.points or POINTS
    if args.points and G.attention is None:
        fail("--points: this run has no attention")
    if len(points) % 2 or not all(0 <= value < 1 for value in points):
        fail(f"--points {points}: looked for pairs x y in [0, 1)")
    points = list(zip(points[::2], points[1::2], strict=True))
    save_grid(out / "samples.png", G(z, torch.arange(len(z), device=z.device) // 8), scale=2)

    torch.manual_seed(args.seed)
    rows = y if args.classes else y[:10]
    x = torch.cat(list(generate(G, ckpt, 10 * len(rows), args.seed, rows.repeat_interleave(10))))
    save_grid(out / "classes.png", x, n_cols=10, scale=2,
              captions=[ckpt["classes"][i] for i in rows])
    ends = sample_z(9, ckpt["args"]["z_dim"], z.device)  # from each point to the next
    of_walk = rows[torch.arange(8) % len(rows)]
    save_gif(out / "walk.gif", [grid(G(torch.lerp(ends[:-1], ends[1:], t), of_walk), scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])
    print(f"wrote samples.png, classes.png, walk.gif to {out}")
    if G.attention is not None:
        x, maps = looks(G, ends[:8], of_walk, points)
        save_grid(out / "attention.png", overlay(x, maps, points), n_cols=1 + len(points))
        print(f"and attention.png; gamma of G is {G.attention.gamma.item():.3f}: near 0 it matters "
              "little what attention sees")


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
