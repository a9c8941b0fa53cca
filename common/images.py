"""Image files: read any of them right, write grids, films and curves.

Tensors of images are float (n, c, h, w) in [-1, 1], c = 1 or 3. A file always gets that fixed
range, never one stretched to its content, so that two grids of a run can be compared. All files
are written beside their final name and moved there: a kill leaves the old file or the new one.
"""
import csv
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

# Of odd files that are read all the same: half an EXIF block, many pixels. By module, for the
# context manager of `warnings` is not made for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# What is read, by content and by suffix. Of all formats, Pillow starts Ghostscript for one
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm",
              ".pgm", ".pbm", ".pnm")
PAGED = (".tif", ".tiff", ".gif")  # may hold several pictures, of which the first is read

MIN_SIDE = 4      # pixels; below this a "picture" is an icon, a tracking pixel or a mistake
MAX_FRAMES = 60   # of a GIF: about 5 MB of 8 x 8 faces at 64 px
MAX_POINTS = 1000 # of a curve: about the columns of its panel

_BITS = np.arange(256)[:, None, None] >> np.array([[0], [1], [2]]) + 3 * np.arange(8) & 1
PALETTE = torch.from_numpy((_BITS << 7 - np.arange(8)).sum(2).astype(np.uint8))
"""Colours for 256 class ids, uint8 (256, 3): Pascal VOC's, 0 black, neighbours far apart."""


# Reading

def header(path) -> tuple[str, bool]:
    """"colour"; "grey" for one channel; "deep" for one of more than 8 bits; and if there are more
    pages than one. What is no image is "grey", for it has no colours."""
    try:
        with _reading(path) as im:
            deep = im.mode in ("I", "F") or im.mode.startswith("I;16")
            kind = "deep" if deep else "grey" if im.mode in ("1", "L", "LA", "La") else "colour"
            return kind, path.suffix.lower() in PAGED and getattr(im, "is_animated", False)
    except (OSError, ValueError):
        return "grey", False


def value_range(path) -> tuple[str, float, float] | None:
    """Of a deep picture: "I" or "F", integers or floats, the lowest and the highest of them."""
    try:
        with _reading(path) as im:
            ends = [end for a in _strips(im, finite=True) for end in (a.min(), a.max())]
            return im.mode[0], float(min(ends)), float(max(ends))
    except (OSError, ValueError):
        return None  # reported when it is read


def white_of(kind: str, top: float) -> tuple[float, bool]:
    """What is white in a set of deep pictures whose highest value is `top`, and if that is usual:
    65535 for integers, 1 or 255 for floats. Of a set that uses less than a quarter of that, or
    more, it is the next power of two: the 4095 of a 12-bit scanner."""
    usual = 65535 if kind == "I" else 1 if top <= 1 else 255
    if usual / 4 < top <= usual or top <= 0:
        return usual, True
    power = 2.0 ** math.ceil(math.log2(top))
    return (max(255, power - (power > top)) if kind == "I" else power), False


def image_size(path) -> tuple[int, int]:
    """(height, width) from the header, EXIF rotation not applied. Errors as in read_image."""
    with _reading(path) as im:
        return im.height, im.width


def read_image(path, size: int | None = None, channels: int = 3, white: dict | None = None
               ) -> torch.Tensor:
    """One picture, uint8 (channels, h, w): h = w = `size`, or as it is where `size` is None.

    EXIF rotation is applied, transparency lies on white, and of several pages or frames the first
    counts. The largest central square is resized, never stretched. More than 8 bits are scaled to
    8: white[kind], see white_of, becomes 255, without it the usual white of such a file. `path`
    may also be an open binary file. Raises OSError or ValueError with a short reason.
    """
    return read_upright(path, size, channels, white)[0]


def read_upright(path, size: int | None = None, channels: int = 3, white: dict | None = None
                 ) -> tuple[torch.Tensor, tuple[int, int]]:
    """read_image's, and the (height, width) of the whole picture, EXIF rotation applied."""
    with _reading(path) as im:
        sides = im.height, im.width
        if size is not None:
            # JPEG can decode at 1/2, 1/4 or 1/8 for a fraction of the time. Twice the size wanted
            # leaves the last halving to the better filter below. No other format listens.
            im.draft(None, (2 * size, 2 * size))
        stored = im.size
        ImageOps.exif_transpose(im, in_place=True)
        sides = sides if im.size == stored else sides[::-1]
        im = _to_8_bit(im, "L" if channels == 1 else "RGB", white or {})
        if size is not None:
            im = im.resize((size, size), Image.Resampling.LANCZOS, _square(im), reducing_gap=3)
        return _to_tensor(im), sides


