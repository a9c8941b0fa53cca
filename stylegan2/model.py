"""Networks of StyleGAN2: Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, CVPR 2020, arXiv
1912.04958.

G is StyleGAN's, redone: the style w no longer sets the statistics of the feature maps but scales
the weights that make them (Eqs. 1-3), and the picture is a sum, of one part from each resolution.
D is residual. Neither grows.

Without arguments they are the paper's, for 1024x1024: 30,370,060 and 29,012,513 parameters. D
returns logits, (n,). `config` is a row of Table 1, with all that the rows before it add:
    B  weight demodulation instead of AdaIN; G and D in one line, as StyleGAN's
    C, D  the same networks, regularised otherwise (train.py)
    E  skip G, residual D                F  twice as many feature maps from 64x64 on

Departure: B to D start at the last size, where the authors let them grow, so they have one ToRGB
and one FromRGB. (They are Table 2's "original" networks.)
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


def n_layers(size: int) -> int:
    """Styles of the synthesis network: two at each resolution from 4 on, 18 for 1024. Convolution i
    has style i and noise i; ToRGB has the style of the convolution that comes next."""
    return 2 * int(math.log2(size)) - 2


def sample_noise(n: int, size: int, device: torch.device | None = None) -> list[torch.Tensor]:
    """N(0, 1), a map (n, 1, h, w) for each convolution: at 4x4 one, then two. [App. B]"""
    sides = [4 << (i + 1) // 2 for i in range(n_layers(size) - 1)]
    return [torch.randn(n, 1, side, side, device=device) for side in sides]


def n_maps(size: int, fmap_base: int, fmap_max: int, config: str) -> int:
    """Channels at a resolution: 32 at 1024, doubled at each halving, at most 512; half of that in
    rows B to E. [Sec. 4.2; the formula: authors' code]"""
    return max(1, min(2 * fmap_base // (size if config == "F" else 2 * size), fmap_max))


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """x / (mean over dimension 1 of x^2)^(1/2). [ProGAN, Sec. 4.2]"""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def lrelu(x: torch.Tensor) -> torch.Tensor:
    """LeakyReLU that keeps the second moment, nearly: times 2^(1/2). [App. B]"""
    return F.leaky_relu(x, 0.2) * 2 ** 0.5


def filtered(x: torch.Tensor, kernel: torch.Tensor, padding: int) -> torch.Tensor:
    """Each feature map with a kernel (4, 4)."""
    c = x.shape[1]
    return F.conv2d(x, kernel.expand(c, 1, 4, 4), padding=padding, groups=c)


class Symmetric(torch.autograd.Function):
    """filtered() for a symmetric kernel: its gradient is the filter itself, and the penalties
    differentiate that again; torch's own second derivative goes from feature map to feature map."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, kernel: torch.Tensor, padding: int) -> torch.Tensor:
        ctx.kernel, ctx.padding = kernel, padding
        return filtered(x, kernel, padding)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return Symmetric.apply(grad, ctx.kernel, 3 - ctx.padding), None, None


class Blur(nn.Module):
    """Binomial filter [1 3 3 1], its weights adding up to gain. [authors' code]"""

    def __init__(self, padding: int, gain: float = 1.0):
        super().__init__()
        k = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", k.outer(k) * gain, persistent=False)
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apply = Symmetric.apply if x.requires_grad else filtered  # torch can export the latter
        return apply(x, self.kernel, self.padding)


class Up(nn.Module):
    """Twice as large: zeros between the pixels, then the filter, whose gain makes up for them."""

    def __init__(self):
        super().__init__()
        self.blur = Blur(0, gain=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        x = F.pad(x.view(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
        return self.blur(F.pad(x, (2, 1, 2, 1)))


class Linear(nn.Module):
    """A layer with equalised learning rate: weights are stored as N(0, 1) / lr_mul, and used times
    lr_mul / fan_in^(1/2), He's constant but for lrelu's factor; so lr_mul is a factor of the
    learning rate. [ProGAN, Sec. 4.1; StyleGAN, App. C for the mapping network's 0.01]"""

    def __init__(self, c_in: int, c_out: int, bias: float = 0.0, lr_mul: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / lr_mul)
        self.bias = nn.Parameter(torch.full((c_out,), bias))
        self.scale, self.lr_mul = lr_mul / c_in ** 0.5, lr_mul

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)


class Conv(nn.Module):
    """The same for a convolution that keeps height and width, or, `down`, halves them: filtered
    first, so that no pixel is left out."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, bias: bool = True,
                 down: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.scale = 1 / (c_in * kernel ** 2) ** 0.5
        self.blur = Blur((kernel + 1) // 2) if down else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight * self.scale
        if self.blur is not None:
            return F.conv2d(self.blur(x), weight, self.bias, stride=2)
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class Mapping(nn.Module):
    """z (n, z_dim) -> w (n, w_dim), on the unit sphere first. [StyleGAN, Sec. 2]"""

    def __init__(self, z_dim: int, w_dim: int, layers: int):
        super().__init__()
        c = [z_dim] + [w_dim] * layers
        self.layers = nn.ModuleList(Linear(c[i], c[i + 1], lr_mul=0.01) for i in range(layers))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = pixel_norm(z)
        for layer in self.layers:
            w = lrelu(layer(w))
        return w


class ModConv(nn.Module):
    """A convolution with weights of its own for each sample:
        w'_ijk = s_i w_ijk                                                 Eq. 1: modulated by style
        w''_ijk = w'_ijk / (sum over i, k of w'_ijk^2 + 1e-8)^(1/2)        Eq. 3: demodulated
    i is an input map, j an output map, k a place. As s_i belongs to an input map and the root to an
    output map, the maps are scaled, before and after one convolution for all samples. [App. B]
    """

    def __init__(self, c_in: int, c_out: int, w_dim: int, kernel: int = 3, up: bool = False,
                 demodulate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.style = Linear(w_dim, c_in, bias=1.0)                         # A: s
        self.scale, self.demodulate = 1 / (c_in * kernel ** 2) ** 0.5, demodulate
        self.padding = kernel // 2
        self.blur = Blur(1, gain=4) if up else None

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        s, weight = self.style(w), self.weight * self.scale
        x = x * s[:, :, None, None]
        if self.blur is not None:                                          # (n, c, 2h + 1, 2w + 1)
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            sigma2 = F.linear(s.square(), weight.square().sum((2, 3)))     # Eq. 2, (n, c_out)
            x = x * (sigma2 + 1e-8).rsqrt()[:, :, None, None]
        return x


class StyledConv(nn.Module):
    """A modulated convolution, noise, bias, lrelu. [Fig. 2d]"""

    def __init__(self, c_in: int, c_out: int, w_dim: int, up: bool, noise_lr: float = 1.0):
        super().__init__()
        self.conv = ModConv(c_in, c_out, w_dim, up=up)
        self.noise_lr = noise_lr
        self.noise = nn.Parameter(torch.zeros(()))                         # B, one for all maps
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x = self.conv(x, w) + self.noise_lr * self.noise * noise
        return lrelu(x + self.bias[:, None, None])


class ToRGB(nn.Module):
    """1x1, modulated, not demodulated. [Fig. 7b]"""

    def __init__(self, c_in: int, channels: int, w_dim: int):
        super().__init__()
        self.conv = ModConv(c_in, channels, w_dim, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return self.conv(x, w) + self.bias[:, None, None]


class Generator(nn.Module):
    """z (n, z_dim) -> image (n, channels, size, size); its range is that of the data, [-1, 1], but
    nothing holds it there. Figs. 2d, 7b

    w_avg, the mean of w, is kept up by the training loop; the noise maps are those of all pictures
    that are asked for without noise of their own. Neither is trained. noise_lr is a factor of the
    learning rate of B, the strength of the noise; the paper's is 1.
    """

    def __init__(self, size: int = 1024, channels: int = 3, z_dim: int = 512, w_dim: int = 512,
                 fmap_base: int = 16384, fmap_max: int = 512, mapping_layers: int = 8,
                 config: str = "F", noise_lr: float = 1.0):
        super().__init__()
        if not mapping_layers:
            w_dim = z_dim                                           # w is the normalised z
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max, config) for s in sizes]  # 1024: 512 512 512 512 512 ...
        self.size, self.n_layers = size, n_layers(size)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        self.const = nn.Parameter(torch.randn(1, c[0], 4, 4))       # [App. B: N(0, 1)]
        self.convs = nn.ModuleList(                                 # of styles 0, 1, ...
            StyledConv(c[i // 2], c[(i + 1) // 2], w_dim, bool(i % 2), noise_lr)
            for i in range(self.n_layers - 1))
        self.to_rgb = nn.ModuleList(ToRGB(c_in, channels, w_dim)    # at 4x4, 8x8, ...
                                    for c_in in (c if config >= "E" else c[-1:]))
        self.up = Up()
        self.register_buffer("w_avg", torch.zeros(w_dim))
        for i, maps in enumerate(sample_noise(1, size)):
            self.register_buffer(f"noise{i}", maps)

    def fixed_noise(self) -> list[torch.Tensor]:
        """A map (1, 1, h, w) for each convolution. [authors' code: randomize_noise=False]"""
        return [getattr(self, f"noise{i}") for i in range(self.n_layers - 1)]

    def styles(self, w: torch.Tensor, w2: torch.Tensor | None = None, crossover: int = 0,
               psi: float = 1.0) -> torch.Tensor:
        """(n, n_layers, w_dim): w, from layer `crossover` on w2 [StyleGAN, Sec. 3.1]; where psi is
        not 1 w_avg + psi (w - w_avg) in all layers [StyleGAN, App. B; authors' code]."""
        layer = torch.arange(self.n_layers, device=w.device)[:, None]
        w = w[:, None].expand(-1, self.n_layers, -1)
        if w2 is not None:
            w = torch.where(layer < crossover, w, w2[:, None])
        if psi != 1:
            w = self.w_avg + psi * (w - self.w_avg)
        return w

    def parts(self, w: torch.Tensor, noise: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """styles(...) -> what each resolution adds to the picture, (n, channels, h, h) with h = 4,
        8, ... size; in rows B to D one part alone, the picture."""
        noise, parts = noise or self.fixed_noise(), []
        first = self.n_layers // 2 - len(self.to_rgb)               # shapes for 1024:
        x = self.const.expand(w.shape[0], -1, -1, -1)               # (n, 512,    4,    4)
        for i, conv in enumerate(self.convs):                       # (n, 512,    4,    4)
            x = conv(x, w[:, i], noise[i])                          # (n, 512,    8,    8), twice
            if i % 2 == 0 and i // 2 >= first:                      # ...
                to_rgb = self.to_rgb[i // 2 - first]                # (n,  64,  512,  512), twice
                parts.append(to_rgb(x, w[:, i + 1]))                # (n,  32, 1024, 1024), twice
        return parts

    def synthesis(self, w: torch.Tensor, noise: list[torch.Tensor] | None = None) -> torch.Tensor:
        """styles(...) -> image (n, channels, size, size): the sum of its parts. [Fig. 7b]"""
        image, *parts = self.parts(w, noise)
        for part in parts:
            image = self.up(image) + part
        return image

    def forward(self, z: torch.Tensor, z2: torch.Tensor | None = None, crossover: int = 0,
                noise: list[torch.Tensor] | None = None, psi: float = 1.0) -> torch.Tensor:
        w2 = self.mapping(z2) if z2 is not None else None
        return self.synthesis(self.styles(self.mapping(z), w2, crossover, psi), noise)


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


class Block(nn.Module):
    """Two convolutions, to half the height and width; `residual`: beside a 1x1 one. The root keeps
    the second moment of the sum. [Fig. 7c; Sec. 4.1]"""

    def __init__(self, c_in: int, c_out: int, residual: bool):
        super().__init__()
        self.conv = Conv(c_in, c_in)
        self.down = Conv(c_in, c_out, down=True)
        self.skip = Conv(c_in, c_out, 1, bias=False, down=True) if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = lrelu(self.down(lrelu(self.conv(x))))
        return h if self.skip is None else (h + self.skip(x)) / 2 ** 0.5


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> logits (n,). Fig. 7c"""

    def __init__(self, size: int = 1024, channels: int = 3, fmap_base: int = 16384,
                 fmap_max: int = 512, config: str = "F"):
        super().__init__()
        sizes = (4, *SIZES[:SIZES.index(size) + 1])
        c = [n_maps(s, fmap_base, fmap_max, config) for s in sizes]
        self.from_rgb = Conv(channels, c[-1], 1)
        self.blocks = nn.ModuleList(Block(c[i], c[i - 1], config >= "E")
                                    for i in reversed(range(1, len(c))))
        self.conv = Conv(c[0] + 1, c[0])
        self.dense = Linear(16 * c[0], c[0])
        self.logit = Linear(c[0], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = lrelu(self.from_rgb(x))                                 # shapes for 1024:
        for block in self.blocks:                                   # (n,  32, 1024, 1024)
            h = block(h)                                            # (n,  64,  512,  512) ...
        h = lrelu(self.conv(minibatch_stddev(h)))                   # (n, 512,    4,    4)
        h = lrelu(self.dense(h.flatten(1)))                         # (n, 512)
        return self.logit(h).squeeze(1)
