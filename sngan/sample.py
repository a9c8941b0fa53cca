"""Figures of the SNGAN paper, from a checkpoint of sngan/train.py.

    python sngan/sample.py                          from runs/sngan/ckpt.pt into runs/sngan/figures/
    python sngan/sample.py --against runs/wn/ckpt.pt runs/wc/ckpt.pt    Fig. 3, of several runs
    python sngan/sample.py --n 50000 --each pngs --real reals           single files, for FID tools
    python sngan/sample.py --official ResNetGenerator_850000.npz --classes 207 250    the authors' G
"""
import argparse
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from model import Discriminator, Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.images import grid, save_curves, save_gif, save_grid, write_bytes

NAME = "sngan"


def settings(add) -> None:
    add("--classes", nargs="+", metavar="NAME", help="of the rows, and of --each; else the first "
        "ten, and all of them")
    add("--against", nargs="+", type=Path, default=[], metavar="CKPT", help="runs with other norms "
        "of D, for fig3.png")
    add("--official", action=Official, metavar="FILE.npz", help="the authors' generator, made a "
        "--ckpt beside it")


def build(ckpt: dict) -> Generator:
    """G as it was saved, with batch norm's running averages, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["width_g"],
                  len(ckpt["classes"]) if run["conditional"] else 0, run["arch"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), N(0, I), as in train.py."""
    return torch.randn(n, z_dim, device=device)


