"""Networks of CycleGAN: Zhu, Park, Isola, Efros, ICCV 2017, arXiv 1703.10593.

Four of them: the generators G: X -> Y and F: Y -> X [App. 7.2, after Johnson et al.], and the
discriminators D_X and D_Y, which return a map of scores (n, 1, h, w), one for each patch of the
image, without a sigmoid, for the loss is least squares [Sec. 4].

Every normalisation is by the image's own statistics (instance normalisation), in training and
after it, and has no parameters [authors' code]. It makes the biases before it idle; they stay, for
the authors' counts: 11,378,179 parameters for G at 9 blocks and width 64, 2,764,737 for D. The
layers of Generator.net stand in the order of the authors' code, which sample.py --official needs.
Departure: the paper reflects images at all borders, this file at those of the 7x7 and the residual
layers alone, and pads the others with zeros, as the authors' code.
"""
import torch
from torch import nn


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02) weights [App. 7.1]; biases 0 [authors' code]."""
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(m.weight, 0.0, 0.02)
        nn.init.zeros_(m.bias)


def n_layers(size: int) -> int:
    """D's stride-2 layers: 3 for the paper's sizes, 2 from 32, 1 from 16 [ours].

    One score then looks at 70, 34 or 16 pixels each way.
    """
    if size < 16:
        raise ValueError(f"size {size}: looked for 16 or more")
    return 3 if size >= 128 else 2 if size >= 32 else 1


class Residual(nn.Module):
    """Rk: x + net(x), and no ReLU after the sum [authors' code]."""

    def __init__(self, c: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


class Generator(nn.Module):
    """Image (n, c_in, h, w) -> (n, c_out, h, w) in [-1, 1]; h and w: multiples of 4, 8 or more.

    The paper takes 9 blocks for images of 256 and more, 6 for those of 128. [App. 7.2]
    """

    def __init__(self, c_in: int = 3, c_out: int = 3, width: int = 64, n_blocks: int = 9):
        super().__init__()
        c, norm, relu = width, nn.InstanceNorm2d, nn.ReLU           # shapes for size 256, width 64:
        self.net = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(c_in, c, 7), norm(c), relu(),                 # (n,  64, 256, 256)  c7s1-64
            nn.Conv2d(c, 2 * c, 3, 2, 1), norm(2 * c), relu(),      # (n, 128, 128, 128)  d128
            nn.Conv2d(2 * c, 4 * c, 3, 2, 1), norm(4 * c), relu(),  # (n, 256,  64,  64)  d256
            *(Residual(4 * c) for _ in range(n_blocks)),            # (n, 256,  64,  64)  R256, ...
            nn.ConvTranspose2d(4 * c, 2 * c, 3, 2, 1, output_padding=1),
            norm(2 * c), relu(),                                    # (n, 128, 128, 128)  u128
            nn.ConvTranspose2d(2 * c, c, 3, 2, 1, output_padding=1),
            norm(c), relu(),                                        # (n,  64, 256, 256)  u64
            nn.ReflectionPad2d(3),
            nn.Conv2d(c, c_out, 7), nn.Tanh())                      # (n,   3, 256, 256)  c7s1-3
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> scores of its patches (n, 1, h, w)."""

    def __init__(self, size: int = 256, channels: int = 3, width: int = 64):
        super().__init__()
        k = n_layers(size)
        layers: list[nn.Module] = [                                 # shapes for size 256, width 64:
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]  # (n,  64, 128, 128)  C64
        for i in range(k):                                          # (n, 128,  64,  64)  C128
            c, stride = width << i, 2 if i < k - 1 else 1           # (n, 256,  32,  32)  C256
            layers += [nn.Conv2d(c, 2 * c, 4, stride, 1),           # (n, 512,  31,  31)  C512
                       nn.InstanceNorm2d(2 * c), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(width << k, 1, 4, 1, 1)]               # (n,   1,  30,  30)
        self.net = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)
