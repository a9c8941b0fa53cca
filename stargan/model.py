"""Networks of StarGAN: Choi, Choi, Kim, Ha, Kim, Choo, CVPR 2018, arXiv 1711.09020.

One generator for all domains: G(x, c) sees the label c as maps beside the image. The discriminator
has two heads on one trunk: scores (n, 1, h, w) of patches, without a sigmoid, for the loss is
Wasserstein's [Eq. 8], and logits (n, n_labels) of the domains. Layers: App. 7.2, Tables 4 and 5.

All borders are padded with zeros. Reflected, a label map would stay constant after a convolution,
and the normalisation, of each image by its own statistics, would take it away: G learns what it is
asked from the borders [authors' code]. The statistics are the image's after training, too, never
averages of the training images. Weights are as torch draws them [authors' code].
G.net stands in the order of the authors' code, which sample.py --official needs. With 5 labels at
128x128: 8,430,528 parameters for G, 44,762,048 for D.
"""
from collections.abc import Iterator, Sequence

import torch
from torch import nn


def n_layers(size: int) -> int:
    """D's stride-2 layers: the paper's 6 from 128 on; below, what leaves a map of 2x2 [ours]."""
    if size < 16 or size != 2 ** (size.bit_length() - 1):
        raise ValueError(f"size {size}: looked for 16, 32, 64, 128, 256, ...")
    return min(6, size.bit_length() - 2)


class Residual(nn.Module):
    """x + net(x), and no ReLU after the sum."""

    def __init__(self, c: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.InstanceNorm2d(c, affine=True), nn.ReLU(),
            nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.InstanceNorm2d(c, affine=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


class Generator(nn.Module):
    """Image (n, channels, h, w), label (n, n_labels) -> image in [-1, 1]; h, w: 8, 12, 16, ..."""

    def __init__(self, n_labels: int = 5, channels: int = 3, width: int = 64, n_blocks: int = 6):
        super().__init__()
        c = width

        def norm(c: int) -> list[nn.Module]:
            return [nn.InstanceNorm2d(c, affine=True), nn.ReLU()]

        self.net = nn.Sequential(                                   # shapes for size 128, width 64:
            nn.Conv2d(channels + n_labels, c, 7, 1, 3, bias=False), *norm(c),  # (n,  64, 128, 128)
            nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), *norm(2 * c),            # (n, 128,  64,  64)
            nn.Conv2d(2 * c, 4 * c, 4, 2, 1, bias=False), *norm(4 * c),        # (n, 256,  32,  32)
            *(Residual(4 * c) for _ in range(n_blocks)),                       # (n, 256,  32,  32)
            nn.ConvTranspose2d(4 * c, 2 * c, 4, 2, 1, bias=False), *norm(2 * c),  # (n, 128, 64, 64)
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1, bias=False), *norm(c),       # (n,  64, 128, 128)
            nn.Conv2d(c, channels, 7, 1, 3, bias=False), nn.Tanh())            # (n,   3, 128, 128)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        maps = c[:, :, None, None].expand(-1, -1, *x.shape[2:])  # a label is the same everywhere
        return self.net(torch.cat([x, maps], 1))


class Discriminator(nn.Module):
    """Image (n, channels, size, size) -> D_src (n, 1, h, w) and D_cls (n, n_labels)."""

    def __init__(self, n_labels: int = 5, size: int = 128, channels: int = 3, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []                                # shapes for size 128, width 64:
        c_in, c = channels, width                                   # (n,   64, 64, 64)
        for _ in range(n_layers(size)):                             # (n,  128, 32, 32)
            layers += [nn.Conv2d(c_in, c, 4, 2, 1),                 # (n,  256, 16, 16)
                       nn.LeakyReLU(0.01)]                          # (n,  512,  8,  8)
            c_in, c = c, 2 * c                                      # (n, 1024,  4,  4)
        self.net = nn.Sequential(*layers)                           # (n, 2048,  2,  2)
        side = size >> n_layers(size)
        self.src = nn.Conv2d(c_in, 1, 3, 1, 1, bias=False)          # (n,    1,  2,  2)
        self.cls = nn.Conv2d(c_in, n_labels, side, bias=False)      # (n,    5,  1,  1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.net(x)
        return self.src(h), self.cls(h).flatten(1)


# Labels. domains: of each data set its groups of names; those of a group exclude each other, as
# colours of hair or classes do. A label vector has a place for each name, in this order.

def join(c: torch.Tensor, k: int, sizes: Sequence[int]) -> torch.Tensor:
    """Eq. 7: [c_1, ..., c_n, m] for images of data set k, of which c (n, sizes[k]) alone is known;
    m says which one that is. A single set needs no m."""
    if len(sizes) == 1:
        return c
    parts = [c.new_zeros(len(c), size) for size in (*sizes, len(sizes))]
    parts[k], parts[-1][:, k] = c, 1
    return torch.cat(parts, 1)


def groups(domains: list[list[list[str]]]) -> Iterator[tuple[int, int, list[str]]]:
    """Of each group: its data set, the place of its first name in a label, its names."""
    at = 0
    for k, of_set in enumerate(domains):
        for names in of_set:
            yield k, at, names
            at += len(names)


def change(c: torch.Tensor, domains: list, place: int, value: int | None = None) -> torch.Tensor:
    """Labels (n, n_labels) to translate to: c, but the name at `place` becomes value, 0 or 1.
    Without a value it is set if it has alternatives, which are cleared, else flipped. [authors'
    code, for its tests]"""
    k, at, names = [group for group in groups(domains) if group[1] <= place][-1]
    c = c.clone()
    if len(domains) > 1:  # of images of another set nothing is known of these names
        blank = torch.zeros_like(c)
        mask = c.shape[1] - len(domains) + k
        blank[:, mask] = 1
        c = torch.where(c[:, mask, None] > 0, c, blank)
    if value is None:
        value = 1 if len(names) > 1 else 1 - c[:, place]
    elif not value:
        c[:, place] = 0
        return c
    c[:, at:at + len(names)] = 0
    c[:, place] = value
    return c
