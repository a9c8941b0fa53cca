"""Networks of conditional GANs: Mirza, Osindero, 2014, arXiv 1411.1784. For MNIST [Sec. 4.1].

Both networks read the class y as a one-hot vector, through a layer of its own: 2,413,984 and
1,224,351 parameters with the paper's sizes. The paper says neither how the weights begin nor where
its dropout is. Here they begin as in the GAN paper's code [GAN code], but for the layers of y; and
dropout is on all hidden units of both networks [ours].

D returns logits, (n,): the sigmoid is in the loss. Images are in [-1, 1] as everywhere in this
collection; the paper's lie in [0, 1], so G's last line and D's first convert.
"""
import torch
import torch.nn.functional as F
from torch import nn


def init_uniform(net: nn.Module, a: float) -> None:
    """Weights U(-a, a) [GAN code], of y's layer U(-1, 1) [ours]; biases 0.

    A class is one input that is on, an image 784. In the GAN code's range y hardly counts: D tells
    real from fake by x alone and wins before it learns which pictures belong to which class.
    """
    of_y = set(net.of_y.modules())
    for m in net.modules():
        if isinstance(m, nn.Linear):
            limit = 1.0 if m in of_y else a
            nn.init.uniform_(m.weight, -limit, limit)
            nn.init.zeros_(m.bias)


class Maxout(nn.Module):
    """(n, d_in) -> (n, units): each unit is the largest of its own `pieces` linear maps."""

    def __init__(self, d_in: int, units: int, pieces: int):
        super().__init__()
        self.linear = nn.Linear(d_in, units * pieces)
        self.units, self.pieces = units, pieces

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).unflatten(1, (self.units, self.pieces)).amax(2)


class Generator(nn.Module):
    """z (n, z_dim), classes y int64 (n,) -> image (n, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 28, channels: int = 1, n_classes: int = 10, z_dim: int = 100,
                 width: int = 1200, dropout: float = 0.5):
        super().__init__()
        pixels = channels * size * size
        self.n_classes = n_classes                                      # shapes for MNIST:
        self.of_z = nn.Sequential(nn.Linear(z_dim, 200), nn.ReLU())     # (n,  200)
        self.of_y = nn.Sequential(nn.Linear(n_classes, 1000), nn.ReLU())  # (n, 1000)
        self.net = nn.Sequential(
            nn.Dropout(dropout),                                        # (n, 1200)
            nn.Linear(1200, width), nn.ReLU(), nn.Dropout(dropout),     # (n, 1200)
            nn.Linear(width, pixels), nn.Sigmoid(),                     # (n,  784)
            nn.Unflatten(1, (channels, size, size)))                    # (n, 1, 28, 28)
        init_uniform(self, 0.05)                                        # [GAN code]

    @torch.no_grad()
    def init_output_bias(self, mean: torch.Tensor) -> None:
        """Starts G at the data's mean image (channels, size, size) in [-1, 1]. [GAN code]"""
        self.net[4].bias.copy_(torch.logit((mean + 1) / 2, eps=1e-7).flatten())

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = F.one_hot(y, self.n_classes).to(z.dtype)
        return self.net(torch.cat([self.of_z(z), self.of_y(y)], 1)) * 2 - 1


class Discriminator(nn.Module):
    """Image (n, channels, size, size) in [-1, 1], classes y int64 (n,) -> logits (n,)."""

    def __init__(self, size: int = 28, channels: int = 1, n_classes: int = 10, units: int = 240,
                 dropout: float = 0.5):
        super().__init__()
        self.n_classes = n_classes                                      # shapes for MNIST:
        self.of_x = nn.Sequential(
            nn.Flatten(), Maxout(channels * size * size, units, 5))     # (n, 240)
        self.of_y = Maxout(n_classes, 50, 5)                            # (n,  50)
        self.net = nn.Sequential(
            nn.Dropout(dropout),                                        # (n, 290)
            Maxout(units + 50, units, 4), nn.Dropout(dropout),          # (n, 240)
            nn.Linear(units, 1))                                        # (n,   1)
        init_uniform(self, 0.005)                                       # [GAN code]

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = F.one_hot(y, self.n_classes).to(x.dtype)
        return self.net(torch.cat([self.of_x((x + 1) / 2), self.of_y(y)], 1)).squeeze(1)
