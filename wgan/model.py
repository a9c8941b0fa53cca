"""Networks of WGAN: Arjovsky, Chintala, Bottou, ICML 2017, arXiv 1701.07875.

The critic returns a score, (n,): no sigmoid, its values mean nothing alone, only their differences.
The layers are those of the authors' code, a DCGAN with 4x4 kernels and no biases: 3,576,704 and
2,765,568 parameters at 64x64. Generator(arch=...) are the three of Figs. 5-7: "dcgan"; "nobn", a
DCGAN without batch norm and with the same number of filters everywhere; "mlp", fully connected.
"""
from itertools import pairwise

import torch
from torch import nn


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02) convolutions; batch-norm gains N(1, 0.02), biases 0. [authors' code]"""
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


def up(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w)"""
    return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2)"""
    return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False)


def n_doublings(size: int) -> int:
    """How often 4x4 doubles to size / 2; ValueError unless size is 16, 32, 64, ..."""
    k = size.bit_length() - 4
    if size < 16 or size != 8 << k:
        raise ValueError(f"size {size}: WGAN doubles 4x4, so it takes 16, 32, 64, 128, ...")
    return k


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size); in [-1, 1], but for arch "mlp"."""

    def __init__(self, size: int = 64, channels: int = 3, z_dim: int = 100, width: int = 64,
                 arch: str = "dcgan"):
        super().__init__()
        if arch == "mlp":  # 4 layers of 512 [Fig. 7]; torch's own initialisation [authors' code]
            self.net = nn.Sequential(
                nn.Linear(z_dim, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                nn.Linear(512, channels * size * size), nn.Unflatten(1, (channels, size, size)))
            return
        c = [width << i if arch == "dcgan" else width               # 64x64: 512, 256, 128, 64;
             for i in reversed(range(n_doublings(size) + 1))]       # "nobn": 64, 64, 64, 64

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if arch == "dcgan" else nn.Identity()

        layers: list[nn.Module] = [                                 # shapes for size 64, width 64:
            nn.Unflatten(1, (z_dim, 1, 1)),
            nn.ConvTranspose2d(z_dim, c[0], 4, bias=False),         # (n, 512,  4,  4)
            norm(c[0]), nn.ReLU()]
        for c_in, c_out in pairwise(c):                             # (n, 256,  8,  8)
            layers += [up(c_in, c_out), norm(c_out), nn.ReLU()]     # (n, 128, 16, 16)
        layers += [up(c[-1], channels), nn.Tanh()]                  # (n,  64, 32, 32)
        self.net = nn.Sequential(*layers)                           # (n,   3, 64, 64)
        self.apply(init_weights)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)


class Critic(nn.Module):
    """Image (n, channels, size, size) -> scores (n,)."""

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64):
        super().__init__()
        c = [width << i for i in range(n_doublings(size) + 1)]      # 64x64: 64, 128, 256, 512
        layers: list[nn.Module] = [                                 # shapes for size 64, width 64:
            down(channels, c[0]), nn.LeakyReLU(0.2)]                # (n,  64, 32, 32)
        for c_in, c_out in pairwise(c):                             # (n, 128, 16, 16)
            layers += [down(c_in, c_out),                           # (n, 256,  8,  8)
                       nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]    # (n, 512,  4,  4)
        layers += [nn.Conv2d(c[-1], 1, 4, bias=False)]              # (n,   1,  1,  1)
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).flatten()
