"""Networks of InfoGAN: Chen et al., NIPS 2016, arXiv 1606.03657. App. C.

D and Q are one network with two ends: D returns (logits (n,), q (n, n_out)). q holds, code by code,
what Q says of c: k logits of each categorical code, then the means of the continuous ones, then the
logarithms of their variances. Size 28 is Table 1, MNIST (width 64: 6,652,481 parameters in G,
6,692,431 in D and Q); size 32 is Tables 2 and 3, SVHN and CelebA [from memory].
In Table 1 D and Q share all but the last layers, in Tables 2 and 3 the convolutions.
The slope of LeakyReLU is 0.1 [Table 1]; the authors' code has 0.01.
Departure: tanh and [-1, 1] for MNIST too, where the paper has a sigmoid and [0, 1].
"""
import torch
from torch import nn


def init_weights(m: nn.Module) -> None:
    """N(0, 0.02) weights, cut at 2 deviations in convolutions, biases 0; batch-norm gains N(1,
    0.02) [authors' code]."""
    if isinstance(m, nn.Conv2d):
        nn.init.trunc_normal_(m.weight, 0.0, 0.02, -0.04, 0.04)
    elif isinstance(m, (nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(m.weight, 1.0, 0.02)
    if getattr(m, "bias", None) is not None:
        nn.init.zeros_(m.bias)


def up(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, 2h, 2w)."""
    return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)


def down(c_in: int, c_out: int) -> nn.Module:
    """(n, c_in, h, w) -> (n, c_out, h/2, w/2)."""
    return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)


def check(size: int) -> None:
    """ValueError unless the paper has networks of this size."""
    if size not in (28, 32):
        raise ValueError(f"size {size}: the networks are for 28 [Table 1] or 32 [Tables 2, 3]")


class Generator(nn.Module):
    """Noise z (n, z_dim) and codes c (n, n_in - z_dim) -> image (n, channels, size, size)."""

    def __init__(self, size: int = 28, channels: int = 1, n_in: int = 74, width: int = 64):
        super().__init__()
        check(size)
        w = width
        if size == 28:
            layers = [nn.Linear(n_in, 16 * w),                  # shapes for width 64:
                      nn.BatchNorm1d(16 * w), nn.ReLU(),        # (n, 1024)
                      nn.Linear(16 * w, 2 * w * 7 * 7),
                      nn.BatchNorm1d(2 * w * 7 * 7), nn.ReLU(),  # by unit [authors' code]
                      nn.Unflatten(1, (2 * w, 7, 7)),           # (n,  128,  7,  7)
                      up(2 * w, w), nn.BatchNorm2d(w), nn.ReLU(),  # (n, 64, 14, 14)
                      up(w, channels)]                          # (n,    1, 28, 28)
        else:
            layers = [nn.Linear(n_in, 7 * w * 2 * 2),
                      nn.BatchNorm1d(7 * w * 2 * 2), nn.ReLU(),
                      nn.Unflatten(1, (7 * w, 2, 2)),           # (n,  448,  2,  2)
                      up(7 * w, 4 * w), nn.BatchNorm2d(4 * w), nn.ReLU(),  # (n, 256, 4, 4)
                      up(4 * w, 2 * w), nn.ReLU(),              # (n,  128,  8,  8)
                      up(2 * w, w), nn.ReLU(),                  # (n,   64, 16, 16)
                      up(w, channels)]                          # (n,    3, 32, 32)
        self.net = nn.Sequential(*layers, nn.Tanh())
        self.apply(init_weights)

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([z, c], 1))


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> D's logits (n,), Q's q (n, n_out)."""

    def __init__(self, size: int = 28, channels: int = 1, n_out: int = 14, width: int = 64):
        super().__init__()
        check(size)
        w, act = width, nn.LeakyReLU(0.1)
        trunk = [down(channels, w), act,                        # (n,   64, 14, 14)
                 down(w, 2 * w), nn.BatchNorm2d(2 * w), act]    # (n,  128,  7,  7)
        if size == 28:
            n = 16 * w
            trunk += [nn.Flatten(), nn.Linear(2 * w * 7 * 7, n), nn.BatchNorm1d(n), act]
        else:
            n = 4 * w * 4 * 4
            trunk += [down(2 * w, 4 * w), nn.BatchNorm2d(4 * w), act, nn.Flatten()]
        self.trunk = nn.Sequential(*trunk)                      # (n, 1024)
        self.D = nn.Linear(n, 1)
        self.Q = nn.Sequential(nn.Linear(n, 2 * w), nn.BatchNorm1d(2 * w), act,
                               nn.Linear(2 * w, n_out))         # (n, 14): 10 logits, 2 + 2
        self.apply(init_weights)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.trunk(x)
        return self.D(h).squeeze(1), self.Q(h)