def chosen(ckpt: dict, names: list[str] | None) -> torch.Tensor:
    """The classes of these names, int64 (k,), or all; none without --conditional."""
    classes = ckpt["classes"] if ckpt["args"]["conditional"] else []
    if unknown := set(names or ()) - set(classes):
        fail(f"--classes {' '.join(sorted(unknown))}: this run was told "
             f"{', '.join(classes) or 'no classes, as it is without --conditional'}")
    return torch.tensor([classes.index(name) for name in names or classes], dtype=torch.int64,
                        device=ckpt["z_fixed"].device)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0,
             y: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed, y).

    y int64 (n,): their classes; without, each in turn. No matter to a G without classes.
    """
    torch.manual_seed(seed)
    z = sample_z(n, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
    if not G.n_classes:
        return (G(part) for part in z.split(250))
    y = torch.arange(n) % G.n_classes if y is None else y
    return (G(*part) for part in zip(z.split(250), y.to(z.device).split(250), strict=True))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names, with the class where there are any, and pictures."""
    y = chosen(ckpt, args.classes)
    y = y[torch.arange(args.n) % len(y)] if len(y) else None
    pictures = (x for part in generate(G, ckpt, args.n, args.seed, y) for x in part)
    return ((f"{i:06d}" if y is None else f"{i:06d}-{y[i]}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def spectra(ckpt: dict) -> list[np.ndarray]:
    """Of each convolution of D, as it is used, the squared singular values of its matrix
    (out, rest), divided by the largest. [Fig. 3]"""
    run = ckpt["args"]
    D = Discriminator(run["size"], ckpt["channels"], run["width_d"],
                      len(ckpt["classes"]) if run["conditional"] else 0, run["arch"], run["norm"])
    D.load_state_dict(ckpt["D"])
    weights = [m.weight for m in D.eval().modules() if isinstance(m, torch.nn.Conv2d)]
    values = [torch.linalg.svdvals(W.detach().flatten(1)).square() for W in weights]
    return [(s / s[0]).numpy() for s in values]


def fig3(out: Path, ckpts: list[dict]) -> None:
    """A curve for each run: from one layer's number to the next its spectrum, from the largest
    value to the smallest, as wide for few values as for many."""
    names = [run["norm"] if run["norm"] != "none" else f"clip {run['clip']}"
             for run in (ckpt["args"] for ckpt in ckpts)]
    at = np.linspace(0, 0.9, 50)
    rows = [["layer", *names]]
    for i, layer in enumerate(zip(*map(spectra, ckpts), strict=True), 1):
        curves = [np.interp(at, np.linspace(0, 0.9, len(s)), s) for s in layer]
        rows += [[i + t, *row] for t, *row in zip(at, *curves, strict=True)]
        rows += [[i + 0.95, *[""] * len(names)]]  # a gap
    with TemporaryDirectory() as folder:
        with open(Path(folder, "fig3.csv"), "w", newline="") as f:
            csv.writer(f).writerows(rows)
        save_curves(out / "fig3.png", f.name)


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    z, y = ckpt["z_fixed"], chosen(ckpt, args.classes)
    runs = [ckpt, *(load_generator(path)[1] for path in args.against)]
    layers = {len(spectra(run)) if "D" in run else 0 for run in runs}
    if args.against and (0 in layers or len(layers) > 1):
        fail("--against: runs of one --arch and --size can be compared, an --official has no D")
    of_run = torch.arange(len(z), device=z.device) // 8 if G.n_classes else None
    save_grid(out / "samples.png", G(z, of_run), scale=2)  # as in the run's own grids

    torch.manual_seed(args.seed)
    if G.n_classes:
        y = y if args.classes else y[:10]
        x = torch.cat(list(generate(G, ckpt, 10 * len(y), args.seed, y.repeat_interleave(10))))
        save_grid(out / "classes.png", x, n_cols=10, scale=2,
                  captions=[ckpt["classes"][i] for i in y])
    ends = sample_z(9, ckpt["args"]["z_dim"], z.device)  # from each point to the next
    of_walk = y[torch.arange(8) % len(y)] if G.n_classes else None
    save_gif(out / "walk.gif", [grid(G(torch.lerp(ends[:-1], ends[1:], t), of_walk), scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])
    print(f"wrote samples.png, {'classes.png, ' * bool(G.n_classes)}walk.gif to {out}")
    if "D" in ckpt:
        fig3(out, runs)
        print("and fig3.png")


def authors_name(name: str, last: int) -> str:
    """blocks.0.norm1.gamma -> block2/b1/gammas/W, and so on; `last` is the number of G's end."""
    *layer, kind = name.split(".")
    if layer[0] == "blocks":
        path = f"block{int(layer[1]) + 2}/" + {"norm1": "b1", "norm2": "b2", "conv1": "c1",
                                               "conv2": "c2", "shortcut": "c_sc"}[layer[2]]
    else:
        path = {"project": "l1", "image.0": f"b{last}",
                "image.2": f"{'c' if last == 5 else 'l'}{last}"}[".".join(layer)]
    plain = {"weight": "gamma", "bias": "beta"} if "b" in path.split("/")[-1] else {
        "weight": "W", "bias": "b"}
    return f"{path}/" + (plain | {"gamma": "gammas/W", "beta": "betas/W", "running_mean":
                                  "avg_mean", "running_var": "avg_var"})[kind]


def official(path: Path) -> Path:
    """A snapshot of the authors' ResNetGenerator, as a checkpoint of ours beside it. Its arrays are
    read by numpy alone: nothing that the file holds is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        last = max(int(name[1:-6]) for name in arrays if name[1:-6].isdigit()
                   and name[0] == "b" and name.endswith("/gamma"))
        z_dim, width = arrays["l1/W"].shape[1], arrays[f"b{last}/gamma"].shape[0]
        n_classes = len(arrays.get("block2/b1/gammas/W", ()))
        G = Generator(4 << last - 2, 3, z_dim, width, n_classes)
        for name, tensor in G.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                theirs = arrays[authors_name(name, last)]
                if theirs.shape != tensor.shape:
                    raise ValueError(f"{authors_name(name, last)} is {tuple(theirs.shape)}, not "
                                     f"{tuple(tensor.shape)}")
                tensor.copy_(theirs)
    except FileNotFoundError:
        fail(f"--official {path.resolve()}: no such file")
    except Exception as e:  # a file may hold anything
        fail(f"--official {path.resolve()} is no ResNetGenerator of the authors, with l1/W, "
             f"b2/gamma, ... ({type(e).__name__})")
    buffer, n_rows = io.BytesIO(), min(n_classes, 10) or 8
    made = path.with_name(f"{path.stem}-ckpt.pt")
    torch.save({"paper": NAME, "classes": [str(i) for i in range(n_classes)], "channels": 3,
                "G": G.state_dict(), "z_fixed": torch.randn(8 * n_rows, z_dim), "args": {
                    "size": 4 << last - 2, "z_dim": z_dim, "width_g": width, "arch": "resnet",
                    "conditional": n_classes > 0, "data": "imagenet", "data_root": None,
                    "skip_bad": False}}, buffer)
    write_bytes(made, buffer.getbuffer())
    print(f"wrote {made}")
    return made


class Official(argparse.Action):
    """--official FILE.npz: --ckpt is what becomes of it."""

    def __call__(self, parser, args, value, flag=None):
        args.ckpt = official(Path(value))


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
