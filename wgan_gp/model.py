"""Networks of WGAN-GP: Gulrajani et al., NIPS 2017, arXiv 1704.00028.

The critic returns a score, (n,): no sigmoid, its values mean nothing alone, only their differences.
It is never normalised: the penalty is on the gradient of each sample by itself [Sec. 4].

arch "resnet": the residual networks for CIFAR-10 [App. F], 1,204,483 and 1,053,825 parameters.
arch "dcgan": the authors' small networks, at width 64 and size 28 those of gan_mnist.py, without
batch norm (1,554,177 and 1,030,145 parameters), at other sizes those of gan_cifar.py, with batch
norm in G (at width 128 and size 32: 5,179,907 and 4,114,689).
Departure: App. F doubles before a block's second convolution; here, as in the authors' code, before
its first. Departure: their MNIST is in [0, 1], G's output a sigmoid; here [-1, 1] and tanh.
Departure: where stride 2 meets an even side, their SAME padding is 1 before and 2 after; here 2 and
2, so that their trained weights would see the picture one pixel off.
"""
from itertools import pairwise

import torch
from torch import nn


def init_weights(m: nn.Module) -> None:
    """Uniform, of variance 4 / (fan_in + fan_out), of linear and 1x1 layers 2 / (fan_in + fan_out);
    biases 0. [authors' code]"""
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)
    elif isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        area, stride = m.kernel_size[0] ** 2, m.stride[0] ** 2
        fan_in, fan_out = m.in_channels * area, m.out_channels * area
        if isinstance(m, nn.ConvTranspose2d):
            fan_in /= stride
        else:
            fan_out /= stride
        variance = (2 if area == 1 else 4) / (fan_in + fan_out)
        nn.init.uniform_(m.weight, -(3 * variance) ** 0.5, (3 * variance) ** 0.5)
        nn.init.zeros_(m.bias)


def halvings(size: int) -> list[int]:
    """28 -> [28, 14, 7, 4], 32 -> [32, 16, 8, 4]; ValueError where stride 2 does not lead to 4."""
    sizes = [size]
    while sizes[-1] > 4:
        sizes.append((sizes[-1] + 1) // 2)
    if size < 8 or sizes[-1] != 4:
        raise ValueError(f"size {size}: stride 2 must lead to 4x4, from 16, 28, 32, 64, ...")
    return sizes


def up(c_in: int, c_out: int, size: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, size, size), size 2h or 2h - 1: 4x4 to 7x7 is the authors' 8x8
    without its last row and column."""
    return nn.ConvTranspose2d(c_in, c_out, 5, stride=2, padding=2, output_padding=1 - size % 2)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2), rounded up."""
    return nn.Conv2d(c_in, c_out, 5, stride=2, padding=2)


def conv3(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h, w)."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


class Residual(nn.Module):
    """x -> shortcut(x) + layers(x). [App. F]"""

    def __init__(self, shortcut: nn.Module, *layers: nn.Module):
        super().__init__()
        self.shortcut, self.net = shortcut, nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.net(x)


def up_block(c: int) -> nn.Module:
    """(n, c, h, w) -> (n, c, 2h, 2w)."""
    return Residual(
        nn.Sequential(nn.Conv2d(c, c, 1), nn.Upsample(scale_factor=2)),  # in either order the same
        nn.BatchNorm2d(c), nn.ReLU(), nn.Upsample(scale_factor=2), conv3(c, c),
        nn.BatchNorm2d(c), nn.ReLU(), conv3(c, c))


def first_block(c_in: int, c: int) -> nn.Module:
    """Image (n, c_in, h, w) -> (n, c, h/2, w/2): no ReLU before its first convolution."""
    return Residual(
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c_in, c, 1)),
        conv3(c_in, c), nn.ReLU(), conv3(c, c), nn.AvgPool2d(2))


def down_block(c: int) -> nn.Module:
    """(n, c, h, w) -> (n, c, h/2, w/2)."""
    return Residual(
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c, c, 1)),  # in either order the same
        nn.ReLU(), conv3(c, c), nn.ReLU(), conv3(c, c), nn.AvgPool2d(2))


def flat_block(c: int) -> nn.Module:
    """(n, c, h, w) -> (n, c, h, w)."""
    return Residual(nn.Identity(), nn.ReLU(), conv3(c, c), nn.ReLU(), conv3(c, c))


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 32, channels: int = 3, z_dim: int = 128, width: int = 128,
                 arch: str = "resnet"):
        super().__init__()
        sizes = halvings(size)[::-1]
        layers: list[nn.Module]
        if arch == "resnet":                                        # shapes for size 32, width 128:
            s = 7 if size == 28 else 4
            layers = [nn.Linear(z_dim, width * s * s),
                      nn.Unflatten(1, (width, s, s))]               # (n, 128,  4,  4)
            while s < size:                                         # (n, 128,  8,  8)
                layers += [up_block(width)]                         # (n, 128, 16, 16)
                s *= 2                                              # (n, 128, 32, 32)
            layers += [nn.BatchNorm2d(width), nn.ReLU(),
                       conv3(width, channels), nn.Tanh()]           # (n,   3, 32, 32)
        else:                                                       # shapes for size 28, width 64:
            norm1, norm2 = nn.BatchNorm1d, nn.BatchNorm2d           # [authors' gan_cifar.py]
            if size == 28:
                norm1 = norm2 = nn.Identity                         # [authors' gan_mnist.py]
            c = [width << i for i in reversed(range(len(sizes) - 1))]
            layers = [nn.Linear(z_dim, c[0] * 4 * 4), norm1(c[0] * 4 * 4), nn.ReLU(),
                      nn.Unflatten(1, (c[0], 4, 4))]                # (n, 256,  4,  4)
            for (c_in, c_out), s in zip(pairwise(c), sizes[1:-1], strict=True):
                layers += [up(c_in, c_out, s),                      # (n, 128,  7,  7)
                           norm2(c_out), nn.ReLU()]                 # (n,  64, 14, 14)
            layers += [up(c[-1], channels, size), nn.Tanh()]        # (n,   1, 28, 28)
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)
        if arch == "resnet":
            nn.init.xavier_uniform_(self.net[-2].weight)            # [authors' code]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)


class Critic(nn.Module):
    """Image (n, channels, size, size) -> scores (n,). Nothing in it mixes samples."""

    def __init__(self, size: int = 32, channels: int = 3, width: int = 128, arch: str = "resnet"):
        super().__init__()
        k = len(halvings(size)) - 1
        layers: list[nn.Module]
        if arch == "resnet":                                        # shapes for size 32, width 128:
            layers = [first_block(channels, width),                 # (n, 128, 16, 16)
                      down_block(width),                            # (n, 128,  8,  8)
                      flat_block(width), flat_block(width),         # (n, 128,  8,  8)
                      nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),  # (n, 128)
                      nn.Linear(width, 1)]                          # (n, 1)
        else:                                                       # shapes for size 28, width 64:
            c = [channels, *(width << i for i in range(k))]
            layers = []
            for c_in, c_out in pairwise(c):                         # (n,  64, 14, 14)
                layers += [down(c_in, c_out), nn.LeakyReLU(0.2)]    # (n, 128,  7,  7)
            layers += [nn.Flatten(),                                # (n, 256 * 4 * 4)
                       nn.Linear(c[-1] * 4 * 4, 1)]                 # (n, 1)
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)
