"""Figures and Table 1 of the GAN paper, from a checkpoint of gan/train.py.

    python gan/sample.py                          from runs/gan/ckpt.pt into runs/gan/figures/
    python gan/sample.py --ckpt path/to/ckpt.pt --out figures
    python gan/sample.py --parzen                 and the log-likelihood of Table 1
    python gan/sample.py --n 10000 --each pngs    10,000 single files, for the usual FID tools
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
        if ckpt["paper"] != "gan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["width"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run gan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of gan ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), uniform in (-sqrt 3, sqrt 3), as in train.py."""
    return (torch.rand(n, z_dim) * 2 - 1) * 3 ** 0.5


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed)."""
    torch.manual_seed(seed)
    return torch.cat([G(z) for z in sample_z(n, ckpt["args"]["z_dim"]).split(250)])


def nearest(x: torch.Tensor, data) -> torch.Tensor:
    """For each x (n, c, h, w), the training image at the smallest Euclidean distance."""
    best, index = torch.full((len(x),), math.inf), torch.zeros(len(x), dtype=torch.long)
    for i in range(0, len(data), 1000):
        d, j = torch.cdist(x.flatten(1), data[i:i + 1000].flatten(1)).min(1)
        index = torch.where(d < best, i + j, index)
        best = torch.minimum(d, best)
    return data[index]


def log_likelihood(x: torch.Tensor, mu: torch.Tensor, sigma: float) -> torch.Tensor:
    """log p(x) = logmeanexp_i(-|x - mu_i|^2 / (2 s^2)) - d log(s sqrt(2 pi)), in nats. [Sec. 5]

    x (n, d) and mu (m, d), pixels in [0, 1] -> (n,): Parzen's window, a Gaussian on each sample.
    """
    d2 = torch.cat([torch.cdist(part, mu) ** 2 for part in x.split(500)])
    log_mean = torch.logsumexp(-d2 / (2 * sigma ** 2), 1) - math.log(len(mu))
    return log_mean - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))


def parzen(G: Generator, ckpt: dict, valid, test, n: int = 10_000) -> tuple[float, float, float]:
    """Mean log-likelihood of the test images, its standard error, and sigma. [Table 1]

    sigma is the best of ten, log-spaced in [0.1, 1], for 1,000 validation images. [authors' code]
    """
    mu, x_valid, x_test = ((x.flatten(1) + 1) / 2 for x in (
        generate(G, ckpt, n), valid[:1000], test[:10_000]))
    sigma = max((10 ** (i / 9 - 1) for i in range(10)),
                key=lambda s: log_likelihood(x_valid, mu, s).mean().item())
    ll = log_likelihood(x_test, mu, sigma)
    return ll.mean().item(), (ll.std() / math.sqrt(len(ll))).item(), sigma


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/gan/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--n", type=int, default=64, help="how many samples")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--parzen", action="store_true", help="the log-likelihood of Table 1")
    p.add_argument("--data-root", help="where the run's data set lies now")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    G, ckpt = load_generator(args.ckpt)
    run = ckpt["args"]
    if args.parzen and run["data"] not in NAMES:
        fail(f"--parzen needs images that G has not seen, and {run['data']} has no test images")
    if args.each:
        args.each.mkdir(parents=True, exist_ok=True)
        for i, x in enumerate(generate(G, ckpt, args.n, args.seed)):
            write_image(args.each / f"{i:06d}.png", x)
        return
    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    torch.manual_seed(args.seed)
    ends = sample_z(16, run["z_dim"]).unflatten(0, (8, 2))
    rows = [torch.lerp(a, b, t) for a, b in ends for t in torch.linspace(0, 1, 10)]
    save_grid(out / "fig3.png", G(torch.stack(rows)), n_cols=10, scale=2)

    load = dict(root=args.data_root or run["data_root"], skip_bad=run["skip_bad"])
    data = load_images(run["data"], run["size"], **load)
    n_valid = len(data) // 6 if run["data"] in NAMES else 0  # as in train.py
    train, valid = data.subset(0, len(data) - n_valid), data.subset(len(data) - n_valid, len(data))
    x = generate(G, ckpt, 40, args.seed).unflatten(0, (8, 5))
    fig2 = torch.cat([x, nearest(x[:, 4], train)[:, None]], 1)  # the training image nearest the 5th
    save_grid(out / "fig2.png", fig2.flatten(0, 1), n_cols=6, scale=2)
    print(f"wrote samples.png, fig2.png, fig3.png to {out}")
    if args.parzen:
        test = load_images(run["data"], run["size"], split="test", **load)
        mean, error, sigma = parzen(G, ckpt, valid, test)
        print(f"Parzen log-likelihood: {mean:.1f} +- {error:.1f} nats (sigma {sigma:.3f}, 10,000 "
              f"samples, {min(len(test), 10_000):,} test images, step {ckpt['step']})")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
