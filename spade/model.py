"""Networks of SPADE: Park, Liu, Wang, Zhu, CVPR 2019, arXiv 1903.07291.

G makes an image of a label map, given as m, one channel a class (`semantics`), and, where there is
an encoder, of its z. D judges patches at two scales: it returns, for each, the maps of all layers,
of which the last, (n, 1, h', w'), are logits. With 151 channels at size 256 the paper's have
96,492,483 and 5,836,930 parameters.

Layers of G are called as in the authors' code, whose checkpoints so load as they are. Spectral norm
is torch's, in the form that has their names. Departure: it is where the authors' code has it, on
the blocks' convolutions and the inner ones of D, while the paper says all [App. A].
"""
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

SIZES = (32, 64, 128, 256, 512)


def n_maps(n_classes: int, unknown: int, has_edges: bool) -> int:
    """Channels of `semantics`."""
    return n_classes + (unknown >= 0) + has_edges


def semantics(y: torch.Tensor, n_classes: int, unknown: int = -1,
              instances: torch.Tensor | None = None) -> torch.Tensor:
    """m (n, c, h, w) of 0 and 1: of a label map y (n, h, w) a channel for each class; for the id
    `unknown`, if it is not negative, one more; and, of instance ids (n, h, w), their edges."""
    n, h, w = y.shape
    m = torch.zeros(n, n_maps(n_classes, unknown, False), h, w, device=y.device)
    m.scatter_(1, torch.where(y == unknown, n_classes, y)[:, None], 1.0)
    return m if instances is None else torch.cat([m, edges(instances).to(m.dtype)], 1)


def edges(instances: torch.Tensor) -> torch.Tensor:
    """(n, h, w) -> bool (n, 1, h, w): where one of four neighbours has another id."""
    edge = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[:, :, 1:] != instances[:, :, :-1]
    down = instances[:, 1:] != instances[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge[:, None]


def init_weights(m: nn.Module) -> None:
    """Glorot's [App. A], with a gain of 0.02, and biases 0 [authors' code]. Departure: layers with
    spectral norm stay as torch makes them, as they do in the authors' code on a GPU."""
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        if not hasattr(m, "weight_orig"):
            nn.init.xavier_normal_(m.weight, 0.02)
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def conv3(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h, w)."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def lrelu(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, 0.2)


def up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2)  # nearest


class OverProcesses(torch.autograd.Function):
    """The mean of a tensor over all processes; of its gradients, too, as it is its own adjoint."""

    @staticmethod
    def forward(ctx, t: torch.Tensor) -> torch.Tensor:
        total = t.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return OverProcesses.forward(ctx, grad)


