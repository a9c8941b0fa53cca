"""Networks of DCGAN: Radford, Metz, Chintala, ICLR 2016, arXiv 1511.06434.

Sec. 3 gives five rules, marked [rule 1..5] where they are followed:
1. strided convolutions (D) and fractionally strided ones (G) instead of pooling;
2. batch normalisation in both networks, but not at G's output and D's input;
3. no fully connected hidden layers;
4. ReLU in G, tanh at its output;
5. LeakyReLU in D, slope 0.2.

D returns logits, (n,): the sigmoid is in the loss. Kernels are 5x5 [Fig. 1], without biases
[authors' code]. width = 128 at 64x64 is the paper's network (18.86 M and 17.23 M parameters);
width = 64 at 32x32 is the network that the authors trained on SVHN.
Departure: the authors' code normalises G's projection over its 16,384 units one by one; here over
its 1024 channels, as in every other layer.
"""
from itertools import pairwise

import torch
from torch import nn


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02) weights [Sec. 4]; batch-norm gains N(1, 0.02), biases 0 [authors' code]."""
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


def up(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w), the fractionally strided convolution [rule 1]."""
    return nn.ConvTranspose2d(c_in, c_out, 5, stride=2, padding=2, output_padding=1, bias=False)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2) [rule 1]."""
    return nn.Conv2d(c_in, c_out, 5, stride=2, padding=2, bias=False)


def n_doublings(size: int) -> int:
    """How often 4x4 is doubled to reach size; ValueError unless size is 8, 16, 32, ..."""
    k = size.bit_length() - 3
    if size < 8 or size != 4 << k:
        raise ValueError(f"size {size}: DCGAN doubles 4x4, so it takes 8, 16, 32, 64, 128, ...")
    return k


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size) in [-1, 1]. Fig. 1."""

    def __init__(self, size: int = 64, channels: int = 3, z_dim: int = 100, width: int = 128):
        super().__init__()
        k = n_doublings(size)
        c = [width << i for i in reversed(range(k))]                # 64x64: 1024, 512, 256, 128
        self.project = nn.Linear(z_dim, c[0] * 4 * 4, bias=False)   # shapes for size 64, width 128:
        layers: list[nn.Module] = [
            nn.Unflatten(1, (c[0], 4, 4)),                          # (n, 1024,  4,  4)
            nn.BatchNorm2d(c[0]), nn.ReLU()]                        # [rules 2, 4]
        for c_in, c_out in pairwise(c):                             # (n,  512,  8,  8)
            layers += [up(c_in, c_out),                             # (n,  256, 16, 16)
                       nn.BatchNorm2d(c_out), nn.ReLU()]            # (n,  128, 32, 32)
        layers += [up(c[-1], channels), nn.Tanh()]                  # (n,    3, 64, 64)  [rule 4]
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(self.project(z))


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> logits (n,)."""

    def __init__(self, size: int = 64, channels: int = 3, width: int = 128):
        super().__init__()
        k = n_doublings(size)
        c = [width << i for i in range(k)]                          # 64x64: 128, 256, 512, 1024
        layers: list[nn.Module] = [                                 # shapes for size 64, width 128:
            down(channels, c[0]), nn.LeakyReLU(0.2)]                # (n,  128, 32, 32)  [rule 5]
        for c_in, c_out in pairwise(c):                             # (n,  256, 16, 16)
            layers += [down(c_in, c_out),                           # (n,  512,  8,  8)
                       nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]    # (n, 1024,  4,  4)
        layers += [nn.Flatten(),                                    # (n, 16384)         [rule 3]
                   nn.Linear(c[-1] * 4 * 4, 1, bias=False)]         # (n, 1)
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)
