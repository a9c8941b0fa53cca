"""Networks of pix2pix: Isola, Zhu, Zhou, Efros, CVPR 2017, arXiv 1611.07004.

G maps an image to an image; its only noise is dropout. D sees the input beside the image and
judges patches: it returns logits, (n, 1, h', w'), the sigmoid is in the loss. At width 64 and size
256 they have 54,413,955 and 2,768,705 parameters. Convolutions have no bias where a norm follows,
nor in G's first and innermost layer [authors' PyTorch code].

The paper's batch norm takes its statistics from the batch, at test time too, and its batch is
mostly one image [Sec. 3.3]: that is instance norm. Departure: it is instance norm here whatever the
batch, so that a picture never depends on its neighbours.
"""
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

FIELDS = (1, 16, 34, 70, 142, 286)  # receptive fields of D by its layers of stride 2, from 0 on


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02) weights [App. 6.2]; the norms' gains N(1, 0.02), biases 0 [authors' code]."""
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, nn.InstanceNorm2d):
        nn.init.normal_(m.weight, 1.0, 0.02)
    if getattr(m, "bias", None) is not None:
        nn.init.zeros_(m.bias)


def norm(c: int) -> nn.Module:
    """Batch norm with the statistics of a batch of 1, whatever the batch."""
    return nn.InstanceNorm2d(c, affine=True)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2)."""
    return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False)


def up(c_in: int, c_out: int, bias: bool = False) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w)."""
    return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias)


def n_halvings(size: int) -> int:
    """How often size is halved to be 1; ValueError unless it is 16, 32, 64, ..."""
    k = size.bit_length() - 1
    if size < 16 or size != 1 << k:
        raise ValueError(f"size {size}: G halves it down to 1, so it takes 16, 32, 64, 128, ...")
    return k


class Generator(nn.Module):
    """x (n, c_in, h, w) -> y (n, c_out, h, w) in [-1, 1]; h and w are multiples of size. [App. 6.1]

    skips: a U-Net; without them an encoder-decoder [Sec. 4.3]. dropout: which layers of the decoder
    have it, of 8 the first three; the authors' PyTorch code has it one layer later.
    """

    def __init__(self, size: int = 256, c_in: int = 3, c_out: int = 3, width: int = 64,
                 skips: bool = True, dropout: Sequence[int] = range(3)):
        super().__init__()
        k = n_halvings(size)
        self.size, self.c_in, self.skips = size, c_in, skips
        c = [width * min(2 ** i, 8) for i in range(k)]              # shapes for size 256, width 64:
        self.down = nn.ModuleList([nn.Sequential(
            down(c_in, c[0]))])                                     # (n,   64, 128, 128)
        for a, b in pairwise(c[:-1]):                               # (n,  128,  64,  64)
            self.down.append(nn.Sequential(                         # (n,  256,  32,  32)
                nn.LeakyReLU(0.2), down(a, b), norm(b)))            # (n,  512,  16,  16) ...
        self.down.append(nn.Sequential(                             # (n,  512,   1,   1); a norm
            nn.LeakyReLU(0.2), down(c[-2], c[-1])))                 # would leave 0 of it [App. 6.3]

        self.up, c_prev = nn.ModuleList(), c[-1]
        for j, b in enumerate(reversed(c[:-1])):
            layers = [nn.ReLU(), up(c_prev, b), norm(b)]            # (n,  512,   2,   2) ...
            if j in dropout:                                        # (n,  512,  16,  16)
                layers += [nn.Dropout(0.5)]                         # (n,  256,  32,  32)
            self.up.append(nn.Sequential(*layers))                  # (n,  128,  64,  64)
            c_prev = 2 * b if skips else b                          # (n,   64, 128, 128)
        self.up.append(nn.Sequential(
            nn.ReLU(), up(c_prev, c_out, bias=True), nn.Tanh()))    # (n,    3, 256, 256)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        encoded = []
        for layer in self.down:
            x = layer(x)
            encoded.append(x)
        y = encoded.pop()
        for layer in self.up[:-1]:
            y = layer(y)
            if self.skips:
                y = torch.cat([encoded.pop(), y], 1)  # layer i with layer k - i [Sec. 3.2.1]
        return self.up[-1](y)


class Discriminator(nn.Module):
    """x (n, c_in, h, w), y (n, c_out, h, w) -> a logit for each patch, (n, 1, h', w'). [App. 6.1]

    field: the patches are field x field; 1 makes a PixelGAN, 286 an ImageGAN. [Sec. 4.4]
    """

    def __init__(self, c_in: int = 3, c_out: int = 3, width: int = 64, field: int = 70):
        super().__init__()
        k = FIELDS.index(field)
        if k == 0:
            self.net = nn.Sequential(
                nn.Conv2d(c_in + c_out, width, 1), nn.LeakyReLU(0.2),
                nn.Conv2d(width, 2 * width, 1, bias=False), norm(2 * width), nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 1, 1, bias=False))
        else:
            c = [width * min(2 ** i, 8) for i in range(k + 1)]      # shapes for size 256, width 64:
            layers: list[nn.Module] = [
                nn.Conv2d(c_in + c_out, c[0], 4, 2, 1), nn.LeakyReLU(0.2)]  # (n,  64, 128, 128)
            for i, (a, b) in enumerate(pairwise(c)):                # (n, 128,  64,  64)
                stride = 2 if i < k - 1 else 1                      # (n, 256,  32,  32)
                layers += [nn.Conv2d(a, b, 4, stride, 1, bias=False),
                           norm(b), nn.LeakyReLU(0.2)]              # (n, 512,  31,  31)
            layers += [nn.Conv2d(c[-1], 1, 4, 1, 1)]                # (n,   1,  30,  30)
            self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([x, y], 1))
