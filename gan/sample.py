"""Figures and Table 1 of the GAN paper, from a checkpoint of gan/train.py.

    python gan/sample.py                          from runs/gan/ckpt.pt into runs/gan/figures/
    python gan/sample.py --ckpt path/to/ckpt.pt --out figures
    python gan/sample.py --parzen                 and the log-likelihood of Table 1
    python gan/sample.py --n 10000 --each pngs --real reals     single files, for the FID tools
"""
import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from model import Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import NAMES, Data, load_images
from common.images import grid, save_gif, save_grid

NAME = "gan"


def settings(add) -> None:
    add("--parzen", action="store_true", help="the log-likelihood of Table 1, too")


def build(ckpt: dict) -> Generator:
    """G as it was saved."""
    run = ckpt["args"]
    G = Generator(run["size"], ckpt["channels"], run["z_dim"], run["width"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), uniform in (-sqrt 3, sqrt 3), as in train.py."""
    return (torch.rand(n, z_dim, device=device) * 2 - 1) * 3 ** 0.5


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


def nearest(x: torch.Tensor, data: Data) -> torch.Tensor:
    """For each x (n, c, h, w), the training image at the smallest Euclidean distance."""
    best, found = torch.full((len(x),), math.inf, device=x.device), x.clone()
    for i in range(0, len(data), 1000):
        part = data[i:i + 1000].to(x.device)
        d, j = torch.cdist(x.flatten(1), part.flatten(1)).min(1)
        found[d < best] = part[j[d < best]]
        best = torch.minimum(d, best)
    return found


def log_likelihood(x: torch.Tensor, mu: torch.Tensor, sigma: float) -> torch.Tensor:
    """log p(x) = logmeanexp_i(-|x - mu_i|^2 / (2 s^2)) - d log(s sqrt(2 pi)), in nats. [Sec. 5]

    x (n, d) and mu (m, d), pixels in [0, 1] -> (n,): Parzen's window, a Gaussian on each sample.
    """
    d2 = torch.cat([torch.cdist(part, mu) ** 2 for part in x.split(500)])
    log_mean = torch.logsumexp(-d2 / (2 * sigma ** 2), 1) - math.log(len(mu))
    return log_mean - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))


def parzen(mu: torch.Tensor, valid: torch.Tensor, test: torch.Tensor) -> tuple[float, float, float]:
    """Mean log-likelihood of the test images, its standard error, and sigma. [Table 1]

    sigma is the best of ten, log-spaced in [0.1, 1], for the validation images. [authors' code]
    """
    mu, valid, test = ((x.flatten(1) + 1) / 2 for x in (mu, valid, test))
    sigma = max((10 ** (i / 9 - 1) for i in range(10)),
                key=lambda s: log_likelihood(valid, mu, s).mean().item())
    ll = log_likelihood(test, mu, sigma)
    return ll.mean().item(), (ll.std() / math.sqrt(len(ll))).item(), sigma


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    run, device = ckpt["args"], ckpt["z_fixed"].device
    if args.parzen and run["data"] not in NAMES:
        fail(f"--parzen needs images that G has not seen, and {run['data']} has no test images")
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    # Fig. 3: each row from one random point to another; the film shows all eight at once
    torch.manual_seed(args.seed)
    a, b = sample_z(16, run["z_dim"], device).unflatten(0, (8, 2)).unbind(1)
    rows = torch.stack([torch.lerp(a, b, t) for t in torch.linspace(0, 1, 10).tolist()], 1)
    save_grid(out / "fig3.png", G(rows.flatten(0, 1)), n_cols=10, scale=2)
    save_gif(out / "walk.gif", [grid(G(torch.lerp(a, b, t)), scale=2)
                                for t in torch.linspace(0, 1, args.frames).tolist()])

    # Fig. 2: five samples a row, and the training image that is nearest to the fifth
    load = {"root": run["data_root"], "skip_bad": run["skip_bad"]}
    data = load_images(run["data"], run["size"], **load).of(ckpt["channels"])
    n_train = len(data) - (len(data) // 6 if run["data"] in NAMES else 0)  # as in train.py
    x = torch.cat(list(generate(G, ckpt, 40, args.seed))).unflatten(0, (8, 5))
    fig2 = torch.cat([x, nearest(x[:, 4], data.subset(0, n_train))[:, None]], 1)
    save_grid(out / "fig2.png", fig2.flatten(0, 1), n_cols=6, scale=2)
    print(f"wrote samples.png, fig2.png, fig3.png, walk.gif to {out}")

    # Table 1: 10,000 samples, 1,000 validation images, all test images [authors' code]
    if args.parzen:
        test = load_images(run["data"], run["size"], split="test", **load)[:10_000]
        valid = data[n_train:n_train + 1000]
        mu = torch.cat(list(generate(G, ckpt, 10_000)))
        mean, error, sigma = parzen(mu, valid.to(device), test.to(device))
        print(f"Parzen log-likelihood: {mean:.1f} +- {error:.1f} nats (sigma {sigma:.3f}, 10,000 "
              f"samples, {len(test):,} test images, step {ckpt['step']})")


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
