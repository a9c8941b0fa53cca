"""The stability experiment of LSGAN, Sec. 4.3: a ring of eight Gaussians, learned by a small GAN
with the least squares loss and by the same GAN with the sigmoid cross-entropy.

    python lsgan/mixture.py                   35,000 steps of each, into runs/lsgan/mixture.png
    python lsgan/mixture.py --seed 1          other weights, other noise

Networks, rates and steps are those of the authors' code. What each panel shows is also printed:
how many of the eight modes have at least a fifth of an equal share of the samples, and the share of
samples that lie within 0.1, ten standard deviations, of a mode [both ours].
"""
import argparse
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import fail  # noqa: E402
from common.images import save_grid  # noqa: E402

Z_DIM, BATCH, LR_G, LR_D = 256, 512, 1e-3, 1e-4  # [authors' code]
SHOWN = (0, 5, 15, 25, 35)  # thousands of steps, or as many 35ths of --steps: the columns
RADIUS, STD = 1.0, 0.01     # [authors' code]
ANGLES = torch.arange(8) * (2 * math.pi / 8)  # Departure: their code has 0 and 2 pi, one twice
MODES = RADIUS * torch.stack([ANGLES.sin(), ANGLES.cos()], 1)  # (8, 2)


def sample_mixture(n: int) -> torch.Tensor:
    """(n, 2), all modes equally likely."""
    return MODES[torch.randint(8, (n,))] + STD * torch.randn(n, 2)


def mlp(d_in: int, d_out: int) -> nn.Sequential:
    """Two hidden layers of 128 tanh units, orthogonal weights of gain 1.4. [authors' code]"""
    net = nn.Sequential(nn.Linear(d_in, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(),
                        nn.Linear(128, d_out))
    for layer in net[::2]:
        nn.init.orthogonal_(layer.weight, 1.4)
        nn.init.zeros_(layer.bias)
    return net


def least_squares(score: torch.Tensor, target: float) -> torch.Tensor:
    """1/2 E[(D - target)^2]: Eq. 9, where D's targets are 1 and 0 and G's is 1."""
    return ((score - target) ** 2).mean() / 2


def cross_entropy(score: torch.Tensor, target: float) -> torch.Tensor:
    """-E[log sigmoid(D)] for target 1, -E[log(1 - sigmoid(D))] for target 0. GAN paper, Eq. 1"""
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


def train(loss: Callable, steps: list[int], seed: int) -> Iterator[torch.Tensor]:
    """Samples (5120, 2) of G at these steps. `loss` is all that differs between two calls."""
    torch.manual_seed(seed)
    G, D = mlp(Z_DIM, 2), mlp(2, 1)
    opt_g = torch.optim.Adam(G.parameters(), lr=LR_G, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=LR_D, betas=(0.5, 0.999))
    z_shown = torch.randn(10 * BATCH, Z_DIM)
    for step in range(steps[-1] + 1):
        if step in steps:
            yield G(z_shown).detach()
        x, x_fake = sample_mixture(BATCH), G(torch.randn(BATCH, Z_DIM))

        # Update D
        loss_d = loss(D(x), 1.0) + loss(D(x_fake.detach()), 0.0)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        # Update G
        loss_g = loss(D(x_fake), 1.0)
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()


def modes(x: torch.Tensor) -> tuple[int, float]:
    """Of samples (n, 2): how many modes they cover, and which share of them lies near one."""
    distance, nearest = torch.cdist(x, MODES).min(1)
    near = distance < 10 * STD
    covered = nearest[near].bincount(minlength=8) >= 0.2 * len(x) / 8
    return int(covered.sum()), near.double().mean().item()


def density(x: torch.Tensor, side: int = 120, reach: float = 2.0, h: float = 0.06) -> torch.Tensor:
    """Samples (n, 2) -> their kernel density on [-reach, reach]^2, an image (1, side, side)."""
    axis = torch.linspace(-reach, reach, side)
    k_x, k_y = (torch.exp(-(axis - v[:, None]) ** 2 / (2 * h * h)) for v in x.unbind(1))
    p = k_y.flip(1).T @ k_x  # sum over the samples; y grows upwards
    return 2 * (p / p.max())[None] ** 0.5 - 1  # the root, lest one narrow mode hide the others


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--steps", type=int, default=35_000, help="updates of G [authors' code]")
    p.add_argument("--seed", type=int, default=0, help="of weights, data and noise")
    p.add_argument("--out", type=Path, default="runs/lsgan/mixture.png", help="the figure")
    args = p.parse_args(argv)
    if args.steps < SHOWN[-1]:
        fail(f"--steps {args.steps}: {SHOWN[-1]} or more")
    steps, panels = [args.steps * part // SHOWN[-1] for part in SHOWN], []
    for name, loss in ("least squares", least_squares), ("cross-entropy", cross_entropy):
        for step, x in zip(steps, train(loss, steps, args.seed), strict=True):
            panels.append(density(x))
            covered, near = modes(x)
            print(f"{name}, step {step}: {covered} of 8 modes, {near:.1%} of the samples near one",
                  flush=True)
        panels.append(density(sample_mixture(10 * BATCH)))
    save_grid(args.out, torch.stack(panels), n_cols=len(steps) + 1,
              captions=["least squares", "cross-entropy"])
    print(f"wrote {args.out}: the samples at steps {', '.join(map(str, steps))}, and the data")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out")
