"""Networks of EBGAN: Zhao, Mathieu, LeCun, ICLR 2017, arXiv 1609.03126. Sec. 2.3, App. C, D.

D is an auto-encoder: it returns (Dec(Enc(x)), like x, and the code Enc(x), flat, which the
pulling-away term looks at). The energy, how far the one is from x, is in train.py.
arch "mlp" is that of the MNIST grid; the defaults are the best of it, G with 5 layers of 800 and D
with 2 of 1024 (at 28 px 2,637,584 and 1,607,440 parameters). "conv" is DCGAN's G and, written
(maps)4c2s, D's encoder (64)(128)(256) and decoder (128)(64)(3) for 64 px (3,576,704 and
1,318,659); other sizes have as many levels as leave a code of about 8x8, at most four.
Batch norm is in every layer but G's last and D's first and last; all of App. C from memory.
Not given in the paper [ours]: the code is a ReLU's, D's output linear, G's convolutions without
biases.
"""
from itertools import pairwise

import torch
from torch import nn


def init_weights(net: nn.Module, std: float) -> None:
    """N(0, std) weights, biases 0; 0.02 in G, 0.002 in D [App. C, from memory]."""
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def up(c_in: int, c_out: int, bias: bool = True) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w)."""
    return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2)."""
    return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)


def n_halvings(size: int, least: int) -> int:
    """How often size can be halved, to a whole number each time and to no less than least."""
    return 1 + n_halvings(size // 2, least) if size % 2 == 0 and size // 2 >= least else 0


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size) in [-1, 1]. width: units of a layer; of
    "conv" the maps before its last layer."""

    def __init__(self, arch: str = "mlp", size: int = 28, channels: int = 1, z_dim: int = 100,
                 n_layers: int = 5, width: int = 800):
        super().__init__()
        layers: list[nn.Module] = []
        if arch == "mlp":
            for c_in, c_out in pairwise([z_dim] + [width] * (n_layers - 1)):
                layers += [nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), nn.ReLU()]  # (n, 800)
            layers += [nn.Linear(width, channels * size * size),
                       nn.Unflatten(1, (channels, size, size))]     # (n,   1, 28, 28)
        else:
            k = n_halvings(size, 4)
            c = [width << i for i in reversed(range(k))]            # 64 px: 512, 256, 128, 64
            layers += [nn.Unflatten(1, (z_dim, 1, 1)),
                       nn.ConvTranspose2d(z_dim, c[0], size >> k, bias=False),
                       nn.BatchNorm2d(c[0]), nn.ReLU()]             # (n, 512,  4,  4)
            for c_in, c_out in pairwise(c):                         # (n, 256,  8,  8)
                layers += [up(c_in, c_out, bias=False),             # (n, 128, 16, 16)
                           nn.BatchNorm2d(c_out), nn.ReLU()]        # (n,  64, 32, 32)
            layers += [up(c[-1], channels, bias=False)]             # (n,   3, 64, 64)
        self.net = nn.Sequential(*layers, nn.Tanh())
        init_weights(self, 0.02)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)


class Discriminator(nn.Module):
    """Image x (n, channels, size, size) -> Dec(Enc(x)), like x, and the code Enc(x) (n, d)."""

    def __init__(self, arch: str = "mlp", size: int = 28, channels: int = 1,
                 n_layers: int = 2, width: int = 1024):
        super().__init__()
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        if arch == "mlp":
            encoder += [nn.Flatten(), nn.Linear(channels * size * size, width), nn.ReLU()]
            for _ in range(n_layers - 2):
                encoder += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
            decoder += [nn.Linear(width, channels * size * size),   # one layer [App. C]
                        nn.Unflatten(1, (channels, size, size))]
        else:
            c = [width << i for i in range(min(n_halvings(size, 7), 4))]
            encoder += [down(channels, c[0]), nn.ReLU()]            # (n,  64, 32, 32)
            for c_in, c_out in pairwise(c):                         # (n, 128, 16, 16)
                encoder += [down(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]  # (n, 256, 8, 8)
            for c_in, c_out in pairwise(c[::-1]):                   # (n, 128, 16, 16)
                decoder += [up(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]  # (n, 64, 32, 32)
            decoder += [up(c[0], channels)]                         # (n,   3, 64, 64)
        self.Enc, self.Dec = nn.Sequential(*encoder), nn.Sequential(*decoder)
        init_weights(self, 0.002)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = self.Enc(x)
        return self.Dec(s), s.flatten(1)
