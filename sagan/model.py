"""Networks of SAGAN: Zhang, Goodfellow, Metaxas, Odena, ICML 2019, arXiv 1805.08318.

SNGAN's residual networks with classes, and in each, at one size of its feature maps, a layer in
which every place looks at all places. Spectral normalisation is in both networks. D returns logits,
(n,), without a bound of their own: the hinge is in the loss.

At 64 and 128 px width counts the channels at the image, 64 in the paper: 42,078,852 and 39,463,618
parameters at 128 px with attention at 32 px and 1000 classes. At 32 px it is that of SNGAN's
CIFAR-10 networks (256 and 128; 4,386,308 and 1,075,586 with attention at 16 px) [ours].
Where paper and code differ, the authors say that their code is right: keys and values are pooled,
the values have C/2 channels.
Departure: u is kept from every pass of D, in the code from those of real images; running averages
of batch norm keep 0.9, in the code 0.999, and 0.9999 in G's last.
"""
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

# Channels in widths, from the smallest picture to the largest, and the reverse
UP = {32: (1, 1, 1, 1), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
DOWN = {32: (1, 1), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16)}
FLAT = {32: (1, 1), 64: (), 128: (16,)}  # D's blocks that halve nothing


class SpectralNorm(nn.Module):
    """W -> W / sigma(W), sigma the largest singular value of W as a matrix (out, rest). [SNGAN]"""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("u", torch.randn(len(weight)))     # saved, not trained

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        W = weight.flatten(1)
        with torch.no_grad():                                   # one power iteration
            v = F.normalize(W.T @ self.u, dim=0, eps=1e-12)
            u = F.normalize(W @ v, dim=0, eps=1e-12)
            if self.training:
                self.u.copy_(u)
        sigma = u @ W @ v
        return weight / sigma


def normalise(net: nn.Module) -> None:
    """Each layer's `weight` is its normalised one from now on, and each use of it one iteration
    (unsafe=True: torch does not try it first, which would iterate once more)."""
    for m in list(net.modules()):
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)):
            parametrize.register_parametrization(m, "weight", SpectralNorm(m.weight), unsafe=True)


def init_weights(m: nn.Module) -> None:
    """Glorot uniform; biases 0. [authors' code]"""
    if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)):
        nn.init.xavier_uniform_(m.weight)
        if getattr(m, "bias", None) is not None:
            nn.init.zeros_(m.bias)


class SelfAttention(nn.Module):
    """x (n, c, h, w) -> x + gamma o, where o is at each place a mean of the values at all places,
    weighted by how well its query fits their keys. Eqs. 1-3"""

    def __init__(self, c: int):
        super().__init__()
        self.query = nn.Conv2d(c, c // 8, 1, bias=False)        # f in the paper, theta in the code
        self.key = nn.Conv2d(c, c // 8, 1, bias=False)          # g, phi
        self.value = nn.Conv2d(c, c // 2, 1, bias=False)        # h, g
        self.out = nn.Conv2d(c // 2, c, 1, bias=False)          # v, attn
        self.gamma = nn.Parameter(torch.zeros(()))              # at first y = x

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """(n, h w, h w / 4): for each place a distribution over the places of pooled keys. Eq. 1"""
        f = self.query(x).flatten(2)                            # (n, c/8, h w)
        g = F.max_pool2d(self.key(x), 2).flatten(2)             # (n, c/8, h w / 4) [authors' code]
        return (f.mT @ g).softmax(2)                            # over keys, without 1 / sqrt(c/8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.max_pool2d(self.value(x), 2).flatten(2)           # (n, c/2, h w / 4)
        o = (h @ self.weights(x).mT).unflatten(2, x.shape[2:])  # (n, c/2, h, w), Eq. 2
        return x + self.gamma * self.out(o)                     # Eq. 3


class BatchNorm(nn.BatchNorm2d):
    """With a gain and a bias for each class, if there are classes. [1802.05637, Sec. 4]"""

    def __init__(self, c: int, n_classes: int = 0):
        super().__init__(c, affine=not n_classes)
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
    image, has no ReLU before it. Inside are c_out channels, where SNGAN has c_in."""

    def __init__(self, c_in: int, c_out: int, pool: bool = True, first: bool = False):
        super().__init__()
        self.pool, self.first = pool, first
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if pool or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(x if self.first else F.relu(x))  # not in place: the shortcut reads x
        h = self.conv2(F.relu(h))
        if self.pool:                                   # pooling and the 1x1 commute
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class Generator(nn.Module):
    """z (n, z_dim), classes y int64 (n,) -> image (n, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 128, channels: int = 3, z_dim: int = 128, width: int = 64,
                 n_classes: int = 1000, attention: int = 32):
        super().__init__()
        self.n_classes = n_classes
        c = [width * k for k in UP[size]]                       # shapes for size 128, width 64:
        self.project = nn.Linear(z_dim, c[0] * 4 * 4)           # (n, 1024,   4,   4)
        self.blocks = nn.ModuleList(                            # (n, 1024,   8,   8)
            UpBlock(c_in, c_out, n_classes)                     # (n,  512,  16,  16)
            for c_in, c_out in pairwise(c))                     # (n,  256,  32,  32)
        sides = [4 << i for i in range(len(c) - 1)]             # (n,  128,  64,  64)
        self.at = sides.index(attention) if attention else -1   # before this block, or nowhere
        self.attention = SelfAttention(c[self.at]) if attention else None
        self.image = nn.Sequential(                             # (n,   64, 128, 128)
            BatchNorm(c[-1]), nn.ReLU(),
            nn.Conv2d(c[-1], channels, 3, padding=1), nn.Tanh())  # (n, 3, 128, 128)
        self.apply(init_weights)
        normalise(self)

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.project(z).unflatten(1, (-1, 4, 4))
        for i, block in enumerate(self.blocks):
            x = block(self.attention(x) if i == self.at else x, y)
        return self.image(x)


class Discriminator(nn.Module):
    """Image (n, channels, size, size), classes y int64 (n,) -> logits (n,)."""

    def __init__(self, size: int = 128, channels: int = 3, width: int = 64, n_classes: int = 1000,
                 attention: int = 32):
        super().__init__()
        c = [channels, *(width * k for k in DOWN[size])]        # shapes for size 128, width 64:
        blocks = [DownBlock(c_in, c_out, first=i == 0)          # (n,   64,  64,  64)
                  for i, (c_in, c_out) in enumerate(pairwise(c))]  # (n, 128, 32, 32)
        sides = [size >> i for i in range(len(c))]              # (n,  256,  16,  16)
        for k in FLAT[size]:                                    # (n,  512,   8,   8)
            c.append(width * k)                                 # (n, 1024,   4,   4)
            blocks.append(DownBlock(*c[-2:], pool=False))       # (n, 1024,   4,   4)
        self.blocks = nn.ModuleList(blocks)
        self.at = sides.index(attention) if attention else -1
        self.attention = SelfAttention(c[self.at]) if attention else None
        self.logit, self.embed = nn.Linear(c[-1], 1), nn.Embedding(n_classes, c[-1])
        self.apply(init_weights)
        normalise(self)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.blocks):
            x = block(self.attention(x) if i == self.at else x)
        h = F.relu(x).sum((2, 3))                               # a sum, not a mean
        return self.logit(h).squeeze(1) + (self.embed(y) * h).sum(1)  # [1802.05637, Eq. 3]
