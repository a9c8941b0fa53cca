"""Networks of SNGAN: Miyato, Kataoka, Koyama, Yoshida, ICLR 2018, arXiv 1802.05957.

Every layer of D has its weight divided by the largest singular value [Sec. 2.1]; G is an ordinary
network. D returns logits, (n,), without a bound of their own: the hinge is in the loss.
With classes they are those of the projection paper, Miyato, Koyama, ICLR 2018, arXiv 1802.05637:
G's batch norms have a gain and a bias for each class, and D adds <embedding of y, its features>.

arch "resnet": width is that of 32 px [Table 4]: 4,276,739 and 1,053,824 parameters, with ten
classes 4,304,387 and 1,055,104. At 64 and 128 px it counts the channels at the image, 64 for the
authors' ImageNet; 48 px is STL-10's [Table 5, from memory].
arch "cnn": the standard networks [Table 3], width 64: 3,813,379 and 2,935,873 at 32 px.
"""
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

# Channels in widths, from the smallest picture to the largest, and the reverse
UP = {32: (1, 1, 1, 1), 48: (8, 4, 2, 1), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
DOWN = {32: (1, 1), 48: (1, 2, 4, 8), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16)}
FLAT = {32: (1, 1), 48: (16,), 64: (), 128: (16,)}  # D's blocks that halve nothing


class SpectralNorm(nn.Module):
    """W -> W / sigma(W), sigma the largest singular value of W as a matrix (out, rest). Eq. 8"""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("u", torch.randn(len(weight)))     # saved, not trained

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        W = weight.flatten(1)
        with torch.no_grad():                                   # one power iteration [Alg. 1]
            v = F.normalize(W.T @ self.u, dim=0, eps=1e-12)     # Eq. 18
            u = F.normalize(W @ v, dim=0, eps=1e-12)            # Eq. 19
            if self.training:
                self.u.copy_(u)
        sigma = u @ W @ v            # with its gradient, d sigma / d W = u v' [Eqs. 10-12]
        return weight / sigma


class WeightNorm(nn.Module):
    """W -> W, each of its rows divided by its length: Fig. 3's comparison. [Sec. 3]"""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return F.normalize(weight.flatten(1), dim=1).view_as(weight)


def normalise(net: nn.Module, norm: str) -> None:
    """Each layer's `weight` is its normalised one from now on, and each use of it one iteration
    (unsafe=True: torch does not try it first, which would iterate once more)."""
    for m in list(net.modules()):
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)):
            bar = SpectralNorm(m.weight) if norm == "spectral" else WeightNorm()
            parametrize.register_parametrization(m, "weight", bar, unsafe=True)


def init_resnet(m: nn.Module) -> None:
    """Glorot uniform, times sqrt 2 in a block's two 3x3 convolutions; biases 0. [authors' code]"""
    for name, layer in m.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
            nn.init.xavier_uniform_(layer.weight, 2 ** 0.5 if name in ("conv1", "conv2") else 1)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)


def init_cnn(m: nn.Module) -> None:
    """N(0, 0.02), biases 0. [authors' code]"""
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0.0, 0.02)
        nn.init.zeros_(m.bias)


class BatchNorm(nn.BatchNorm2d):
    """With a gain and a bias for each class, if there are classes. [1802.05637, Sec. 4]"""

    def __init__(self, c: int, n_classes: int = 0):
        super().__init__(c, eps=2e-5, affine=not n_classes)     # [authors' code]
        if n_classes:
            self.gamma = nn.Parameter(torch.ones(n_classes, c))
            self.beta = nn.Parameter(torch.zeros(n_classes, c))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        x = super().forward(x)
        if y is None:
            return x
        gamma, beta = F.embedding(y, self.gamma), F.embedding(y, self.beta)
        return gamma[:, :, None, None] * x + beta[:, :, None, None]


class UpBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w)."""

    def __init__(self, c_in: int, c_out: int, n_classes: int = 0):
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(c_in, n_classes), BatchNorm(c_out, n_classes)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        h = F.relu(self.norm1(x, y))
        h = self.conv1(F.interpolate(h, scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, y)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)  # 1x1 and upsampling commute


class DownBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2), or of h, w without `pool`. The first one, on the
    image, has no ReLU before it, and c_out channels inside instead of c_in."""

    def __init__(self, c_in: int, c_out: int, pool: bool = True, first: bool = False):
        super().__init__()
        c = c_out if first else c_in
        self.pool, self.first = pool, first
        self.conv1 = nn.Conv2d(c_in, c, 3, padding=1)
        self.conv2 = nn.Conv2d(c, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if pool or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(x if self.first else F.relu(x))  # not in place: the shortcut reads x
        h = self.conv2(F.relu(h))
        if self.pool:                                   # pooling and the 1x1 commute
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class Generator(nn.Module):
    """z (n, z_dim), and classes y int64 (n,) if it has any -> image (n, channels, size, size) in
    [-1, 1]."""

    def __init__(self, size: int = 32, channels: int = 3, z_dim: int = 128, width: int = 256,
                 n_classes: int = 0, arch: str = "resnet"):
        super().__init__()
        self.n_classes = n_classes
        if arch == "resnet":                                      # shapes for size 32, width 256:
            c = [width * k for k in UP[size]]
            self.side = size >> len(c) - 1
            self.project = nn.Linear(z_dim, c[0] * self.side ** 2)  # (n, 256,  4,  4)
            self.blocks = nn.ModuleList(                          # (n, 256,  8,  8)
                UpBlock(c_in, c_out, n_classes)                   # (n, 256, 16, 16)
                for c_in, c_out in pairwise(c))                   # (n, 256, 32, 32)
            self.image = nn.Sequential(BatchNorm(c[-1]), nn.ReLU(),
                nn.Conv2d(c[-1], channels, 3, padding=1), nn.Tanh())  # (n, 3, 32, 32)
            self.apply(init_resnet)
        else:                                                     # shapes for size 32, width 64:
            c = [width * k for k in (8, 4, 2, 1)]
            self.side = size // 8
            self.project = nn.Linear(z_dim, c[0] * self.side ** 2)  # (n, 512,  4,  4)
            self.blocks, layers = nn.ModuleList(), [BatchNorm(c[0]), nn.ReLU()]
            for c_in, c_out in pairwise(c):                       # (n, 256,  8,  8)
                layers += [                                       # (n, 128, 16, 16)
                    nn.ConvTranspose2d(c_in, c_out, 4, 2, 1),     # (n,  64, 32, 32)
                    BatchNorm(c_out), nn.ReLU()]
            self.image = nn.Sequential(*layers,
                nn.Conv2d(c[-1], channels, 3, padding=1), nn.Tanh())  # (n, 3, 32, 32)
            self.apply(init_cnn)

    def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        assert (y is None) == (not self.n_classes), "y goes with n_classes, and only with them"
        x = self.project(z).unflatten(1, (-1, self.side, self.side))
        for block in self.blocks:
            x = block(x, y)
        return self.image(x)


class Discriminator(nn.Module):
    """Image (n, channels, size, size), and classes y int64 (n,) if it has any -> logits (n,)."""

    def __init__(self, size: int = 32, channels: int = 3, width: int = 128, n_classes: int = 0,
                 arch: str = "resnet", norm: str = "spectral"):
        super().__init__()
        self.arch = arch
        if arch == "resnet":                                      # shapes for size 32, width 128:
            c = [channels, *(width * k for k in DOWN[size])]
            blocks = [DownBlock(c_in, c_out, first=i == 0)        # (n, 128, 16, 16)
                      for i, (c_in, c_out) in enumerate(pairwise(c))]  # (n, 128, 8, 8)
            for k in FLAT[size]:                                  # (n, 128, 8, 8) twice
                c.append(width * k)
                blocks.append(DownBlock(*c[-2:], pool=False))
            self.features = nn.Sequential(*blocks, nn.ReLU())
            self.logit = nn.Linear(c[-1], 1, bias=size > 32)      # [authors' code]
            self.embed = nn.Embedding(n_classes, c[-1]) if n_classes else None
            self.apply(init_resnet)
        else:                                                     # shapes for size 32, width 64:
            c = [channels, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width]
            layers: list[nn.Module] = []
            for i, (c_in, c_out) in enumerate(pairwise(c)):       # (n,  64, 32, 32), 16, 16
                conv = (nn.Conv2d(c_in, c_out, 4, 2, 1) if i % 2  # (n, 128, 16, 16),  8,  8
                        else nn.Conv2d(c_in, c_out, 3, 1, 1))     # (n, 256,  8,  8),  4,  4
                layers += [conv, nn.LeakyReLU(0.1)]               # (n, 512,  4,  4)
            self.features = nn.Sequential(*layers)
            self.logit, self.embed = nn.Linear(c[-1] * (size // 8) ** 2, 1), None
            self.apply(init_cnn)
        if norm != "none":
            normalise(self, norm)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        assert (y is None) == (self.embed is None), "y goes with n_classes, and only with them"
        h = self.features(x)
        h = h.sum((2, 3)) if self.arch == "resnet" else h.flatten(1)  # a sum, not a mean
        logits = self.logit(h).squeeze(1)
        if y is None:
            return logits
        return logits + (self.embed(y) * h).sum(1)                # [1802.05637, Eq. 3]
