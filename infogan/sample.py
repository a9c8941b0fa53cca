"""Figures of the InfoGAN paper, from a checkpoint of infogan/train.py.

    python infogan/sample.py                        from runs/infogan/ckpt.pt, into figures/ there
    python infogan/sample.py --ckpt path/to/ckpt.pt --out figures
    python infogan/sample.py --regular runs/gan-with-q    Figs. 1 and 2b: beside that other run
    python infogan/sample.py --n 10000 --each pngs --real reals   single files, for the FID tools
"""
import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Discriminator, Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images, load_labelled
from common.images import grid, save_curves, save_gif, save_grid, write_bytes

NAME = "infogan"
SAME = "size", "z_dim", "categorical", "n_categorical", "continuous", "regular"


def settings(add) -> None:
    add("--regular", type=Path, metavar="RUN",
        help="the folder of a run with --regular, for Fig. 1 and Fig. 2b")


def c_dim(run: dict) -> int:
    """Length of c: the one-hot vectors and the continuous codes."""
    return run["n_categorical"] * run["categorical"] + run["continuous"]


def build(ckpt: dict) -> Generator:
    """G as it was saved, with batch norm's running averages, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"] + c_dim(run), run["width"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), uniform in (-1, 1), as in train.py."""
    return torch.rand(n, z_dim, device=device) * 2 - 1


def sample_c(n: int, run: dict, device: torch.device | str = "cpu") -> torch.Tensor:
    """c (n, c_dim), one-hot vectors, then values uniform in (-1, 1), as in train.py."""
    y = torch.randint(run["categorical"], (n, run["n_categorical"]), device=device)
    u = torch.rand(n, run["continuous"], device=device) * 2 - 1
    return torch.cat([F.one_hot(y, run["categorical"]).flatten(1).to(u), u], 1)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """n images in [-1, 1], up to 250 at a time (b, c, h, w): a function of (G, n, seed)."""
    torch.manual_seed(seed)
    device = ckpt["z_fixed"].device
    z, c = sample_z(n, ckpt["args"]["z_dim"], device), sample_c(n, ckpt["args"], device)
    return (G(*part) for part in zip(z.split(250), c.split(250), strict=True))


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures."""
    pictures = (x for part in generate(G, ckpt, args.n, args.seed) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: the set that the run was shown."""
    return load_images(ckpt["args"]["data"], ckpt["args"]["size"], **reading)


def sweep(z: torch.Tensor, c: torch.Tensor, code: int, run: dict) -> tuple[torch.Tensor, ...]:
    """Fig. 2: each (z, c) as often as the code has columns, with that code alone varied: through
    its k values, or, of a continuous one, from -2 to 2 (it was trained on -1 to 1) in ten steps."""
    k, n = run["categorical"], run["n_categorical"]
    start = code * k if code < n else n * k + code - n
    values = (torch.eye(k) if code < n else torch.linspace(-2, 2, 10)[:, None]).to(c)
    swept = c.repeat_interleave(len(values), 0)
    swept[:, start:start + values.shape[1]] = values.repeat(len(c), 1)
    return z.repeat_interleave(len(values), 0), swept


def rows_of_figure_2(code: int, run: dict, device) -> tuple[torch.Tensor, torch.Tensor]:
    """(z, c) of the rows: five random ones for a categorical code; for a continuous one the values
    of c1, with the same z."""
    if code < run["n_categorical"]:
        return sample_z(5, run["z_dim"], device), sample_c(5, run, device)
    k = run["categorical"]
    z, c = sample_z(1, run["z_dim"], device).repeat(k, 1), sample_c(1, run, device).repeat(k, 1)
    c[:, :k] = torch.eye(k)
    return z, c


def q_reads(D: Discriminator, x: torch.Tensor, k: int) -> torch.Tensor:
    """The value of c1 that Q finds most probable, (n,)."""
    return torch.cat([D(part)[1][:, :k].argmax(1) for part in x.split(500)])


def majority(codes: torch.Tensor, y: torch.Tensor, k: int, n_classes: int) -> torch.Tensor:
    """The class that most images of each code value have, (k,)."""
    return torch.bincount(codes * n_classes + y, minlength=k * n_classes).view(k, -1).argmax(1)


