"""Networks of LSGAN: Mao, Li, Xie, Lau, Wang, Smolley, ICCV 2017, arXiv 1611.04076.

D returns scores, (n,), any real number: there is no sigmoid here, nor in the losses.

Generator and Discriminator are the pair for LSUN at 112x112, 15,591,427 and 4,333,441 parameters;
CharacterGenerator and CharacterDiscriminator the conditional pair for 3,740 Chinese characters at
28x28, 9,417,857 and 21,392,155. Layers, widths and biases are those of the authors' code.
Departure: that pads as TensorFlow does, one pixel further to the right; here both sides are alike.
"""
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02), in convolutions cut off at two deviations; biases 0. [authors' code]"""
    if isinstance(m, nn.Conv2d):
        nn.init.trunc_normal_(m.weight, 0.0, 0.02, a=-0.04, b=0.04)
        nn.init.zeros_(m.bias)
    elif isinstance(m, (nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0.0, 0.02)
        nn.init.zeros_(m.bias)


def up(c_in: int, c_out: int, kernel: int = 3, stride: int = 2) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, stride * h, stride * w)"""
    return nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding=kernel // 2,
                              output_padding=stride - 1)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2)"""
    return nn.Conv2d(c_in, c_out, 5, stride=2, padding=2)


def first_map(size: int) -> tuple[int, int]:
    """How often `size` is halved, and what is left, 4 to 7: 112 -> 4, 7. ValueError if it is odd.

    Departure for other sizes than 112: as many halvings, not always four, since from 2x2, where
    every pixel lies at the border, G learned a handful of forms [ours].
    """
    side, n = size, 0
    while side > 7 and side % 2 == 0:
        side, n = side // 2, n + 1
    if not 4 <= side <= 7 or n < 2:
        raise ValueError(f"size {size}: LSGAN takes 4, 5, 6 or 7 times a power of two, from 16 on")
    return n, side


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size) in [-1, 1]; Sec. 4.3 with bn = False."""

    def __init__(self, size: int = 112, channels: int = 3, z_dim: int = 1024, width: int = 64,
                 bn: bool = True):
        super().__init__()
        (n, s), w = first_map(size), width
        norm = nn.BatchNorm2d if bn else nn.Identity
        self.net = nn.Sequential(                                 # shapes for size 112, width 64:
            nn.Linear(z_dim, 4 * w * s * s),                      # (n, 12544)
            nn.Unflatten(1, (4 * w, s, s)),
            norm(4 * w), nn.ReLU())                               # (n, 256,   7,   7)
        for _ in range(n - 2):
            self.net.extend([
                up(4 * w, 4 * w), norm(4 * w), nn.ReLU(),             # (n, 256,  14,  14), 28
                up(4 * w, 4 * w, stride=1), norm(4 * w), nn.ReLU()])  # (n, 256,  14,  14), 28
        self.net.extend([
            up(4 * w, 2 * w), norm(2 * w), nn.ReLU(),             # (n, 128,  56,  56)
            up(2 * w, w), norm(w), nn.ReLU(),                     # (n,  64, 112, 112)
            up(w, channels, stride=1), nn.Tanh()])                # (n,   3, 112, 112)
        self.apply(init_weights)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> scores (n,)."""

    def __init__(self, size: int = 112, channels: int = 3, width: int = 64):
        super().__init__()
        n, s = first_map(size)
        widths = [width * min(2 ** i, 8) for i in range(n)]       # for the same: 64, 128, 256, 512
        self.net = nn.Sequential(
            down(channels, width), nn.LeakyReLU(0.2))             # (n,  64,  56,  56)
        for c_in, c_out in pairwise(widths):
            self.net.extend([                                     # (n, 128,  28,  28), ...
                down(c_in, c_out), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)])
        self.net.extend([                                         # (n, 512,   7,   7)
            nn.Flatten(), nn.Linear(widths[-1] * s * s, 1)])      # (n, 1), no sigmoid
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)


class CharacterGenerator(nn.Module):
    """z (n, z_dim), labels y (n,) -> images (n, 1, 28, 28) in [-1, 1]. Eq. 10"""

    def __init__(self, n_classes: int = 3740, z_dim: int = 1024):
        super().__init__()
        self.phi = nn.Linear(n_classes, 256)                            # Phi(y), learned
        self.net = nn.Sequential(
            nn.Linear(z_dim + 256, 128 * 7 * 7), nn.BatchNorm1d(128 * 7 * 7), nn.ReLU(),
            nn.Unflatten(1, (128, 7, 7)),                               # (n, 128,  7,  7)
            up(128, 128, kernel=5), nn.BatchNorm2d(128), nn.ReLU(),     # (n, 128, 14, 14)
            up(128, 1, kernel=5), nn.Sigmoid())                         # (n,   1, 28, 28)
        self.apply(init_weights)

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        phi = self.phi(F.one_hot(y, self.phi.in_features).to(z.dtype))
        return self.net(torch.cat([z, phi], 1)) * 2 - 1                 # the paper's are in [0, 1]


class CharacterDiscriminator(nn.Module):
    """Images (n, 1, 28, 28) in [-1, 1], labels y (n,) -> scores (n,). Eq. 10

    Phi(y) enters all layers but the first. [authors' code]
    """

    def __init__(self, n_classes: int = 3740):
        super().__init__()
        self.phi = nn.Linear(n_classes, 256)                            # its own, not G's
        self.conv1 = nn.Sequential(down(1, 257), nn.LeakyReLU(0.2))     # (n,  257, 14, 14)
        self.conv2 = nn.Sequential(down(257 + 256, 320), nn.BatchNorm2d(320),
                                   nn.LeakyReLU(0.2), nn.Flatten())     # (n, 320 * 7 * 7)
        self.linear = nn.Sequential(nn.Linear(320 * 7 * 7 + 256, 1024), nn.BatchNorm1d(1024),
                                    nn.LeakyReLU(0.2))                  # (n, 1024)
        self.score = nn.Linear(1024 + 256, 1)                           # (n, 1)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        phi = self.phi(F.one_hot(y, self.phi.in_features).to(x.dtype))
        h = self.conv1((x + 1) / 2)                                     # the paper's are in [0, 1]
        h = self.conv2(torch.cat([h, phi[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1))
        h = self.linear(torch.cat([h, phi], 1))
        return self.score(torch.cat([h, phi], 1)).squeeze(1)
