"""Networks of the GAN paper: Goodfellow et al., NIPS 2014, arXiv 1406.2661.

The paper names the activations (a mix of ReLU and sigmoid in G, maxout in D, dropout in D); the
layer sizes are those of the authors' MNIST network: 2,503,984 and 1,231,441 parameters.

D returns logits, (n,): the sigmoid is in the loss. Images are in [-1, 1] as everywhere in this
collection; the paper's lie in [0, 1], so G's last line and D's first convert.
"""
import torch
from torch import nn


def init_uniform(net: nn.Module, a: float) -> None:
    """Weights U(-a, a), biases 0. [authors' code]"""
    for m in net.modules():
        if isinstance(m, nn.Linear):
            nn.init.uniform_(m.weight, -a, a)
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
    """z (n, z_dim) -> image (n, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 28, channels: int = 1, z_dim: int = 100, width: int = 1200):
        super().__init__()
        pixels = channels * size * size
        self.net = nn.Sequential(                       # shapes for MNIST:
            nn.Linear(z_dim, width), nn.ReLU(),         # (n, 1200)
            nn.Linear(width, width), nn.ReLU(),         # (n, 1200)
            nn.Linear(width, pixels), nn.Sigmoid(),     # (n,  784)
            nn.Unflatten(1, (channels, size, size)))    # (n, 1, 28, 28)
        init_uniform(self, 0.05)                        # [authors' code]

    @torch.no_grad()
    def init_output_bias(self, mean: torch.Tensor) -> None:
        """Starts G at the data's mean image (channels, size, size) in [-1, 1]. [authors' code]"""
        self.net[4].bias.copy_(torch.logit((mean + 1) / 2, eps=1e-7).flatten())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z) * 2 - 1


class Discriminator(nn.Module):
    """Image (n, channels, size, size) in [-1, 1] -> logits (n,).

    With dropout [Sec. 5], at rates of the authors' code, in D's updates and in G's.
    """

    def __init__(self, size: int = 28, channels: int = 1, units: int = 240, pieces: int = 5):
        super().__init__()
        pixels = channels * size * size
        self.net = nn.Sequential(                               # shapes for MNIST:
            nn.Flatten(), nn.Dropout(0.2),                      # (n, 784)
            Maxout(pixels, units, pieces), nn.Dropout(0.5),     # (n, 240)
            Maxout(units, units, pieces), nn.Dropout(0.5),      # (n, 240)
            nn.Linear(units, 1))                                # (n,   1)
        init_uniform(self, 0.005)                               # [authors' code]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x + 1) / 2).squeeze(1)
