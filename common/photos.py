"""Photographs to be translated: one by one, of any size."""
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from common import fail, say
from common.folders import images_below, look_at
from common.images import image_size, read_image
from common.stream import free_bytes


def read_photos(source: Path, out: Path, channels: int, side: int | None = None,
                bytes_per_pixel: int = 0) -> Iterator[tuple[Path, torch.Tensor]]:
    """Of the image `source`, or of all in and below that folder, one by one: the place below `out`
    for what is made of it, under its own name, and the picture, float (1, channels, h, w) in
    [-1, 1]. With `side` it is resized first, the shorter side to that many pixels.

    What cannot be read is left out and named at the end, and so is what would take more memory
    than is free, by `bytes_per_pixel`; if nothing is left, the program ends.
    """
    folder, made = source if source.is_dir() else source.parent, out.resolve()
    files = images_below(source) if source.is_dir() else [source] * source.exists()
    if folder.resolve() in made.parents:  # what was made before is no input
        files = [file for file in files if made not in file.resolve().parents]
    if not files:
        fail(f"--input {source.absolute()}: looked for an image, or a folder of images, and saw "
             "none")
    originals = {file.resolve() for file in files}
    if any((made / file.relative_to(folder)).resolve() in originals for file in files):
        fail(f"--out {out}: images of --input would be overwritten there: name another folder")
    bad, (_, white) = [], look_at(files)
    for file in files:
        try:
            h, w = image_size(file)
            needed = bytes_per_pixel * h * w * (side / min(h, w) if side else 1) ** 2
            if needed > free_bytes(torch.device("cpu")):
                raise ValueError(f"{w}x{h} pixels would take about {needed / 2**30:,.0f} GiB of "
                                 "memory: --side makes them fewer")
            x = read_image(file, None, channels, white)[None] / 127.5 - 1
        except (OSError, ValueError) as e:
            bad.append(f"{file} ({getattr(e, 'strerror', None) or e})")
            continue
        if side:
            size = [max(1, round(s * side / min(x.shape[2:]))) for s in x.shape[2:]]
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
        yield out / file.relative_to(folder), x
    if len(bad) == len(files):
        fail(f"{source}: none of {len(files):,} images could be used: {', '.join(bad)}")
    say(f"wrote {len(files) - len(bad):,} of {len(files):,} to {out}")
    for line in bad:
        say(f"left out: {line}")
