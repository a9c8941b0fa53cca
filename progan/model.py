"""Networks of ProGAN: Karras, Aila, Laine, Lehtinen, ICLR 2018, arXiv 1710.10196.

G and D mirror each other and work at any resolution from 4x4 on, or between two (alpha): so they
grow in training. Three layers are this paper's: pixel norm in G, the deviation of the minibatch as
a feature of D, and the equalised learning rate in both.

Without arguments they are the paper's, for 1024x1024 [Table 2]: 23,079,115 and 23,087,249
parameters, all layers from and to RGB counted. D returns scores, (n,): only their differences mean
something. `config` is a row of the ablation [Table 1], with all that the rows before it add:
    d  G and D without any of the three      f  equalised learning rate
    e  minibatch stddev in D                 g  pixel norm in G: the paper's networks

Departure: without pixel norm z is not normalised either. Rows a to c are left out.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


def n_maps(size: int, fmap_base: int, fmap_max: int) -> int:
    """Channels at a resolution: 16 at 1024, doubled at each halving, at most 512. [Table 2; the
    formula: authors' code]"""
    return max(1, min(2 * fmap_base // size, fmap_max))


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """x / (mean over dimension 1 of x^2)^(1/2). [Sec. 4.2]"""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Linear(nn.Module):
    """A layer with equalised learning rate: weights are stored as N(0, 1), and used times gain /
    fan_in^(1/2), He's constant, so that one rate suits all layers. [Sec. 4.1] Not equalised, they
    begin as the same numbers, with the constant in them."""

    def __init__(self, c_in: int, c_out: int, gain: float = 2 ** 0.5, bias: bool = True,
                 equalised: bool = True):
        super().__init__()
        he = gain / c_in ** 0.5
        self.scale, deviation = (he, 1) if equalised else (1, he)
        self.weight = nn.Parameter(torch.randn(c_out, c_in) * deviation)
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class Conv(nn.Module):
    """The same for a convolution that keeps height and width."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, gain: float = 2 ** 0.5,
                 equalised: bool = True):
        super().__init__()
        he = gain / (c_in * kernel ** 2) ** 0.5
        self.scale, deviation = (he, 1) if equalised else (1, he)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel) * deviation)
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding="same")


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size); its range is that of the data, [-1, 1], but
    nothing holds it there. [Table 2]"""

    def __init__(self, size: int = 1024, channels: int = 3, z_dim: int = 512,
                 fmap_base: int = 8192, fmap_max: int = 512, config: str = "g"):
        super().__init__()
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max) for s in sizes]         # 1024: 512 512 512 512 256 ...
        equalised = config >= "f"
        self.size = size
        self.norm = pixel_norm if config >= "g" else nn.Identity()
        self.dense = Linear(z_dim, 16 * c[0], 2 ** 0.5 / 4, False, equalised)  # [authors' code]
        self.bias = nn.Parameter(torch.zeros(c[0], 1, 1))           # one a feature map
        self.convs = nn.ModuleList(                                 # one at 4x4, then two a size
            Conv(c[i // 2], c[(i + 1) // 2], equalised=equalised) for i in range(2 * len(c) - 1))
        self.to_rgb = nn.ModuleList(
            Conv(c_in, channels, 1, gain=1, equalised=equalised) for c_in in c)

    def forward(self, z: torch.Tensor, size: int | None = None, alpha: float = 1.0
                ) -> torch.Tensor:
        """With alpha < 1 the layers of this size fade in: the picture is (1 - alpha) up(that of
        half the size) + alpha theirs. [Fig. 2]"""
        k = int(math.log2(size or self.size)) - 2                   # shapes for 1024:
        x = self.dense(self.norm(z)).view(len(z), -1, 4, 4)         # (n, 512,    4,    4)
        x = half = self.norm(F.leaky_relu(x + self.bias, 0.2))
        for i, conv in enumerate(self.convs[:2 * k + 1]):           # (n, 512,    4,    4)
            if i % 2:                                               # (n, 512,    8,    8), twice
                half, x = x, up(x)                                  # ...
            x = self.norm(F.leaky_relu(conv(x), 0.2))               # (n,  16, 1024, 1024), twice
        rgb = self.to_rgb[k](x)                                     # (n,   3, 1024, 1024)
        if alpha < 1:
            rgb = torch.lerp(up(self.to_rgb[k - 1](half)), rgb, alpha)
        return rgb


def minibatch_stddev(x: torch.Tensor, group: int = 16) -> torch.Tensor:
    """x (n, c, h, w) -> (n, c + 1, h, w): the last map says how much the samples differ. It is
    their deviation in each feature and place, averaged over these. [Sec. 3: of the whole batch]

    Of a batch larger than `group` samples i, i + m, i + 2m, ... of n = m group are compared
    [authors' second code]. So rows i, i + k, i + 2k, ... of a batch, k processes' or micro-batches'
    shares of it, are in the same groups as in the whole.
    """
    n, c, h, w = x.shape
    group = min(group, n)
    y = x.view(group, n // group, c, h, w)
    deviation = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (m,)
    return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(n, 1, h, w)], 1)


class Discriminator(nn.Module):
    """Image (n, channels, h, h), h = 4, 8, ... size -> scores (n,). [Table 2]"""

    def __init__(self, size: int = 1024, channels: int = 3, fmap_base: int = 8192,
                 fmap_max: int = 512, config: str = "g", group: int = 16):
        super().__init__()
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max) for s in sizes]
        equalised, self.group = config >= "f", group if config >= "e" else 0
        self.from_rgb = nn.ModuleList(Conv(channels, c_out, 1, equalised=equalised) for c_out in c)
        self.convs = nn.ModuleList(Conv(c_in, c_in, equalised=equalised) for c_in in c[1:])
        self.downs = nn.ModuleList(                                 # before pooling
            Conv(c[i + 1], c[i], equalised=equalised) for i in range(len(c) - 1))
        self.conv = Conv(c[0] + (self.group > 0), c[0], equalised=equalised)
        self.dense = Linear(16 * c[0], c[0], equalised=equalised)
        self.score = Linear(c[0], 1, gain=1, equalised=equalised)

    def forward(self, x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
        """With alpha < 1 the layers of x's size fade in, as in G. [Fig. 2]"""
        k = int(math.log2(x.shape[-1])) - 2                         # shapes for 1024:
        h = F.leaky_relu(self.from_rgb[k](x), 0.2)                  # (n,  16, 1024, 1024)
        for i in reversed(range(k)):                                # (n,  32,  512,  512)
            h = F.leaky_relu(self.convs[i](h), 0.2)                 # ...
            h = F.avg_pool2d(F.leaky_relu(self.downs[i](h), 0.2), 2)
            if i == k - 1 and alpha < 1:
                old = F.leaky_relu(self.from_rgb[i](F.avg_pool2d(x, 2)), 0.2)
                h = torch.lerp(old, h, alpha)                       # (n, 512,    4,    4)
        if self.group:
            h = minibatch_stddev(h, self.group)                     # (n, 513,    4,    4)
        h = F.leaky_relu(self.conv(h), 0.2)                         # (n, 512,    4,    4)
        h = F.leaky_relu(self.dense(h.flatten(1)), 0.2)             # (n, 512)
        return self.score(h).squeeze(1)