class BatchNorm(nn.BatchNorm2d):
    """Without gain and bias. Where several processes train, its statistics are those of the whole
    batch, in equal parts in all of them. [Sec. 4: synchronized]"""

    def __init__(self, c: int):
        super().__init__(c, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super().forward(x)
        n = x.numel() // x.shape[1] * dist.get_world_size()
        mean = OverProcesses.apply(x.mean((0, 2, 3)))
        x = x - mean[:, None, None]
        var = OverProcesses.apply(x.square().mean((0, 2, 3)))
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        return x * (var + self.eps).rsqrt()[:, None, None]


class SPADE(nn.Module):
    """x (n, c, h, w), m (n, n_maps, h, w) -> (n, c, h, w). [Sec. 3, Eq. 1, Fig. 2]

    norm(x) (1 + gamma(m)) + beta(m), each pixel with its own gamma and beta.
    Departure: the paper has gamma alone, the authors' code 1 + gamma.
    """

    def __init__(self, c: int, n_maps: int, hidden: int = 128):
        super().__init__()
        self.param_free_norm = BatchNorm(c)
        self.mlp_shared = nn.Sequential(conv3(n_maps, hidden), nn.ReLU())
        self.mlp_gamma = conv3(hidden, c)
        self.mlp_beta = conv3(hidden, c)

    def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        h = self.mlp_shared(m)
        return self.param_free_norm(x) * (1 + self.mlp_gamma(h)) + self.mlp_beta(h)


class Block(nn.Module):
    """SPADE ResBlk: (n, c_in, h, w), m of any size -> (n, c_out, h, w). [Fig. 4]"""

    def __init__(self, c_in: int, c_out: int, n_maps: int, hidden: int):
        super().__init__()
        c = min(c_in, c_out)
        self.conv_0 = spectral_norm(conv3(c_in, c))
        self.conv_1 = spectral_norm(conv3(c, c_out))
        self.norm_0, self.norm_1 = SPADE(c_in, n_maps, hidden), SPADE(c, n_maps, hidden)
        self.learned_shortcut = c_in != c_out
        if self.learned_shortcut:
            self.conv_s = spectral_norm(nn.Conv2d(c_in, c_out, 1, bias=False))
            self.norm_s = SPADE(c_in, n_maps, hidden)

    def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        m = F.interpolate(m, x.shape[2:])  # nearest: there is nothing between two classes
        y = self.conv_0(lrelu(self.norm_0(x, m)))
        y = self.conv_1(lrelu(self.norm_1(y, m)))
        return y + (self.conv_s(self.norm_s(x, m)) if self.learned_shortcut else x)


class Generator(nn.Module):
    """m (n, n_maps, h, w) [, z (n, z_dim)] -> x (n, c_out, h, w) in [-1, 1]. [App. A, Figs. 4, 11]

    size doubles from size / 32 on; at 32 once less, at 512 once more, as the authors' code does for
    Cityscapes. Without z (z_dim 0) it starts from m itself, and h and w may be any multiples of 32.
    hidden: channels between m and all gammas and betas.
    """

    def __init__(self, n_maps: int = 151, size: int = 256, c_out: int = 3, width: int = 64,
                 hidden: int = 128, z_dim: int = 0):
        super().__init__()
        self.n_up, c, args = {32: 4, 512: 6}.get(size, 5), width, (n_maps, hidden)
        start = size >> self.n_up                               # shapes for size 256, width 64:
        self.fc = (nn.Linear(z_dim, 16 * c * start ** 2) if z_dim   # (n, 1024,   8,   8)
                   else conv3(n_maps, 16 * c))
        self.head_0 = Block(16 * c, 16 * c, *args)              # (n, 1024,   8,   8)
        self.G_middle_0 = Block(16 * c, 16 * c, *args)          # (n, 1024,  16,  16)
        self.G_middle_1 = Block(16 * c, 16 * c, *args)          # (n, 1024,  16,  16)
        self.up_0 = Block(16 * c, 8 * c, *args)                 # (n,  512,  32,  32)
        self.up_1 = Block(8 * c, 4 * c, *args)                  # (n,  256,  64,  64)
        self.up_2 = Block(4 * c, 2 * c, *args)                  # (n,  128, 128, 128)
        self.up_3 = Block(2 * c, c, *args)                      # (n,   64, 256, 256)
        self.conv_img = conv3(c, c_out)                         # (n,    3, 256, 256)
        self.apply(init_weights)

    def forward(self, m: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        h, w = (side >> self.n_up for side in m.shape[2:])
        x = self.fc(F.interpolate(m, (h, w))) if z is None else self.fc(z).view(len(z), -1, h, w)
        x = self.head_0(x, m)
        x = self.G_middle_0(up(x) if self.n_up > 4 else x, m)
        x = self.G_middle_1(up(x) if self.n_up > 5 else x, m)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(up(x), m)
        return torch.tanh(self.conv_img(lrelu(x)))


class Patches(nn.Module):
    """A PatchGAN of one scale: (n, c_in, h, w) -> the maps of its layers, the logits last.

    n_layers convolutions before the logits, all but the last of stride 2. [App. A, Fig. 13]
    """

    def __init__(self, c_in: int, width: int = 64, n_layers: int = 4):
        super().__init__()
        c = [width * min(2 ** i, 8) for i in range(n_layers)]   # shapes for size 256, width 64:
        self.layers = nn.ModuleList([nn.Sequential(
            nn.Conv2d(c_in, c[0], 4, 2, 2), nn.LeakyReLU(0.2))])        # (n,  64, 129, 129)
        for i in range(1, n_layers):                                    # (n, 128,  65,  65)
            stride = 2 if i < n_layers - 1 else 1                       # (n, 256,  33,  33)
            self.layers.append(nn.Sequential(                           # (n, 512,  34,  34)
                spectral_norm(nn.Conv2d(c[i - 1], c[i], 4, stride, 2, bias=False)),
                nn.InstanceNorm2d(c[i]), nn.LeakyReLU(0.2)))
        self.layers.append(nn.Conv2d(c[-1], 1, 4, 1, 2))                # (n,   1,  35,  35)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class Discriminator(nn.Module):
    """m (n, n_maps, h, w), x (n, c, h, w) -> for each of two scales the maps of all layers."""

    def __init__(self, n_maps: int = 151, c: int = 3, width: int = 64, n_layers: int = 4):
        super().__init__()
        self.scales = nn.ModuleList(Patches(n_maps + c, width, n_layers) for _ in range(2))
        self.apply(init_weights)

    def forward(self, m: torch.Tensor, x: torch.Tensor) -> list[list[torch.Tensor]]:
        x = torch.cat([m, x], 1)
        half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return [net(part) for net, part in zip(self.scales, (x, half), strict=True)]


class Encoder(nn.Module):
    """x (n, c, size, size) -> mu, log sigma^2 of z, (n, z_dim) both. [App. A, Fig. 14]

    Departure: as many halvings as lead to 4x4, where the authors' code shrinks any picture to 256.
    """

    def __init__(self, size: int = 256, c_in: int = 3, width: int = 64, z_dim: int = 256):
        super().__init__()
        layers: list[nn.Module] = []
        self.size = min(size, 256)
        for i in range(self.size.bit_length() - 3):             # shapes for size 256, width 64:
            c = width * min(2 ** i, 8)                          # (n,  64, 128, 128)
            layers += [nn.LeakyReLU(0.2)] * (i > 0) + [         # (n, 128,  64,  64)
                spectral_norm(nn.Conv2d(c_in, c, 3, 2, 1, bias=False)),
                nn.InstanceNorm2d(c)]                           # (n, 256,  32,  32)
            c_in = c                                            # (n, 512,  16,  16) ... (4, 4)
        self.net = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Flatten())
        self.fc_mu, self.fc_var = nn.Linear(16 * c_in, z_dim), nn.Linear(16 * c_in, z_dim)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if x.shape[-1] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear")
        h = self.net(x)
        return self.fc_mu(h), self.fc_var(h)


class VGG19(nn.Module):
    """(n, 3, h, w) -> relu1_1, relu2_1, relu3_1, relu4_1, relu5_1. Named as torchvision's."""

    TAPS = (1, 6, 11, 20, 29)

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        c_in = 3
        for c in (64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, 512):
            layers += [nn.Conv2d(c_in, c, 3, padding=1), nn.ReLU()] if c else [nn.MaxPool2d(2)]
            c_in = c or c_in
        self.features = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        taps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.TAPS:
                taps.append(x)
        return taps
