"""Networks of BigGAN: Brock, Donahue, Simonyan, ICLR 2019, arXiv 1809.11096.

SAGAN's residual networks with attention and spectral normalisation in both, made wider. One
embedding of the class is shared by all of G's batch norms, whose gains and biases are linear in it
and in a chunk of z of their own (hierarchical z) [Sec. 3.1; Fig. 15]. arch "deep" is BigGAN-deep:
bottlenecks, two to a size, whose shortcuts have no weights of G's and keep channels in D; all of z
in every layer [App. B]. D returns logits, (n,): the hinge is in the loss.

At 128 px with 1000 classes: width 96, 70,433,988 and 87,982,370 parameters; deep, width and
z_chunk 128, 50,244,484 and 34,590,210. 64 px is the first author's [code]. At 32 px his have four
widths everywhere, as SNGAN's; here they halve as elsewhere, for a fifth of the work [ours].
(Figures, tables and appendices by number: from memory.)
Departure: G's first layer sees z's first chunk alone, as in the released weights and in both codes;
the paper's Table 4 adds the class.
"""
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

# Channels in widths, from the smallest picture to the largest, and the reverse [Tables 4-9]
UP = {32: (8, 4, 2, 1), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1),
      256: (16, 16, 8, 8, 4, 2, 1), 512: (16, 16, 8, 8, 4, 2, 1, 1)}
DOWN = {32: (1, 2, 4, 8), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16),
        256: (1, 2, 4, 8, 8, 16, 16), 512: (1, 1, 2, 4, 8, 8, 16, 16)}
HALVINGS = {32: 3, 64: 4, 128: 5, 256: 6, 512: 7}  # by D's first blocks


class SpectralNorm(nn.Module):
    """W -> W / sigma(W), sigma the largest singular value of W as a matrix (out, rest). [SNGAN]"""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("u", torch.randn(len(weight)))     # saved, not trained
        self.register_buffer("sigma", torch.ones(()))           # the last one: Fig. 3

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        W = weight.flatten(1)
        with torch.no_grad():                                   # one power iteration
            v = F.normalize(W.T @ self.u, dim=0, eps=1e-6)      # [authors' code]
            u = F.normalize(W @ v, dim=0, eps=1e-6)
        sigma = u @ W @ v
        if self.training:
            self.u.copy_(u)
            self.sigma.copy_(sigma.detach())
        return weight / sigma


def normalise(net: nn.Module) -> None:
    """Each layer's `weight` is its normalised one from now on, and each use of it one iteration
    (unsafe=True: torch does not try it first, which would iterate once more). G's class embedding
    is left out: there it harms [authors' code]."""
    for name, m in list(net.named_modules()):
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)) and name != "shared":
            parametrize.register_parametrization(m, "weight", SpectralNorm(m.weight), unsafe=True)


def top_singular_values(net: nn.Module) -> torch.Tensor:
    """(n_layers,), as the last training pass estimated them, in the order of modules(). [Fig. 3]"""
    return torch.stack([m.sigma for m in net.modules() if isinstance(m, SpectralNorm)])


def init_weights(m: nn.Module) -> None:
    """Orthogonal [Sec. 3]; biases 0 [TensorFlow's]."""
    if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding)):
        nn.init.orthogonal_(m.weight)
        if getattr(m, "bias", None) is not None:
            nn.init.zeros_(m.bias)


