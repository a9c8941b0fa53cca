"""Samples of WGAN-GP, from a checkpoint of wgan_gp/train.py. Fig. 1 is drawn by wgan_gp/toy.py.

    python wgan_gp/sample.py                        from runs/wgan_gp/ckpt.pt into its figures/
    python wgan_gp/sample.py --ckpt path/to/ckpt.pt --out figures
    python wgan_gp/sample.py --held-out digits      and the critic's estimate on unseen images
    python wgan_gp/sample.py --n 10000 --each pngs --real reals   single files, for the FID tools
"""
import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from model import Critic, Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_images
from common.folders import place
from common.images import grid, save_gif, save_grid

NAME = "wgan_gp"


def settings(add) -> None:
    add("--held-out", metavar="DATA", help="Fig. 5b at this step: the critic's estimate on the "
        "test images of a named set, or on those of a folder")


def build(ckpt: dict) -> Generator:
    """G as it was saved, with batch norm's running averages, as in train.py's sample."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["width"], run["arch"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim, device=device)


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


def held_out(G: Generator, ckpt: dict, args: argparse.Namespace) -> None:
    """Prints E[D(x)] - E[D(G(z))] for images that the critic has seen, and has not. [Fig. 5b]"""
    run, device = ckpt["args"], ckpt["z_fixed"].device
    reading = {"root": run["data_root"], "skip_bad": run["skip_bad"], "device": device}
    unseen = load_images(args.held_out, run["size"], split="test", **reading)
    seen, here = place(run["data"]), place(unseen.name)
    if unseen.split == "train" and (seen == here or seen in here.parents or here in seen.parents):
        fail(f"--held-out {here}: the run was trained on images in it, those of {seen}")
    D = Critic(run["size"], ckpt["channels"], run["width"], run["arch"]).to(device)
    D.load_state_dict(ckpt["D"])
    D.requires_grad_(False)
    fake = torch.cat([D(part) for part in generate(G, ckpt, 5000, args.seed)]).mean()
    values = []
    for name, data in ("training", real(ckpt, args, **reading)), ("held-out", unseen):
        data.of(ckpt["channels"])
        n = min(len(data), 5000)
        scores = [D(data[i:min(i + 250, n)]) for i in range(0, n, 250)]
        values.append(f"{torch.cat(scores).mean() - fake:.3f} on {n:,} {name} images")
    print(f"E[D(x)] - E[D(G(z))] at step {ckpt['step']}: {', '.join(values)}")


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    # From one random point to another, on the arc between them: a mean of two normal z is shorter
    torch.manual_seed(args.seed)
    ends = sample_z(16, ckpt["args"]["z_dim"], ckpt["z_fixed"].device)
    a, b = ends[::2], ends[1::2]
    walk = [G(a * t.cos() + b * t.sin()) for t in torch.linspace(0, torch.pi / 2, 10)]
    save_grid(out / "walk.png", torch.stack(walk, 1).flatten(0, 1), n_cols=10, scale=2)
    save_gif(out / "walk.gif", [grid(G(a * t.cos() + b * t.sin()), scale=2)
                                for t in torch.linspace(0, torch.pi / 2, args.frames)])
    print(f"wrote samples.png, walk.png, walk.gif to {out}")
    if args.held_out:
        held_out(G, ckpt, args)


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
