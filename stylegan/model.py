"""Networks of StyleGAN: Karras, Laine, Aila, CVPR 2019, arXiv 1812.04948.

G is two networks. The mapping network turns z into w; the synthesis network starts at a learned
constant, 4x4, and after every convolution w sets the mean and deviation of each feature map (AdaIN,
Eq. 1), while fresh noise is added before. Both G and D can work at any resolution from 4 on, or
between two (alpha), and so grow in training, as in ProGAN [Karras et al. 2018].

Without arguments they are the paper's, for 1024x1024: 26,219,627 and 23,087,249 parameters. D
returns logits, (n,). G's `config` is a row of Table 1, with all that the rows before it add:
    B  ProGAN's generator with bilinear sampling: dense input, pixel norm, no styles
    C  mapping network and styles          E  noise inputs
    D  learned constant input              F  the same network, trained with mixed styles

Departure: the authors' code can be conditioned on labels; here it is not, as in the paper.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


def n_layers(size: int) -> int:
    """Of the synthesis network up to size: two at each resolution from 4 on, 18 for 1024."""
    return 2 * int(math.log2(size)) - 2


def sample_noise(n: int, size: int, device: torch.device | None = None) -> list[torch.Tensor]:
    """N(0, 1), a map (n, 1, h, w) for each layer up to size. [Sec. 2]"""
    sides = [4 << i // 2 for i in range(n_layers(size))]
    return [torch.randn(n, 1, side, side, device=device) for side in sides]


def n_maps(size: int, fmap_base: int, fmap_max: int) -> int:
    """Channels at a resolution: 16 at 1024, doubled at each halving, at most 512. [Fig. 1, ProGAN's
    Table 2; the formula: authors' code]"""
    return max(1, min(2 * fmap_base // size, fmap_max))


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """x / (mean over dimension 1 of x^2)^(1/2). [ProGAN, Sec. 4.2]"""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def filtered(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each feature map with a kernel (3, 3)."""
    c = x.shape[1]
    return F.conv2d(x, kernel.expand(c, 1, 3, 3), padding=1, groups=c)


class Symmetric(torch.autograd.Function):
    """filtered() for a symmetric kernel: its gradient is the filter itself, and R1 differentiates
    that again; torch's own second derivative goes from feature map to feature map."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        ctx.kernel = kernel
        return filtered(x, kernel)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return Symmetric.apply(grad, ctx.kernel), None


class Blur(nn.Module):
    """Binomial filter [1 2 1]: after up() or before pooling it makes bilinear sampling. [App. C]"""

    def __init__(self):
        super().__init__()
        k = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", k.outer(k), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apply = Symmetric.apply if x.requires_grad else filtered  # torch can export the latter
        return apply(x, self.kernel)


class Linear(nn.Module):
    """A layer with equalised learning rate: weights are stored as N(0, 1) / lr_mul, and used times
    gain lr_mul / fan_in^(1/2), He's constant; so lr_mul is a factor of the learning rate. [ProGAN,
    Sec. 4.1; App. C for the mapping network's 0.01]"""

    def __init__(self, c_in: int, c_out: int, gain: float = 2 ** 0.5, lr_mul: float = 1.0,
                 bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.scale, self.lr_mul = gain / c_in ** 0.5 * lr_mul, lr_mul

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = self.bias * self.lr_mul if self.bias is not None else None
        return F.linear(x, self.weight * self.scale, b)


class Conv(nn.Module):
    """The same for a convolution that keeps height and width."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, gain: float = 2 ** 0.5,
                 bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.scale = gain / (c_in * kernel ** 2) ** 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding="same")


FUSED = 128  # from here on sampling and convolution are one, which is faster [authors' code]


def with_box(weight: torch.Tensor) -> torch.Tensor:
    """Kernels (..., 3, 3) with the 2x2 box of up() or of pooling: (..., 4, 4)."""
    w = F.pad(weight, (1, 1, 1, 1))
    return w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]


class UpConv(Conv):
    """up(), then the convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if 2 * x.shape[-1] < FUSED:
            return super().forward(up(x))
        w = with_box(self.weight * self.scale).flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(x, w, self.bias, stride=2, padding=1)


class DownConv(Conv):
    """The convolution, then means over 2x2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] < FUSED:
            return F.avg_pool2d(super().forward(x), 2)
        w = with_box(self.weight * self.scale) / 4
        return F.conv2d(x, w, self.bias, stride=2, padding=1)


class Mapping(nn.Module):
    """z (n, z_dim) -> w (n, w_dim), on the unit sphere first. [Sec. 2, Fig. 1]"""

    def __init__(self, z_dim: int, w_dim: int, layers: int):
        super().__init__()
        c = [z_dim] + [w_dim] * layers
        self.layers = nn.ModuleList(Linear(c[i], c[i + 1], lr_mul=0.01) for i in range(layers))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = pixel_norm(z)
        for layer in self.layers:
            w = F.leaky_relu(layer(w), 0.2)
        return w


def adain(x: torch.Tensor, y_s: torch.Tensor, y_b: torch.Tensor) -> torch.Tensor:
    """y_s (x - mean(x)) / deviation(x) + y_b, for each feature map of each sample. Eq. 1"""
    return y_s[:, :, None, None] * F.instance_norm(x, eps=1e-8) + y_b[:, :, None, None]


class Epilogue(nn.Module):
    """What follows a convolution: noise, bias, LeakyReLU, AdaIN. [Fig. 1b, Sec. 2]"""

    def __init__(self, c: int, w_dim: int, config: str, noise_lr: float = 1.0):
        super().__init__()
        self.noise_lr = noise_lr
        self.noise = nn.Parameter(torch.zeros(c)) if config >= "E" else None  # B: one a feature map
        self.bias = nn.Parameter(torch.zeros(c))
        self.style = Linear(w_dim, 2 * c, gain=1) if config >= "C" else None  # A: (y_s - 1, y_b)

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        if self.noise is not None:
            x = x + self.noise_lr * self.noise[:, None, None] * noise
        x = F.leaky_relu(x + self.bias[:, None, None], 0.2)
        if self.style is None:
            return pixel_norm(x)
        y_s, y_b = self.style(w).chunk(2, 1)
        return adain(x, 1 + y_s, y_b)


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size); its range is that of the data, [-1, 1], but
    nothing holds it there. Fig. 1b

    w_avg, the mean of w, is kept up by the training loop; the noise maps are those of all pictures
    that are asked for without noise of their own. Neither is trained. noise_lr is a factor of the
    learning rate of B, the strength of the noise; the paper's is 1.
    """

    def __init__(self, size: int = 1024, channels: int = 3, z_dim: int = 512, w_dim: int = 512,
                 fmap_base: int = 8192, fmap_max: int = 512, mapping_layers: int = 8,
                 config: str = "F", noise_lr: float = 1.0):
        super().__init__()
        if config == "B":
            mapping_layers = 0
        if not mapping_layers:
            w_dim = z_dim                                           # w is the normalised z
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max) for s in sizes]         # 1024: 512 512 512 512 256 ...
        self.size, self.n_layers = size, n_layers(size)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        if config >= "D":
            self.const = nn.Parameter(torch.ones(1, c[0], 4, 4))    # [App. C: ones]
        else:                                                       # as in ProGAN
            self.const = None
            self.dense = Linear(w_dim, 16 * c[0], gain=2 ** 0.5 / 4, bias=False)
        self.convs = nn.ModuleList(                                 # of layers 1, 2, ...
            (Conv if i % 2 else UpConv)(c[(i - 1) // 2], c[i // 2], bias=False)
            for i in range(1, self.n_layers))
        self.blur = Blur()
        self.epilogues = nn.ModuleList(                             # of layers 0, 1, ...
            Epilogue(c[i // 2], w_dim, config, noise_lr) for i in range(self.n_layers))
        self.to_rgb = nn.ModuleList(Conv(c_in, channels, 1, gain=1) for c_in in c)
        self.register_buffer("w_avg", torch.zeros(w_dim))
        for i, maps in enumerate(sample_noise(1, size)):
            self.register_buffer(f"noise{i}", maps)

    def fixed_noise(self) -> list[torch.Tensor]:
        """A map (1, 1, h, w) for each layer. [authors' code: randomize_noise=False]"""
        return [getattr(self, f"noise{i}") for i in range(self.n_layers)]

    def styles(self, w: torch.Tensor, w2: torch.Tensor | None = None, crossover: int = 0,
               psi: float = 1.0, truncated: int = 8) -> torch.Tensor:
        """(n, n_layers, w_dim): w, from layer `crossover` on w2 [Sec. 3.1]; where psi is not 1
        w_avg + psi (w - w_avg) in the first layers, eight for 4x4 to 32x32 [App. B; Fig. 2]."""
        layer = torch.arange(self.n_layers, device=w.device)[:, None]
        w = w[:, None].expand(-1, self.n_layers, -1)
        if w2 is not None:
            w = torch.where(layer < crossover, w, w2[:, None])
        if psi != 1:
            w = torch.where(layer < truncated, self.w_avg + psi * (w - self.w_avg), w)
        return w

    def synthesis(self, w: torch.Tensor, noise: list[torch.Tensor] | None = None,
                  size: int | None = None, alpha: float = 1.0) -> torch.Tensor:
        """styles(...) -> image (n, channels, size, size). With alpha < 1 the layers of this size
        fade in: the picture is (1 - alpha) up(that of half the size) + alpha theirs. [ProGAN,
        Fig. 2]"""
        size, noise = size or self.size, noise or self.fixed_noise()
        if self.const is not None:
            x = self.const.expand(w.shape[0], -1, -1, -1)           # shapes for 1024:
        else:
            x = self.dense(w[:, 0]).view(w.shape[0], -1, 4, 4)      # (n, 512,    4,    4)
        x = half = self.epilogues[0](x, w[:, 0], noise[0])
        for i in range(1, n_layers(size)):                          # (n, 512,    4,    4)
            if i % 2 == 0:                                          # (n, 512,    8,    8), twice
                half, x = x, self.blur(self.convs[i - 1](x))        # ...
            else:                                                   # (n,  32,  512,  512), twice
                x = self.convs[i - 1](x)                            # (n,  16, 1024, 1024), twice
            x = self.epilogues[i](x, w[:, i], noise[i])
        k = int(math.log2(size)) - 2
        rgb = self.to_rgb[k](x)                                     # (n,   3, 1024, 1024)
        if alpha < 1:
            rgb = torch.lerp(up(self.to_rgb[k - 1](half)), rgb, alpha)
        return rgb

    def forward(self, z: torch.Tensor, z2: torch.Tensor | None = None, crossover: int = 0,
                noise: list[torch.Tensor] | None = None, size: int | None = None,
                alpha: float = 1.0, psi: float = 1.0) -> torch.Tensor:
        w2 = self.mapping(z2) if z2 is not None else None
        return self.synthesis(self.styles(self.mapping(z), w2, crossover, psi), noise, size, alpha)


def minibatch_stddev(x: torch.Tensor, group: int = 4) -> torch.Tensor:
    """x (n, c, h, w) -> (n, c + 1, h, w): the last map says how much the samples differ. [ProGAN,
    Sec. 3; groups of 4: authors' code]

    A group is samples i, i + m, i + 2m, ... of n = m group; the map is its deviation, in each
    feature and place, averaged over these. So rows i, i + k, i + 2k, ... of a batch, k processes'
    or micro-batches' shares of it, are in the same groups as in the whole.
    """
    n, c, h, w = x.shape
    group = min(group, n)
    y = x.view(group, n // group, c, h, w)
    deviation = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (m,)
    return torch.cat([x, deviation.repeat(group)[:, None, None, None].expand(n, 1, h, w)], 1)


class Discriminator(nn.Module):
    """Image (n, channels, h, h), h = 8, 16, ... size -> logits (n,): that of ProGAN, with blur."""

    def __init__(self, size: int = 1024, channels: int = 3, fmap_base: int = 8192,
                 fmap_max: int = 512):
        super().__init__()
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max) for s in sizes]
        self.from_rgb = nn.ModuleList(Conv(channels, c_out, 1) for c_out in c)
        self.convs = nn.ModuleList(Conv(c_in, c_in) for c_in in c[1:])
        self.downs = nn.ModuleList(DownConv(c[i + 1], c[i]) for i in range(len(c) - 1))
        self.blur = Blur()
        self.conv = Conv(c[0] + 1, c[0])
        self.dense = Linear(16 * c[0], c[0])
        self.logit = Linear(c[0], 1, gain=1)

    def forward(self, x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
        """With alpha < 1 the layers of x's size fade in, as in G. [ProGAN, Fig. 2]"""
        k = int(math.log2(x.shape[-1])) - 2                         # shapes for 1024:
        h = F.leaky_relu(self.from_rgb[k](x), 0.2)                  # (n,  16, 1024, 1024)
        for i in reversed(range(k)):                                # (n,  32,  512,  512)
            h = F.leaky_relu(self.convs[i](h), 0.2)                 # ...
            h = F.leaky_relu(self.downs[i](self.blur(h)), 0.2)
            if i == k - 1 and alpha < 1:
                old = F.leaky_relu(self.from_rgb[i](F.avg_pool2d(x, 2)), 0.2)
                h = torch.lerp(old, h, alpha)                       # (n, 512,    4,    4)
        h = F.leaky_relu(self.conv(minibatch_stddev(h)), 0.2)       # (n, 512,    4,    4)
        h = F.leaky_relu(self.dense(h.flatten(1)), 0.2)             # (n, 512)
        return self.logit(h).squeeze(1)
