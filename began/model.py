"""Networks of BEGAN: Berthelot, Schumm, Metz, arXiv 1703.10717. Fig. 1 (all from memory).

D is an auto-encoder: it returns an image D(x), like x. G has the form of its decoder. 3x3
convolutions and ELU throughout; no normalisation, no transposed convolutions; the code and both
outputs are linear. There are log2(size) - 2 blocks of two convolutions, 4 at 64 px. The encoder's
widths grow linearly, n, 2n, 3n, ..., each time in the convolution of stride 2: with 64 px and
n = 128 both networks together then have 17,334,214 parameters, the "17.3e6" of the paper. It gives
that number for 128 px, where no reading of its text that was tried comes to it.
Two refinements are optional [Sec. 3.5, from memory]: with skip, every block after the first sees
h_0, the 8x8 tensor, enlarged to its size, beside its input; carry, which falls from 1 to 0, mixes
the output of each layer that keeps its shape with its input.
"""
import torch
import torch.nn.functional as F
from torch import nn


def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h / stride, w / stride)."""
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1)


def init_weights(m: nn.Module) -> None:
    """Xavier's uniform weights, biases 0. [carpedm20's code]"""
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)


def elu(layer: nn.Module, x: torch.Tensor, carry: float) -> torch.Tensor:
    """ELU(layer(x)); where that has x's shape, carry x + (1 - carry) ELU(layer(x)). [Sec. 3.5]"""
    y = F.elu(layer(x))
    return torch.lerp(y, x, carry) if carry and y.shape == x.shape else y


def n_blocks(size: int) -> int:
    """log2(size) - 2; ValueError unless size is 16, 32, 64, ..."""
    k = size.bit_length() - 3
    if size < 16 or size != 4 << k:
        raise ValueError(f"size {size}: BEGAN doubles 8x8, so it takes 16, 32, 64, 128, ...")
    return k


class Generator(nn.Module):
    """z or code (n, z_dim) -> image (n, channels, size, size), unbounded. D's decoder is one."""

    def __init__(self, size: int = 64, channels: int = 3, z_dim: int = 64, width: int = 128,
                 skip: bool = False):
        super().__init__()
        n, self.skip = width, skip                              # shapes for size 64, width 128:
        self.project = nn.Linear(z_dim, n * 8 * 8)              # h_0 (n, 128,  8,  8)
        self.blocks = nn.ModuleList(                            # (n, 128,  8,  8)
            nn.ModuleList([conv(2 * n if skip and i else n, n),  # (n, 128, 16, 16)
                           conv(n, n)])                         # (n, 128, 32, 32)
            for i in range(n_blocks(size)))                     # (n, 128, 64, 64)
        self.image = conv(n, channels)                          # (n,   3, 64, 64)
        self.apply(init_weights)

    def forward(self, z: torch.Tensor, carry: float = 0.0) -> torch.Tensor:
        x = h_0 = self.project(z).unflatten(1, (-1, 8, 8))
        for i, block in enumerate(self.blocks):
            if i:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                if self.skip:
                    x = torch.cat([x, F.interpolate(h_0, x.shape[2:], mode="nearest")], 1)
            for layer in block:
                x = elu(layer, x, carry)
        return self.image(x)


class Discriminator(nn.Module):
    """Image x (n, channels, size, size) -> its reconstruction D(x), of the same shape."""

    def __init__(self, size: int = 64, channels: int = 3, z_dim: int = 64, width: int = 128,
                 skip: bool = False):
        super().__init__()
        n, k = width, n_blocks(size)
        layers = [conv(channels, n)]                            # (n, 128, 64, 64)
        for i in range(1, k + 1):
            layers += [conv(i * n, i * n), conv(i * n, i * n)]  # (n, 256, 32, 32)
            if i < k:                                           # (n, 384, 16, 16)
                layers += [conv(i * n, (i + 1) * n, stride=2)]  # (n, 512,  8,  8)
        self.encoder = nn.ModuleList(layers)
        self.code = nn.Linear(k * n * 8 * 8, z_dim)             # (n, 64)
        self.apply(init_weights)
        self.decoder = Generator(size, channels, z_dim, width, skip)

    def forward(self, x: torch.Tensor, carry: float = 0.0) -> torch.Tensor:
        for layer in self.encoder:
            x = elu(layer, x, carry)
        return self.decoder(self.code(x.flatten(1)), carry)
