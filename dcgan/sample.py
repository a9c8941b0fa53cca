"""Figures of the DCGAN paper, from a checkpoint of dcgan/train.py.

    python dcgan/sample.py                          from runs/dcgan/ckpt.pt into runs/dcgan/figures/
    python dcgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python dcgan/sample.py --vectors 4 17 32  8 9 51  0 3 77    Fig. 7 by numbers in candidates.png
    python dcgan/sample.py --n 10000 --each pngs --real reals   single files, for the FID tools
"""
import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from model import Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_attributes, load_images
from common.images import grid, save_gif, save_grid

NAME = "dcgan"
# Fig. 7 with the drawn faces: A - B + C should wear glasses and not smile
CONCEPTS = [dict(zip(("glasses", "smiling"), on, strict=True)) for on in ((1, 1), (0, 1), (0, 0))]


def settings(add) -> None:
    add("--vectors", type=int, nargs=9, metavar="I",
        help="Fig. 7: three samples each for A, B, C, by their number in candidates.png")


def build(ckpt: dict) -> Generator:
    """G as it was saved, with batch norm's running averages, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["width"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), uniform in (-1, 1), as in train.py."""
    return torch.rand(n, z_dim, device=device) * 2 - 1


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed)."""
    torch.manual_seed(seed)
    z = sample_z(n, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
    return (G(part) for part in z.split(250))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures."""
    pictures = (x for part in generate(G, ckpt, args.n, args.seed) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def judge(x: torch.Tensor, faces: Data) -> torch.Tensor:
    """Scores (n, n_attributes) of images (n, c, h, w), > 0 where an attribute seems present.

    A ridge regression from the pixels of 4,000 drawn faces to their known attributes [ours].
    """
    pixels, a = faces[:4000]
    X = torch.cat([pixels.flatten(1), torch.ones(len(pixels), 1)], 1)
    W = torch.linalg.solve(X.T @ X + 30 * torch.eye(X.shape[1]), X.T @ (2 * a - 1))
    return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1) @ W


def exemplars(scores: torch.Tensor, names: list[str], concept: dict[str, int]) -> list[int]:
    """The three samples that show a concept most clearly: its weakest attribute is strongest."""
    sides = [scores[:, names.index(k)] * (1 if v else -1) for k, v in concept.items()]
    return torch.stack(sides).amin(0).topk(3).indices.tolist()


def arithmetic(G: Generator, z: torch.Tensor, picks: list[int]) -> torch.Tensor:
    """Fig. 7, (24, c, h, w), 8 a row: of A, B and C the three exemplars and the picture of their
    mean z; then, three a row, nine of A - B + C, its own in the middle, the others near it."""
    z = z[picks].unflatten(0, (3, 3))
    mean = z.mean(1)
    y = mean[0] - mean[1] + mean[2]
    noise = torch.rand(9, len(y), device=z.device) * 0.5 - 0.25  # [Fig. 7: uniform, +-0.25]
    noise[4] = 0
    left = G(torch.cat([z, mean[:, None]], 1).flatten(0, 1)).unflatten(0, (3, 4))
    right = G(y + noise).unflatten(0, (3, 3))
    return torch.cat([left, torch.ones_like(left[:, :1]), right], 1).flatten(0, 1)


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    run, device = ckpt["args"], ckpt["z_fixed"].device
    if args.vectors and not all(0 <= i < 100 for i in args.vectors):
        fail(f"--vectors {args.vectors}: candidates.png numbers its samples 0 to 99")
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    # Fig. 4: from each of nine random points to the next
    torch.manual_seed(args.seed)
    ends = sample_z(9, run["z_dim"], device)
    rows = [torch.lerp(ends[:-1], ends[1:], t) for t in torch.linspace(0, 1, 10).tolist()]
    save_grid(out / "fig4.png", G(torch.stack(rows, 1).flatten(0, 1)), n_cols=10, scale=2)
    save_gif(out / "walk.gif", [grid(G(torch.lerp(ends[:-1], ends[1:], t)), scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])

    # Fig. 7: the exemplars are the user's, or with the drawn faces those with known attributes
    z = sample_z(1000, run["z_dim"], device)
    x = torch.cat([G(part) for part in z.split(250)])
    captions = [f"{i}-{i + 9}" for i in range(0, 100, 10)]
    save_grid(out / "candidates.png", x[:100], n_cols=10, captions=captions, scale=2)
    picks, names = args.vectors, "ABC"
    if not picks and run["data"] == "faces":
        faces = load_attributes("faces", run["size"])
        scores = judge(x.cpu(), faces)
        picks = [i for concept in CONCEPTS for i in exemplars(scores, faces.attributes, concept)]
        names = [", ".join(k if v else f"not {k}" for k, v in c.items()) for c in CONCEPTS]
    print(f"wrote samples.png, fig4.png, walk.gif, candidates.png to {out}")
    if not picks:
        print("for fig7.png pick three samples for each of A, B, C in candidates.png: --vectors")
        return
    fig7 = arithmetic(G, z, picks)
    captions = [f"{sign} {name}" for sign, name in zip(" -+", names, strict=True)]
    save_grid(out / "fig7.png", fig7, captions=captions, scale=2)
    print("and fig7.png")
    if not args.vectors:
        found = judge(fig7[14:15].cpu(), faces)[0].tolist()
        found = dict(zip(faces.attributes, found, strict=True))
        print("A - B + C by the linear judge:", *(f"{k} {found[k]:+.2f}" for k in CONCEPTS[0]))


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