def classify(ckpt: dict) -> None:
    """Sec. 7.2: c1 as a classifier that no label has taught. The labels come in here for the first
    time: to name its values, by majority among training images, and to count errors, among
    held-out ones."""
    run, device = ckpt["args"], ckpt["z_fixed"].device
    D = Discriminator(run["size"], ckpt["channels"], c_dim(run) + run["continuous"], run["width"])
    D.load_state_dict(ckpt["D"])
    D.to(device).eval().requires_grad_(False)
    reading = dict(root=run["data_root"], skip_bad=run["skip_bad"], device=device)
    k, n_classes = run["categorical"], len(ckpt["classes"])
    data = load_labelled(run["data"], run["size"], **reading).of(ckpt["channels"])
    if data.classes != ckpt["classes"]:
        fail(f"--data: the classes of {data.name} are not the run's")
    x, y = data[:10_000]
    names = majority(q_reads(D, x, k), y, k, n_classes)
    x, y = load_labelled(run["data"], run["size"], split="test", **reading)[:]
    wrong = (names[q_reads(D, x, k)] != y).double().mean().item()
    found = " ".join(ckpt["classes"][name] for name in names.tolist())
    print(f"c1 as a classifier: its values are {found}; error {wrong:.1%} of {len(x):,} images")


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    run, device = ckpt["args"], ckpt["z_fixed"].device
    k = run["categorical"]
    if args.regular:
        other, its = load_generator(args.regular / "ckpt.pt", args.device)
        if its["channels"] != ckpt["channels"] or any(
                its["args"][name] != {**run, "regular": True}[name] for name in SAME):
            fail(f"--regular {args.regular}: looked for a run of --regular, else like this one")
        curves = [information_of(args.ckpt.parent), information_of(args.regular)]
    save_grid(out / "samples.png", G(ckpt["z_fixed"], ckpt["c_fixed"]), k, scale=2)

    # Fig. 2, a file for each code; (b) is the same sweep of c1 in a regular GAN
    for code in range(run["n_categorical"] + run["continuous"]):
        torch.manual_seed(args.seed)
        z, c = sweep(*rows_of_figure_2(code, run, device), code, run)
        n_cols = k if code < run["n_categorical"] else 10
        save_grid(out / f"fig2-c{code + 1}.png", G(z, c), n_cols, scale=2)
        if args.regular and code == 0:
            save_grid(out / "fig2b.png", other(z, c), n_cols, scale=2)

    # From each of k points to the next, through z and the continuous codes
    torch.manual_seed(args.seed)
    z, c = sample_z(k, run["z_dim"], device), sample_c(k, run, device)
    c[:, :k] = torch.eye(k)
    u = slice(c_dim(run) - run["continuous"], None)
    z_to, c_to = z.roll(1, 0), c.clone()
    c_to[:, u] = c.roll(1, 0)[:, u]
    save_gif(out / "walk.gif", [grid(G(torch.lerp(z, z_to, t), torch.lerp(c, c_to, t)), k, scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])

    # Fig. 1, from the log.csv of both runs
    if args.regular:
        rows = [f"{step},{curves[0][step]},{curves[1][step]}"
                for step in curves[0] if step in curves[1]]
        text = "\n".join(["step,InfoGAN: L_I,GAN with an auxiliary Q", *rows]) + "\n"
        write_bytes(out / "fig1.csv", text.encode())
        save_curves(out / "fig1.png", out / "fig1.csv")
    print(f"wrote samples.png, fig2-c*.png, walk.gif{', fig1.png, fig2b.png' * bool(args.regular)} "
          f"to {out}")
    if ckpt["classes"]:
        classify(ckpt)


def information_of(folder: Path) -> dict[str, str]:
    """L_I by step, from a run's log."""
    try:
        with open(folder / "log.csv", newline="") as lines:
            return {row["step"]: row["L_I"] for row in csv.DictReader(lines)}
    except (OSError, KeyError):
        fail(f"{(folder / 'log.csv').resolve()}: looked for the log of a run of {NAME}/train.py")


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
