"""The stability experiment of LSGAN, Sec. 4.3: a ring of eight Gaussians, learned by a small GAN
with the least squares loss and by the same GAN with the sigmoid cross-entropy.

    python lsgan/mixture.py                   35,000 steps of each with three seeds, half an hour
    python lsgan/mixture.py --seed 1          with one: other weights, other noise

Networks, rates, steps, data and the way of updating are those of the authors' code. What each panel
shows is also printed: the share of the samples that lie within 0.3 of a mode (0.77 apart from the
next), and how many of the eight modes have at least a fifth of an equal share there [both ours].
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
from common.data import fail
from common.images import save_grid

Z_DIM, BATCH, LR_G, LR_D = 256, 512, 1e-3, 1e-4  # [authors' code]
SHOWN = (0, 5, 15, 25, 35)  # thousands of steps, or as many 35ths of --steps: the columns
RADIUS, STD = 1.0, 0.01     # [authors' code]
NEAR = 0.3                  # [ours]
ANGLES = torch.arange(8) * (2 * math.pi / 8)
MODES = RADIUS * torch.stack([ANGLES.sin(), ANGLES.cos()], 1)  # (8, 2)


def sample_mixture(n: int) -> torch.Tensor:
    """(n, 2). Their nine angles hold both 0 and 2 pi: one mode counts twice. [authors' code]"""
    return MODES[torch.randint(9, (n,)) % 8] + STD * torch.randn(n, 2)


def orthogonal(d_in: int, d_out: int) -> torch.Tensor:
    """Weights (d_out, d_in) as TensorFlow 0.12 to 1.3 made them, from a matrix of U[0, 1).

    As no entry is negative, the first singular vectors have one sign: all units of D's first layer
    weigh the first coordinate with that sign. nn.init.orthogonal_ starts from a normal matrix.
    """
    u, _, v = torch.linalg.svd(torch.rand(d_in, d_out), full_matrices=False)
    return (u if d_in > d_out else v).T


def mlp(d_in: int, d_out: int) -> nn.Sequential:
    """Two hidden layers of 128 tanh units, orthogonal weights of gain 1.4. [authors' code]"""
    net = nn.Sequential(nn.Linear(d_in, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(),
                        nn.Linear(128, d_out))
    for layer in net[::2]:
        layer.weight.data = 1.4 * orthogonal(layer.in_features, layer.out_features)
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
        real, fake = D(x), D(x_fake)

        # Update D and G at once: both gradients are taken at the same weights [authors' code]
        loss_d = loss(real, 1.0) + loss(fake, 0.0)
        loss_g = loss(fake, 1.0)
        opt_d.zero_grad()
        opt_g.zero_grad()
        loss_d.backward(inputs=list(D.parameters()), retain_graph=True)
        loss_g.backward(inputs=list(G.parameters()))
        opt_d.step()
        opt_g.step()


def modes(x: torch.Tensor) -> tuple[int, float]:
    """Of samples (n, 2): how many modes they cover, and which share of them lies near one."""
    distance, nearest = torch.cdist(x, MODES).min(1)
    near = distance < NEAR
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
    p.add_argument("--seed", type=int, nargs="+", default=(0, 1, 2), help="of weights, data and "
                   "noise: two rows each")
    p.add_argument("--out", type=Path, default="runs/lsgan/mixture.png", help="the figure")
    args = p.parse_args(argv)
    if args.steps < SHOWN[-1]:
        fail(f"--steps {args.steps}: {SHOWN[-1]} or more")
    steps, panels, captions = [args.steps * part // SHOWN[-1] for part in SHOWN], [], []
    for seed in args.seed:
        torch.manual_seed(seed)
        target = density(sample_mixture(10 * BATCH))
        for name, loss in ("least squares", least_squares), ("cross-entropy", cross_entropy):
            for step, x in zip(steps, train(loss, steps, seed), strict=True):
                panels.append(density(x))
                covered, near = modes(x)
                print(f"{name}, seed {seed}, step {step}: {covered} of 8 modes, {near:.1%} of the "
                      "samples near one", flush=True)
            panels.append(target)
            captions.append(f"{name}, seed {seed}")
            save_grid(args.out, torch.stack(panels), n_cols=len(steps) + 1, captions=captions)
    print(f"wrote {args.out}: the samples at steps {', '.join(map(str, steps))}, and the data")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out")