class SelfAttention(nn.Module):
    """x (n, c, h, w) -> x + gamma o: at each place a mean of the values at all places, weighted by
    how well its query fits their keys. [SAGAN; Fig. 15's "non-local block"]"""

    def __init__(self, c: int):
        super().__init__()
        self.query = nn.Conv2d(c, c // 8, 1, bias=False)
        self.key = nn.Conv2d(c, c // 8, 1, bias=False)
        self.value = nn.Conv2d(c, c // 2, 1, bias=False)
        self.out = nn.Conv2d(c // 2, c, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, _: torch.Tensor | None = None) -> torch.Tensor:
        f = self.query(x).flatten(2)                            # (n, c/8, h w)
        g = F.max_pool2d(self.key(x), 2).flatten(2)             # (n, c/8, h w / 4)
        h = F.max_pool2d(self.value(x), 2).flatten(2)           # (n, c/2, h w / 4)
        o = h @ (f.mT @ g).softmax(2).mT                        # (n, c/2, h w)
        return x + self.gamma * self.out(o.unflatten(2, x.shape[2:]))


class MeanOfAll(torch.autograd.Function):
    """x -> its mean over the processes, and backward likewise: the mean of their gradients."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return MeanOfAll.forward(ctx, grad)


class BatchNorm(nn.BatchNorm2d):
    """By mean and variance of the batch of all processes [Sec. 3: not of each device]. (torch's
    SyncBatchNorm is for GPUs alone.) Standing statistics are of the process that draws."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        standing = self.momentum is None
        if not self.training or standing or not (dist.is_available() and dist.is_initialized()):
            return super().forward(x)
        mean = MeanOfAll.apply(x.mean((0, 2, 3)))
        x = x - mean[:, None, None]
        var = MeanOfAll.apply(x.square().mean((0, 2, 3)))
        n = x.numel() // len(var) * dist.get_world_size()
        with torch.no_grad():                                   # as torch's own does
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        x = x * (var + self.eps).rsqrt()[:, None, None]
        if self.affine:
            x = x * self.weight[:, None, None] + self.bias[:, None, None]
        return x


class ConditionalBatchNorm(BatchNorm):
    """With gain and bias for each picture, linear in its condition (n, n_in). [Sec. 3]"""

    def __init__(self, c: int, n_in: int, eps: float):
        super().__init__(c, eps, affine=False)
        self.to_gain = nn.Linear(n_in, c, bias=False)
        self.to_bias = nn.Linear(n_in, c, bias=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        gain, bias = 1 + self.to_gain(condition), self.to_bias(condition)
        return gain[:, :, None, None] * super().forward(x) + bias[:, :, None, None]


class UpBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w). Fig. 15b"""

    def __init__(self, c_in: int, c_out: int, n_in: int, eps: float):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(c_in, n_in, eps)
        self.norm2 = ConditionalBatchNorm(c_out, n_in, eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.norm1(x, condition))
        h = self.conv1(F.interpolate(h, scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)  # 1x1 and upsampling commute


class DownBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2), or of h, w without `pool`. The first one, on the
    image, has no ReLU before it. Fig. 15c"""

    def __init__(self, c_in: int, c_out: int, pool: bool, first: bool):
        super().__init__()
        self.pool, self.first = pool, first
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if pool or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(x if self.first else F.relu(x))          # not in place: the shortcut reads x
        h = self.conv2(F.relu(h))
        if self.pool:                                           # pooling and the 1x1 commute
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class DeepUpBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w), or of h, w without `up`; the shortcut keeps the first
    c_out channels. Fig. 16b"""

    def __init__(self, c_in: int, c_out: int, n_in: int, eps: float, up: bool):
        super().__init__()
        c, self.c_out, self.up = c_in // 4, c_out, up
        self.norm1 = ConditionalBatchNorm(c_in, n_in, eps)
        self.norm2, self.norm3, self.norm4 = (ConditionalBatchNorm(c, n_in, eps) for _ in range(3))
        self.conv1, self.conv4 = nn.Conv2d(c_in, c, 1), nn.Conv2d(c, c_out, 1)
        self.conv2, self.conv3 = (nn.Conv2d(c, c, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h, x = F.relu(self.norm2(h, condition)), x[:, :self.c_out]
        if self.up:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv3(F.relu(self.norm3(self.conv2(h), condition)))
        return x + self.conv4(F.relu(self.norm4(h, condition)))


class DeepDownBlock(nn.Module):
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2), or of h, w without `pool`; the shortcut's channels
    beyond c_in are a convolution's. Fig. 16c"""

    def __init__(self, c_in: int, c_out: int, pool: bool):
        super().__init__()
        c, self.pool = c_out // 4, pool
        self.conv1, self.conv4 = nn.Conv2d(c_in, c, 1), nn.Conv2d(c, c_out, 1)
        self.conv2, self.conv3 = (nn.Conv2d(c, c, 3, padding=1) for _ in range(2))
        self.shortcut = nn.Conv2d(c_in, c_out - c_in, 1) if c_out > c_in else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        h = F.relu(self.conv3(F.relu(h)))
        if self.pool:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.shortcut is not None:
            x = torch.cat([x, self.shortcut(x)], 1)
        return x + self.conv4(h)


class Generator(nn.Module):
    """z (n, z_dim), classes y int64 (n,) -> image (n, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 128, channels: int = 3, z_chunk: int = 20, width: int = 96,
                 n_classes: int = 1000, embed_dim: int = 128, attention: int = 64,
                 arch: str = "biggan", eps: float = 1e-4):
        super().__init__()
        c, self.n_classes = [width * k for k in UP[size]], n_classes
        self.deep = arch == "deep"                              # shapes for size 128, width 96:
        self.z_dim = z_chunk * (1 if self.deep else len(c))     # (n, 120)
        n_in = z_chunk + embed_dim                              # a batch norm's condition
        self.shared = nn.Embedding(n_classes, embed_dim)
        self.project = nn.Linear(n_in if self.deep else z_chunk, c[0] * 4 * 4)
        self.blocks = nn.ModuleList()                           # (n, 1536,   4,   4)
        for i, (c_in, c_out) in enumerate(pairwise(c)):         # (n, 1536,   8,   8)
            layers = [UpBlock(c_in, c_out, n_in, eps)] if not self.deep else [
                DeepUpBlock(c_in, c_in, n_in, eps, up=False),   # (n,  768,  16,  16)
                DeepUpBlock(c_in, c_out, n_in, eps, up=True)]   # (n,  384,  32,  32)
            if attention == 8 << i:                             # (n,  192,  64,  64)
                layers.append(SelfAttention(c_out))             # (n,   96, 128, 128)
            self.blocks.append(nn.ModuleList(layers))
        self.image = nn.Sequential(
            BatchNorm(c[-1], eps), nn.ReLU(),
            nn.Conv2d(c[-1], channels, 3, padding=1), nn.Tanh())  # (n, 3, 128, 128)
        self.apply(init_weights)
        normalise(self)

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.paint(z, self.shared(y))

    def paint(self, z: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """The same of embeddings e (n, embed_dim), which may lie between classes."""
        k = 1 + len(self.blocks)                                # one for `project`, one a block
        first, *chunks = [z] * k if self.deep else z.chunk(k, 1)
        x = self.project(torch.cat([first, e], 1) if self.deep else first).unflatten(1, (-1, 4, 4))
        for layers, chunk in zip(self.blocks, chunks, strict=True):
            for layer in layers:
                x = layer(x, torch.cat([chunk, e], 1))
        return self.image(x)

    @torch.no_grad()
    def stand(self, inputs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> "Generator":
        """Batch norm by standing statistics, for sampling alone: the means of the statistics that
        each of these batches (z, y) has. They are those of the weights, and of the z, that will be
        sampled, as running averages are not. [App. C]"""
        for m in self.eval().modules():                         # u stands still
            if isinstance(m, BatchNorm):
                m.reset_running_stats()
                m.training, m.momentum = True, None             # the mean of all passes
        for z, y in inputs:
            self(z, y)
        return self.eval()


class Discriminator(nn.Module):
    """Image (n, channels, size, size), classes y int64 (n,) -> logits (n,)."""

    def __init__(self, size: int = 128, channels: int = 3, width: int = 96, n_classes: int = 1000,
                 attention: int = 64, arch: str = "biggan"):
        super().__init__()
        c, deep = [width * k for k in DOWN[size]], arch == "deep"
        layers: list[nn.Module] = []                            # shapes for size 128, width 96:
        if deep:                                                # (n,   96,  64,  64)
            layers.append(nn.Conv2d(channels, c[0], 3, padding=1))
        for i, (c_in, c_out) in enumerate(pairwise(c if deep else [channels, *c])):
            pool = i < HALVINGS[size]                           # (n,  192,  32,  32)
            layers += [DownBlock(c_in, c_out, pool, first=i == 0)] if not deep else [
                DeepDownBlock(c_in, c_out, pool),               # (n,  384,  16,  16)
                DeepDownBlock(c_out, c_out, pool=False)]        # (n,  768,   8,   8)
            if pool and attention == size >> i + 1:             # (n, 1536,   4,   4)
                layers.append(SelfAttention(c_out))             # (n, 1536,   4,   4)
        self.features = nn.Sequential(*layers, nn.ReLU())
        self.logit, self.embed = nn.Linear(c[-1], 1), nn.Embedding(n_classes, c[-1])
        self.apply(init_weights)
        normalise(self)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.features(x).sum((2, 3))                        # a sum, not a mean
        return self.logit(h).squeeze(1) + (self.embed(y) * h).sum(1)  # projection [1802.05637]
