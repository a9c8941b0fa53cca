"""Networks of SRGAN: Ledig et al., CVPR 2017, arXiv 1609.04802, and the measures of its Table 2.

G enlarges an image; with 16 blocks of 64 channels it is SRResNet [Fig. 4], and has 1,548,547
parameters at x4: a slope for each channel of a PReLU, no bias where batch norm follows. It ends
without a tanh, as Fig. 4 draws it: what leaves [-1, 1] is cut in files, never in training. Images
are in [-1, 1] everywhere; inside G a low-resolution one is in [0, 1] [Sec. 3.2].
D returns logits, (n,): the sigmoid is in the loss. At 96x96 it has 23,563,649 parameters.
VGG19 has torchvision's names, so that its file of weights fits. First weights: torch's own, the
paper names none.
"""
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def conv(c_in: int, c_out: int, k: int = 3, stride: int = 1, bias: bool = True) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h / stride, w / stride)."""
    return nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=bias)


class Block(nn.Module):
    """x + two convolutions of x; nothing follows the sum. [Fig. 4]"""

    def __init__(self, c: int):
        super().__init__()
        self.net = nn.Sequential(conv(c, c, bias=False), nn.BatchNorm2d(c), nn.PReLU(c),
                                 conv(c, c, bias=False), nn.BatchNorm2d(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


class Generator(nn.Module):
    """Image (n, channels, h, w) in [-1, 1] -> (n, channels, scale h, scale w). [Fig. 4]"""

    def __init__(self, channels: int = 3, width: int = 64, n_blocks: int = 16, scale: int = 4):
        super().__init__()
        if scale not in (2, 4, 8):
            raise ValueError(f"scale {scale}: looked for 2, 4 or 8")
        self.scale, self.reach = scale, 2 * n_blocks + 8  # pixels of x that an output depends on
        self.first = nn.Sequential(conv(channels, width, 9), nn.PReLU(width))  # for 24x24, x4:
        self.blocks = nn.Sequential(                                           # (n,  64, 24, 24)
            *(Block(width) for _ in range(n_blocks)),
            conv(width, width, bias=False), nn.BatchNorm2d(width))
        layers: list[nn.Module] = []                                           # (n, 256, 24, 24)
        for _ in range(scale.bit_length() - 1):                                # (n,  64, 48, 48)
            layers += [conv(width, 4 * width), nn.PixelShuffle(2), nn.PReLU(width)]
        self.up = nn.Sequential(*layers, conv(width, channels, 9))             # (n,   3, 96, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x / 2 + 0.5)
        return self.up(x + self.blocks(x))


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> logits (n,). [Fig. 4]"""

    def __init__(self, size: int = 96, channels: int = 3, width: int = 64):
        super().__init__()
        if size < 16 or size % 16:
            raise ValueError(f"size {size}: D halves it four times, so it takes 16, 32, 48, ...")
        c = [width << i for i in (0, 0, 1, 1, 2, 2, 3, 3)]          # shapes for size 96, width 64:
        layers = [conv(channels, width), nn.LeakyReLU(0.2)]         # (n,  64, 96, 96)
        for i, (c_in, c_out) in enumerate(pairwise(c)):             # (n,  64, 48, 48)
            layers += [conv(c_in, c_out, stride=2 - i % 2, bias=False),  # ...
                       nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]    # (n, 512,  6,  6)
        layers += [nn.Flatten(), nn.Linear(c[-1] * (size // 16) ** 2, 16 * width),
                   nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)]     # (n, 1024), (n, 1)
        self.net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)


class VGG19(nn.Module):
    """Image (n, 1 or 3, h, w) in [-1, 1] -> phi_5,4 (n, 512, h / 16, w / 16), or phi_2,2.

    phi_i,j are the features after the ReLU of the j-th convolution before the i-th pooling [Sec.
    2.2.1]: layer 35 of torchvision's `features`, or 8. Its weights expect ImageNet's mean and
    standard deviation; what the paper's did is not known.
    """
    LAST = {"vgg22": 8, "vgg54": 35}

    def __init__(self, phi: str = "vgg54"):
        super().__init__()
        layers: list[nn.Module] = []
        c_in = 3
        for c, n in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(n):
                layers += [conv(c_in, c), nn.ReLU()]
                c_in = c
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers[:self.LAST[phi] + 1])
        for name, v in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(v).view(3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features((x / 2 + 0.5 - self.mean) / self.std)  # grey becomes three channels


# What is not trained: the kernel of the low-resolution images, and the measures of Table 2

def to_8_bits(x: torch.Tensor) -> torch.Tensor:
    """What a file would hold of x: cut to [-1, 1], in steps of 2 / 255."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def shrink(x: torch.Tensor, scale: int) -> torch.Tensor:
    """The low-resolution images: x (n, c, h, w) reduced by MATLAB's bicubic kernel, which widens
    with the step (antialias), and rounded as in a file. h and w are multiples of scale."""
    size = x.shape[2] // scale, x.shape[3] // scale
    return to_8_bits(F.interpolate(x, size, mode="bicubic", antialias=True))


def enlarge(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic interpolation by the same kernel: what a network has to be better than."""
    size = x.shape[2] * scale, x.shape[3] * scale
    return to_8_bits(F.interpolate(x, size, mode="bicubic", antialias=True))


def luma(x: torch.Tensor) -> torch.Tensor:
    """Y (n, 1, h, w) of files of x (n, 1 or 3, h, w): BT.601 in 16..235, MATLAB's rgb2ycbcr; 4
    pixels of each border are left out [Sec. 3.1]."""
    r, g, b = (to_8_bits(x[:, :, 4:-4, 4:-4]) / 2 + 0.5).expand(-1, 3, -1, -1).split(1, 1)
    return 16 + 65.481 * r + 128.553 * g + 24.966 * b


def psnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Decibels (n,), 10 log10(255^2 / MSE) of the luma; of equal images 100."""
    mse = (luma(x) - luma(y)).square().mean((1, 2, 3))
    return 10 * torch.log10(255 ** 2 / mse.clamp_min(255 ** 2 * 1e-10))


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Structural similarity (n,) of the luma: Wang et al. 2004, an 11x11 Gaussian of sigma 1.5."""
    at = torch.arange(-5, 6, device=x.device, dtype=x.dtype)
    g = torch.exp(-at.square() / (2 * 1.5 ** 2))
    window = torch.outer(g, g)[None, None] / g.sum() ** 2
    x, y = luma(x), luma(y)
    m, n, xx, yy, xy = (F.conv2d(a, window) for a in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * m * n + c1) * (2 * (xy - m * n) + c2) / (
        (m * m + n * n + c1) * (xx - m * m + yy - n * n + c2))
    return likeness.mean((1, 2, 3))
