"""Figures of the BigGAN paper, from a checkpoint of biggan/train.py.

    python biggan/sample.py                          from runs/biggan/ckpt.pt, beside it
    python biggan/sample.py --classes 3 7 --truncation 0.5      rows of these classes, truncated
    python biggan/sample.py --n 50000 --each pngs --real reals  single files, for FID tools
    python biggan/sample.py --official G_ema.pth --classes 207 250    the authors' generator

All by G's averaged weights and standing statistics.
"""
import argparse
import copy
import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from model import UP, Discriminator, Generator, SpectralNorm

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.images import grid, save_curves, save_gif, save_grid, write_bytes

NAME = "biggan"
THRESHOLDS = 2, 1, 0.5, 0.04  # [Fig. 2]


def settings(add) -> None:
    add("--classes", nargs="+", metavar="NAME", help="of the rows, and of --each; else the first "
        "ten, and all of them")
    add("--truncation", type=float, default=0.0, help="numbers of z that are larger are drawn "
        "again, in classes.png and --each; 0: none")
    add("--official", action=Official, metavar="FILE", help="G.pth or G_ema.pth of the first "
        "author's code, made a --ckpt beside it")


def build(ckpt: dict) -> Generator:
    """G as averaged, with standing statistics, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_chunk"], run["width"], len(ckpt["classes"]),
                  run["embed_dim"], min(run["attention"], run["size"] // 2), run["arch"],
                  run["eps"])
    G.load_state_dict(ckpt["G_ema"])
    return stand(G.to(ckpt["z_fixed"].device), ckpt)


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu", truncation: float = 0.0
             ) -> torch.Tensor:
    """z (n, z_dim), N(0, I); numbers beyond the threshold are drawn again. [Sec. 3.1]"""
    z = torch.randn(n, z_dim, device=device)
    while truncation and (beyond := z.abs() > truncation).any():
        z = torch.where(beyond, torch.randn_like(z), z)
    return z


def stand(G: Generator, ckpt: dict, truncation: float = 0.0) -> Generator:
    """G with the standing statistics of pictures that are truncated so; without, train.py's."""
    run, device = ckpt["args"], ckpt["z_fixed"].device
    n = min(run["batch_size"], 256)
    torch.manual_seed(run["seed"])
    return G.stand((sample_z(n, G.z_dim, device, truncation),
                    torch.randint(G.n_classes, (n,), device=device))
                   for _ in range(run["standing"]))


def chosen(ckpt: dict, names: list[str] | None) -> torch.Tensor:
    """The classes of these names, int64 (k,), or all."""
    classes = ckpt["classes"]
    if unknown := set(names or ()) - set(classes):
        fail(f"--classes {' '.join(sorted(unknown))}: this run's are {', '.join(classes)}")
    return torch.tensor([classes.index(name) for name in names or classes],
                        device=ckpt["z_fixed"].device)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0, y: torch.Tensor | None = None,
             truncation: float = 0.0) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed, y,
    truncation). y int64 (n,): their classes; without, each in turn."""
    G = stand(copy.deepcopy(G), ckpt, truncation) if truncation else G
    torch.manual_seed(seed)
    z = sample_z(n, G.z_dim, ckpt["z_fixed"].device, truncation)
    y = torch.arange(n) % G.n_classes if y is None else y
    k = min(250, max(1, 8192 // ckpt["args"]["size"]))
    return (G(*part) for part in zip(z.split(k), y.to(z.device).split(k), strict=True))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names, with the class, and pictures."""
    y = chosen(ckpt, args.classes)
    y = y[torch.arange(args.n) % len(y)]
    parts = generate(G, ckpt, args.n, args.seed, y, checked(args.truncation))
    return ((f"{i:06d}-{y[i]}", x) for i, x in enumerate(x for part in parts for x in part))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def checked(truncation: float) -> float:
    """The threshold, unless drawing again would hardly ever end."""
    if truncation and truncation < 0.01:
        fail(f"--truncation {truncation}: 0.01 or more, or 0 for none")
    return truncation