def read_halves(path, size: int, channels: int = 3, white: dict | None = None
                ) -> tuple[torch.Tensor, torch.Tensor]:
    """A file with two pictures side by side, A|B, as two of read_image's. Errors likewise."""
    both = read_image(path, None, channels, white)
    h, w = both.shape[1:]
    if w % 2 or w < 1.5 * h:
        raise ValueError(f"{w}x{h} is not two pictures side by side")
    a, b = (resize(half, size) for half in both.split(w // 2, dim=2))
    return a, b


def read_ids(path, size: int | None = None) -> torch.Tensor:
    """A label map, int32 (h, w): the ids of the pixels, of a palette picture the indices. Cropped
    as by read_image, and resized by nearest neighbour: there is nothing between two ids."""
    with _reading(path) as im:
        if im.mode not in ("1", "L", "P", "I") and not im.mode.startswith("I;16"):
            raise ValueError(f"mode {im.mode}: a label map has one channel, of class ids")
        if size is not None:
            im = im.resize((size, size), Image.Resampling.NEAREST, _square(im))
        return torch.from_numpy(np.asarray(im).astype(np.int32))


def resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (c, h, w) to (c, size, size): the largest central square, resized with antialias."""
    im = _to_image(x)
    return _to_tensor(im.resize((size, size), Image.Resampling.LANCZOS, _square(im)))


@contextmanager
def _reading(path) -> Iterator[Image.Image]:
    """An open picture; whatever goes wrong with it is an OSError or ValueError, in a few words."""
    try:
        if not hasattr(path, "read") and not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a file of data")  # a pipe named x.jpg would be waited for
        with Image.open(path, formats=FORMATS) as im:
            if min(im.size) < MIN_SIDE:
                raise ValueError(f"{im.width}x{im.height} pixels is too small")
            yield im
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (OSError, ValueError):
        raise
    except Exception as e:  # damaged data makes Pillow's parsers raise SyntaxError, struct.error,
        raise ValueError(f"{e}" or type(e).__name__) from e  # EOFError, DecompressionBombError...


def _square(im: Image.Image) -> tuple[int, int, int, int]:
    """The largest central square: (left, top, right, bottom)."""
    side = min(im.size)
    left, top = (im.width - side) // 2, (im.height - side) // 2
    return left, top, left + side, top + side


def _to_8_bit(im: Image.Image, mode: str, white: dict[str, float]) -> Image.Image:
    """Any mode of Pillow to "L" or "RGB", where Pillow's own convert() would clip or lose."""
    if im.mode == "F":  # in [0, 1] or [0, 255]: no third convention is common
        top = white.get("F") or (1 if max(a.max() for a in _strips(im, finite=True)) <= 1 else 255)
        im = _by_strips(im, lambda a: (np.nan_to_num(a) * (255 / top)).round().clip(0, 255))
    elif im.mode == "I" or im.mode.startswith("I;16"):  # older Pillows open 16-bit PNG as "I"
        top = int(white.get("I", 65535))
        table = ((np.arange(65536) * 255 + top // 2) // top).clip(0, 255).astype("u1")
        if im.mode == "I" and any(a.min() < 0 or a.max() > 65535 for a in _strips(im)):
            raise ValueError("32-bit integers outside 0..65535")
        im = _by_strips(im, table.__getitem__)
    elif im.has_transparency_data:
        im = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im)
    return im.convert(mode)


def _strips(im: Image.Image, finite: bool = False) -> Iterator[np.ndarray]:
    """Rows of a picture, 64 at a time: as an array the whole takes several times its memory."""
    for top in range(0, im.height, 64):
        a = np.asarray(im.crop((0, top, im.width, min(top + 64, im.height))))
        yield np.where(np.isfinite(a), a, 0) if finite else a


def _by_strips(im: Image.Image, function: Callable) -> Image.Image:
    """function(array of values) is 0..255, for all of a picture."""
    done = Image.new("L", im.size)
    for i, strip in enumerate(_strips(im)):
        done.paste(Image.fromarray(function(strip).astype("u1")), (0, 64 * i))
    return done


def _to_image(x: torch.Tensor) -> Image.Image:
    """uint8 (c, h, w) to "L" or "RGB"."""
    return Image.fromarray(x[0].numpy() if len(x) == 1 else x.permute(1, 2, 0).numpy())


def _to_tensor(im: Image.Image) -> torch.Tensor:
    """"L" or "RGB" to uint8 (c, h, w)."""
    x = torch.from_numpy(np.array(im))
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1).contiguous()


# Writing

def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Float [-1, 1] to uint8 0..255 of the same shape; what lies outside is clamped."""
    return ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def save(path, im: Image.Image, **options) -> None:
    """A picture of Pillow's, whole or not at all; the suffix of `path` is its format, as below."""
    with _whole(path) as part:
        im.save(part, **options)


def write_image(path, x: torch.Tensor) -> None:
    """One picture (c, h, w), in [-1, 1] or uint8."""
    x = x if x.dtype == torch.uint8 else to_uint8(x)
    save(path, _to_image(x.cpu()), quality=95)  # of JPEG and WebP alone


def grid(x: torch.Tensor, n_cols: int = 8, pad: int = 2, captions: Sequence[str] | None = None,
         scale: int = 1) -> Image.Image:
    """(n, c, h, w) in [-1, 1] as rows of `n_cols` pictures, `pad` white pixels around each.

    captions: a text for each row, drawn at its left, or the row's number where the font lacks a
    letter of it. scale: each pixel becomes scale x scale.
    """
    n, c, h, w = x.shape
    n_rows = -(-n // n_cols)
    if captions is not None and len(captions) != n_rows:
        raise ValueError(f"{len(captions)} captions for {n_rows} rows")
    h, w = h * scale, w * scale
    font = ImageFont.load_default(min(18, max(9, h // 4)))
    missing = bytes(font.getmask("\uffff"))  # the empty box that is drawn for it
    captions = [str(i) if missing in (bytes(font.getmask(letter)) for letter in text) else text
                for i, text in enumerate(captions or ())]
    margin = 8 + round(max(map(font.getlength, captions))) if captions else 0
    sheet = Image.new("L" if c == 1 else "RGB",
                      (margin + pad + n_cols * (w + pad), pad + n_rows * (h + pad)), "white")
    for i, picture in enumerate(to_uint8(x).cpu()):
        row, col = divmod(i, n_cols)
        sheet.paste(_to_image(picture).resize((w, h), Image.Resampling.NEAREST),
                    (margin + pad + col * (w + pad), pad + row * (h + pad)))
    for row, text in enumerate(captions):
        ImageDraw.Draw(sheet).text((margin - 4, pad + row * (h + pad) + h // 2), text, "black",
                                   font, anchor="rm")
    return sheet


def save_grid(path, x: torch.Tensor, n_cols: int = 8, pad: int = 2,
              captions: Sequence[str] | None = None, scale: int = 1) -> None:
    save(path, grid(x, n_cols, pad, captions, scale))


def save_gif(path, frames: Sequence, seconds: float = 0.12, hold: float = 2.0) -> None:
    """A film of `frames`: paths or PIL images of one size, `seconds` each, the last for `hold`; of
    more than MAX_FRAMES, an even choice with the first and the last. ValueError where there are
    none, or of two sizes."""
    if not len(frames):
        raise ValueError("a GIF of no frames")
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().astype(int)
    film = []
    for i in chosen:
        frame = frames[i]
        if not isinstance(frame, Image.Image):
            with _reading(frame) as im:
                frame = im.copy()
        if film and frame.size != film[0].size:
            raise ValueError(f"frames of two sizes: {film[0].size} and, {frames[i]}, {frame.size}")
        # Each frame has its own palette; dithering would shimmer from frame to frame.
        film.append(frame if frame.mode == "L" else
                    frame.convert("RGB").quantize(256, dither=Image.Dither.NONE))
    times = [round(1000 * seconds)] * (len(film) - 1) + [round(1000 * hold)]
    save(path, film[0], save_all=True, append_images=film[1:], duration=times, loop=0)


def numbered(folder) -> list[Path]:
    """The pictures in a folder that are called by a number, in order; others are a user's own."""
    paths = (path for path in Path(folder).glob("*.png") if path.stem.isdecimal())
    return sorted(paths, key=lambda path: int(path.stem))


def save_curves(path, csv_path) -> None:
    """The columns of a CSV file over its first one, the step: those named loss... above the others.

    Cells that are no finite number leave a gap; a file without rows gives an empty panel.
    """
    with open(csv_path, newline="") as lines:
        header, *rows = list(csv.reader(lines)) or [["step"]]
    rows = [row for row in rows if len(row) == len(header)]  # a kill may leave half a line
    table = np.array([[_number(cell) for cell in row] for row in rows]).reshape(-1, len(header))
    # Long logs are averaged, not thinned out: else one noisy point speaks for a thousand.
    table = np.array([part.mean(0) for part in np.array_split(table, MAX_POINTS) if len(part)])
    table = table.reshape(-1, len(header))
    losses = [i for i, name in enumerate(header) if i and name.startswith("loss")]
    others = [i for i in range(1, len(header)) if i not in losses]
    panels = [np.asarray(_panel(table[:, 0], table[:, group], [header[i] for i in group]))
              for group in filter(None, (losses, others))]
    panels = panels or [np.asarray(_panel(table[:, 0], table[:, :0], []))]
    save(path, Image.fromarray(np.concatenate(panels)))


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's: told apart by colour-blind readers too."""


def _panel(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Curves y (n, k) over x (n,) with axes and legend. Drawn at twice the size, for smoothness."""
    w, h, left, top, right, bottom = 1800, 600, 130, 70, 40, 64
    sheet = Image.new("RGB", (w, h), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    plot = Image.new("RGB", (w - left - right, h - top - bottom), "#f7f7f7")  # clips the curves
    pen = ImageDraw.Draw(plot)
    x0, x1 = _span(x[np.isfinite(x)], 0, 0)
    y0, y1 = _span(y[np.isfinite(y)], 0.5, 0.06)  # a spike would flatten all the rest

    def across(value):
        return (value - x0) / (x1 - x0) * (plot.width - 1)

    def down(value):
        return (y1 - value) / (y1 - y0) * (plot.height - 1)

    for value, text in _ticks(y0, y1, 5):
        pen.line([(0, down(value)), (plot.width, down(value))], "#dddddd", 2)
        draw.text((left - 14, top + down(value)), text, "#444444", font, anchor="rm")
    for value, text in _ticks(x0, x1, 8):
        pen.line([(across(value), 0), (across(value), plot.height)], "#dddddd", 2)
        draw.text((left + across(value), h - bottom + 12), text, "#444444", font, anchor="ma")
    place = left
    for i, name in enumerate(names):
        colour = COLOURS[i % len(COLOURS)]
        points = np.column_stack([across(x), down(y[:, i])]).clip(-1e5, 1e5)
        points[~(np.isfinite(x) & np.isfinite(y[:, i]))] = np.nan
        for a, b in zip(points, [*points[1:], *points[-1:]], strict=True):
            if not np.isnan(a).any():
                pen.line([*a, *(a if np.isnan(b).any() else b)], colour, 3)
                pen.ellipse([*(a - 1.5), *(a + 1.5)], colour)  # a joint, or a point alone
        draw.line([(place, top // 2), (place + 36, top // 2)], colour, 6)
        draw.text((place + 48, top // 2), name, "black", font, anchor="lm")
        place += 48 + int(font.getlength(name)) + 44
    sheet.paste(plot, (left, top))
    return sheet.reduce(2)


def _number(cell: str) -> float:
    try:
        return float(cell) if np.isfinite(float(cell)) else np.nan
    except ValueError:
        return np.nan


def _span(values: np.ndarray, cut: float, room: float) -> tuple[float, float]:
    """The range of all but `cut` percent at each end, and `room` of it more on both sides."""
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [cut, 100 - cut])
    if high - low <= 1e-9 * abs(high):  # a constant
        low, high = low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2
    return low - room * (high - low), high + room * (high - low)


def _ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """Multiples of 1, 2 or 5 times a power of ten in the range, with their labels."""
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = np.ceil(low / step - 1e-6), np.floor(high / step + 1e-6)
    return [(i * step, f"{i * step + 0.0:,.10g}") for i in np.arange(first, last + 1)]  # not -0


def write_bytes(path, data) -> None:
    """A file of these bytes, on the disk when this returns."""
    with _whole(path) as part, open(part, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


@contextmanager
def _whole(path) -> Iterator[Path]:
    """Where to write a file that is then moved to `path`: a kill or a full disk at any moment
    leaves the old one or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")  # hidden, and with the suffix that Pillow reads
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
