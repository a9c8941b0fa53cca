"""Fig. 2 and Table 1 of the CGAN paper, from a checkpoint of cgan/train.py.

    python cgan/sample.py                          from runs/cgan/ckpt.pt into runs/cgan/figures/
    python cgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python cgan/sample.py --class 7                and samples of one class, by its name
    python cgan/sample.py --parzen                 and the log-likelihood of Table 1
    python cgan/sample.py --n 10000 --each pngs    10,000 single files, for the usual FID tools
"""
import argparse
import math
import sys
from pathlib import Path

import torch
from model import Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import NAMES, fail, load_images  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "cgan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], len(ckpt["classes"]), args["z_dim"],
                      args["width"], args["dropout"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run cgan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of cgan ({type(e).__name__})")
    return G.train().requires_grad_(False), ckpt  # train: with dropout, as in train.py's sample


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), uniform in [0, 1), as in train.py."""
    return torch.rand(n, z_dim)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0,
             y: torch.Tensor | None = None) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed, y): G's dropout is on.

    y int64 (n,): their classes, by their place in ckpt["classes"]; without y, each class in turn.
    """
    if y is None:
        y = torch.arange(n) % len(ckpt["classes"])
    torch.manual_seed(seed)
    z = sample_z(n, ckpt["args"]["z_dim"])
    return torch.cat([G(*part) for part in zip(z.split(250), y.split(250), strict=True)])


def log_likelihood(x: torch.Tensor, mu: torch.Tensor, sigma: float) -> torch.Tensor:
    """log p(x) = logmeanexp_i(-|x - mu_i|^2 / (2 s^2)) - d log(s sqrt(2 pi)), in nats.

    x (n, d) and mu (m, d), pixels in [0, 1] -> (n,): Parzen's window, a Gaussian on each sample.
    """
    d2 = torch.cat([torch.cdist(part, mu) ** 2 for part in x.split(500)])
    log_mean = torch.logsumexp(-d2 / (2 * sigma ** 2), 1) - math.log(len(mu))
    return log_mean - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))


def parzen(G: Generator, ckpt: dict, valid, test, n: int = 1000) -> tuple[float, float, float]:
    """Mean log-likelihood of the test images, its standard error, and sigma. [Table 1]

    From n samples of each class. sigma is the best of ten, log-spaced in [0.1, 1], for 1,000
    validation images [GAN code].
    """
    mu, x_valid, x_test = ((x.flatten(1) + 1) / 2 for x in (
        generate(G, ckpt, n * len(ckpt["classes"])), valid[:1000], test[:10_000]))
    sigma = max((10 ** (i / 9 - 1) for i in range(10)),
                key=lambda s: log_likelihood(x_valid, mu, s).mean().item())
    ll = log_likelihood(x_test, mu, sigma)
    return ll.mean().item(), (ll.std() / math.sqrt(len(ll))).item(), sigma


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/cgan/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--class", dest="name", metavar="NAME", help="draw --n samples of this class, "
                   "into class.png; with --each, of no other")
    p.add_argument("--n", type=int, default=64, help="how many samples")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--parzen", action="store_true", help="the log-likelihood of Table 1")
    p.add_argument("--data-root", help="where the run's data set lies now")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    G, ckpt = load_generator(args.ckpt)
    run, classes, y = ckpt["args"], ckpt["classes"], None
    if args.name is not None:
        if args.name not in classes:
            fail(f"--class {args.name}: the classes of this run are {', '.join(classes)}")
        y = torch.full((args.n,), classes.index(args.name))
    if args.parzen and run["data"] not in NAMES:
        fail(f"--parzen: {run['data']} has no images that the run has not seen; a named set has")
    if args.each:
        args.each.mkdir(parents=True, exist_ok=True)
        for i, x in enumerate(generate(G, ckpt, args.n, args.seed, y)):
            write_image(args.each / f"{i:06d}.png", x)
        return
    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # of the dropout, as in the run's own grids
    save_grid(out / "samples.png", G(ckpt["z_fixed"], ckpt["y_fixed"]), scale=2)
    rows = torch.arange(len(classes)).repeat_interleave(10)  # a row is a class
    fig2 = generate(G, ckpt, len(rows), args.seed, rows)
    save_grid(out / "fig2.png", fig2, n_cols=10, captions=classes, scale=2)
    if y is not None:
        save_grid(out / "class.png", generate(G, ckpt, args.n, args.seed, y), scale=2)
    print(f"wrote samples.png, fig2.png{'' if y is None else ', class.png'} to {out}")
    if args.parzen:
        load = dict(root=args.data_root or run["data_root"], skip_bad=run["skip_bad"])
        data = load_images(run["data"], run["size"], **load)
        valid = data.subset(len(data) - len(data) // 6, len(data))  # not trained on
        test = load_images(run["data"], run["size"], split="test", **load)
        mean, error, sigma = parzen(G, ckpt, valid, test)
        print(f"Parzen log-likelihood: {mean:.1f} +- {error:.1f} nats (sigma {sigma:.3f}, 1,000 "
              f"samples of each class, {min(len(test), 10_000):,} test images, step "
              f"{ckpt['step']})")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