def interpolations(G: Generator, z: torch.Tensor, y: torch.Tensor, n: int = 9) -> torch.Tensor:
    """Rows of n, from z[0] to z[1] in class y[0], from y[0] to y[1] with z[0], and both at once: of
    z (2, m, z_dim), y (2, m), m of each kind. [Figs. 8, 9]"""
    e, rows = G.shared(y), []
    for z_end, e_end in ((z[1], e[0]), (z[0], e[1]), (z[1], e[1])):
        rows.append(torch.stack([G.paint(z[0].lerp(z_end, t), e[0].lerp(e_end, t))
                                 for t in torch.linspace(0, 1, n).tolist()], 1))
    return torch.cat(rows).flatten(0, 1)


def layers_of(net: torch.nn.Module) -> list[str]:
    """Names of the layers whose top singular values train.py keeps, in its order."""
    return [name.removesuffix(".parametrizations.weight.0") for name, m in net.named_modules()
            if isinstance(m, SpectralNorm)]


def fig3(G: Generator, ckpt: dict, out: Path) -> None:
    """fig3-g.png, fig3-d.png: the largest singular value of each convolution and of the first or
    last linear layer, numbered from the input on, over the steps. Those of the batch norms'
    conditions are left out, as they would hide the others."""
    run = ckpt["args"]
    with torch.device("meta"):
        D = Discriminator(run["size"], ckpt["channels"], run["width"], G.n_classes,
                          min(run["attention"], run["size"] // 2, 64), run["arch"])
    names = layers_of(G), layers_of(D)
    table = ckpt["spectra"].view(-1, 1 + len(names[0]) + len(names[1])).cpu()
    parts = table[:, 1:].split([len(part) for part in names], 1)
    for file, layers, values in zip(("fig3-g.png", "fig3-d.png"), names, parts, strict=True):
        shown = [i for i, name in enumerate(layers) if "norm" not in name]
        with TemporaryDirectory() as folder:
            with open(Path(folder, "fig3.csv"), "w", newline="") as f:
                csv.writer(f).writerows([["step", *range(1, len(shown) + 1)], *torch.cat(
                    [table[:, :1], values[:, shown]], 1).tolist()])
            save_curves(out / file, f.name)


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    z, y, truncation = ckpt["z_fixed"], chosen(ckpt, args.classes), checked(args.truncation)
    rows = y if args.classes else y[:10]
    of_run = torch.arange(len(z), device=z.device) // 8
    x = [G(*part) for part in zip(z.split(8), of_run.split(8), strict=True)]
    save_grid(out / "samples.png", torch.cat(x), scale=2)  # as in the run's own grids

    # From each point to the next, in turn of the classes; between points, classes, and both
    torch.manual_seed(args.seed)
    ends = sample_z(9, G.z_dim, z.device)
    of_walk = rows[torch.arange(8) % len(rows)]
    save_gif(out / "walk.gif", [grid(G(torch.lerp(ends[:-1], ends[1:], t), of_walk), scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])
    pairs = rows[torch.arange(6) % len(rows)].view(2, 3)
    save_grid(out / "between.png", interpolations(G, ends[:6].unflatten(0, (2, 3)), pairs),
              n_cols=9, captions=["z"] * 3 + ["class"] * 3 + ["both"] * 3, scale=2)

    # Fig. 2: less and less variety, each row with the statistics of its threshold
    columns = rows[torch.arange(10) % len(rows)]
    x = [next(generate(G, ckpt, 10, args.seed, columns, t)) for t in THRESHOLDS]
    save_grid(out / "fig2.png", torch.cat(x), n_cols=10, captions=list(map(str, THRESHOLDS)),
              scale=2)
    x = torch.cat(list(generate(G, ckpt, 10 * len(rows), args.seed, rows.repeat_interleave(10),
                                truncation)))
    save_grid(out / "classes.png", x, n_cols=10, scale=2,
              captions=[ckpt["classes"][i] for i in rows])
    print(f"wrote samples.png, walk.gif, between.png, fig2.png, classes.png to {out}")
    if "spectra" in ckpt and len(ckpt["spectra"]):
        fig3(G, ckpt, out)
        print("and fig3-g.png, fig3-d.png")


# The first author's own code (ajbrock's): his names, and what stands for them here
AUTHORS = [(r"^project\.", "linear."), (r"^image\.", "output_layer."), (r"\.norm(\d)", r".bn\1"),
           (r"\.shortcut", ".conv_sc"), (r"\.query", ".theta"), (r"\.key", ".phi"),
           (r"\.value", ".g"), (r"\.out\.", ".o."), (r"\.to_(gain|bias)", r".\1"),
           (r"\.parametrizations\.weight\.original", ".weight"),
           (r"\.parametrizations\.weight\.0\.u", ".u0"),
           (r"\.parametrizations\.weight\.0\.sigma", ".sv0"),
           (r"running_(mean|var)", r"stored_\1"), (r"(output_layer\.0)\.weight", r"\1.gain")]


def authors_name(name: str) -> str:
    """blocks.0.0.norm1.to_gain.parametrizations.weight.0.u -> blocks.0.0.bn1.gain.u0, and so on."""
    for ours, theirs in AUTHORS:
        name = re.sub(ours, theirs, name)
    return name


def official(path: Path) -> Path:
    """A G.pth or G_ema.pth as a checkpoint of ours beside it; its tensors tell all sizes."""
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        deep = "blocks.0.0.conv4.weight" in theirs
        n_blocks = 1 + max(int(name.split(".")[1]) for name in theirs if name[:7] == "blocks.")
        size, (n_classes, embed_dim) = 4 << n_blocks, theirs["shared.weight"].shape
        chunk = theirs["linear.weight"].shape[1]
        args = {"size": size, "z_chunk": chunk - embed_dim * deep,
                "width": len(theirs["output_layer.0.gain"]) // UP[size][-1],
                "embed_dim": embed_dim, "arch": "deep" if deep else "biggan", "eps": 1e-5,
                "attention": max([8 << int(name.split(".")[1]) for name in theirs
                                  if name.endswith(".theta.weight")], default=0)}
        G = Generator(channels=len(theirs["output_layer.2.weight"]), n_classes=n_classes, **args)
        for name, tensor in G.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value = theirs[authors_name(name)]
                value = value[0] if name.endswith(".u") else value
                if value.shape != tensor.shape:
                    raise ValueError(f"{authors_name(name)} is {tuple(value.shape)}, not "
                                     f"{tuple(tensor.shape)}")
                tensor.copy_(value)
    except FileNotFoundError:
        fail(f"--official {path.resolve()}: no such file")
    except Exception as e:  # a file may hold anything
        fail(f"--official {path.resolve()} is no generator of the first author's code, with "
             f"shared.weight, linear.weight, ... ({type(e).__name__}: {e})")
    buffer, made = io.BytesIO(), path.with_name(f"{path.stem}-ckpt.pt")
    torch.save({"paper": NAME, "classes": [str(i) for i in range(n_classes)],
                "channels": len(theirs["output_layer.2.weight"]), "G_ema": G.state_dict(),
                "z_fixed": torch.randn(8 * min(n_classes, 10), G.z_dim),
                "args": args | {"seed": 0, "batch_size": 16, "standing": 16, "data": "imagenet",
                                "data_root": None, "skip_bad": False}}, buffer)
    write_bytes(made, buffer.getbuffer())
    print(f"wrote {made}")
    return made


class Official(argparse.Action):
    """--official FILE: --ckpt is what becomes of it."""

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
