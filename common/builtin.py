"""Two data sets that are drawn rather than downloaded: handwritten digits and cartoon portraits.

    digits(range(64), size=28)["image"]                                  # uint8 (64, 1, 28, 28)
    faces([3, 1, 4], size=64, want=("image", "label_map", "attributes"))

An item is a function of (seed, index) alone, bit for bit: not of the batch it is asked for in,
and its parameters not of the size. Each index has its own generator, whose uniforms become shape
parameters through elementwise float64 arithmetic; pixels are computed in float32 by correctly
rounded operations only (+ - * / 1/sqrt abs min max floor): an exp or sin may differ in its last bit
between the vectorised body of a batch and its scalar tail.

Shapes are signed distances, negative inside, whose zero crossing becomes an edge one pixel wide.
Coordinates run from -1 to 1 across the picture, y downwards.
"""
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

Index = Sequence[int] | Tensor


# Random numbers

def _uniforms(seed: int, index: list[int], count: int) -> np.ndarray:
    """(n, count) numbers in [0, 1): row i from the generator of (seed, index[i])."""
    rows = [np.random.default_rng([seed, i]).random(count) for i in index]
    return np.array(rows).reshape(-1, count)


def _cos_sin(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number by number: numpy's vectorised cos may round the tail of a batch differently."""
    values = angle.tolist()
    return np.array([math.cos(a) for a in values]), np.array([math.sin(a) for a in values])


def _planes(values: np.ndarray) -> Tensor:
    """(n, ...) float64 to float32 (n, ..., 1, 1), to broadcast over pixels."""
    return torch.from_numpy(values.astype(np.float32))[..., None, None]


# Shapes: signed distances at the points x, y

def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Pixel centres: x (1, 1, w), y (1, h, 1)."""
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    centre = torch.from_numpy(((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32))
    return centre[None, None, :], centre[None, :, None]


def _root(square: Tensor) -> Tensor:
    """Not by Tensor.sqrt: starting MKL's own threads takes a thousand times as long."""
    return square * square.clamp_min(1e-12).rsqrt_()


def _circle(x, y, r):
    return _root(x * x + y * y) - r


def _ellipse(x, y, rx, ry):
    """First-order distance, exact on the edge, which is where it becomes pixels."""
    u, v = x / rx, y / ry
    level = _root(u * u + v * v)
    u, v = u / rx, v / ry
    return level * (level - 1) * (u * u + v * v).clamp_min_(1e-8).rsqrt_()


def _box(x, y, w, h, r):
    """Half sides w and h, corners rounded by r <= min(w, h)."""
    x, y = x.abs() - (w - r), y.abs() - (h - r)
    outside = x.clamp_min(0).square() + y.clamp_min(0).square()
    return _root(outside) + torch.maximum(x, y).clamp_max(0) - r


def _segment(x, y, ax, ay, bx, by, ra, rb):
    """A pen stroke with round ends from a to b, its radius changing from ra to rb."""
    x, y, bx, by = x - ax, y - ay, bx - ax, by - ay
    scale = 1 / (bx * bx + by * by).clamp_min(1e-9)
    t = (x * (bx * scale) + y * (by * scale)).clamp_(0, 1)
    return _root((x - bx * t).square_() + (y - by * t).square_()) - (ra + (rb - ra) * t)


def _lens(x, y, w, top, bottom):
    """Between two parabolas through (-w, 0) and (w, 0) whose middles lie at y = top and bottom."""
    inside = x.abs().clamp_max(w)
    arch, slope = 1 - (inside / w).square(), 2 * inside / (w * w)
    d = torch.maximum((top * arch - y) * (1 + (top * slope).square()).rsqrt_(),
                      (y - bottom * arch) * (1 + (bottom * slope).square()).rsqrt_())
    return _root(d.clamp_min(0).square() + (x.abs() - inside).square()) + d.clamp_max(0)


def _blend(a, b, k):
    """Union of two shapes with a fillet of about k between them."""
    h = (k - (a - b).abs()).clamp_min(0)
    return torch.minimum(a, b) - h * h / (4 * k)


def _coverage(pixels: Tensor) -> Tensor:
    """Share of a pixel that a shape covers, from its distance in pixels."""
    return (0.5 - pixels).clamp_(0, 1)


def _bytes(image: Tensor) -> Tensor:
    """[0, 1] to 0 .. 255."""
    return (image * 255 + 0.5).to(torch.uint8)


def _in_chunks(draw: Callable[[slice], None], n: int, chunk: int) -> None:
    """draw(slice of 0 .. n) for chunks small enough for the cache, each by one thread. Torch's own
    would share out every operation, and wait for the slowest (measured: ten times slower)."""
    parts = [slice(i, i + max(1, chunk)) for i in range(0, n, max(1, chunk))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, parts))  # list: raises here what was raised there
    finally:
        torch.set_num_threads(threads)


# Digits

DIGIT_FACTORS = ("slant", "rotation", "thickness", "scale", "aspect", "shift_x", "shift_y",
                 "taper", "variant")

# Per class, the ways people write it; per way, the strokes, smooth splines; per stroke, the points
# the pen passes as "x,y" in hundredths. One that ends where it starts closes smoothly.
SKELETONS = (
    # 0: wide, narrow, crossed at the top
    (("10,-100 -42,-68 -60,5 -38,78 5,100 45,70 60,0 44,-70 10,-100",),
     ("5,-100 -30,-65 -38,5 -26,75 0,100 30,70 38,0 30,-70 5,-100",),
     ("30,-85 -25,-85 -56,-10 -42,72 0,98 44,70 56,0 38,-72 -5,-100 -22,-80",)),
    # 1: plain, with a flag, with a flag and a base
    (("0,-100 0,0 0,100",),
     ("-35,-55 -12,-78 5,-100", "5,-100 5,0 3,100"),
     ("-32,-62 -12,-80 3,-100", "3,-100 3,0 3,97", "-40,97 3,97 42,97")),
    # 2: corner, loop at the bottom left, shallow with a wavy base
    (("-50,-55 -32,-92 15,-98 46,-58 25,0 -20,52 -58,94", "-58,94 0,94 60,90"),
     ("-48,-62 -20,-100 32,-88 38,-35 -5,38 -42,90 -62,78 -38,58 8,80 62,86",),
     ("-42,-72 5,-100 42,-70 22,-10 -55,92", "-55,92 -22,76 15,92 60,82")),
    # 3: round, flat top, one sweep
    (("-48,-75 -8,-100 40,-78 30,-28 -14,-6", "-14,-6 36,10 50,52 20,95 -24,96 -55,70"),
     ("-48,-94 0,-96 48,-95", "48,-95 20,-55 -10,-22", "-10,-22 38,-12 52,40 16,95 -50,80"),
     ("-42,-88 10,-98 38,-62 -2,-10 14,0 48,42 12,95 -52,86",)),
    # 4: open, closed, rounded
    (("-38,-92 -48,-40 -55,10", "-55,10 0,12 60,6", "36,-80 30,10 26,100"),
     ("25,-100 -20,-40 -60,20", "-60,20 0,24 62,20", "25,-100 25,0 24,100"),
     ("-42,-90 -50,-25 -18,8 25,-8 42,-30", "46,-90 36,0 24,100")),
    # 5: upright, one sweep, cap drawn as a second stroke
    (("50,-95 0,-95 -34,-92", "-34,-92 -38,-55 -44,-18",
      "-44,-18 0,-34 44,-5 48,50 8,95 -50,80"),
     ("55,-90 -8,-94 -40,-50 -5,-16 40,22 30,80 -14,99 -52,76",),
     ("-26,-88 -34,-50 -36,-15", "-36,-15 12,-26 46,12 38,75 -8,97 -48,84",
      "-26,-88 15,-92 62,-98")),
    # 6: curved back, straight back, small loop
    (("36,-95 -14,-58 -50,15 -36,80 4,99 44,66 32,16 -8,8 -44,42",),
     ("8,-100 -22,-45 -42,30 -24,90 18,94 38,50 10,18 -38,50",),
     ("46,-88 0,-80 -40,-20 -46,60 -6,97 36,76 20,34 -18,36 -44,66",)),
    # 7: plain, barred, with a serif
    (("-54,-86 0,-92 50,-92", "50,-92 16,0 -10,100"),
     ("-52,-90 0,-94 52,-94", "52,-94 18,0 -14,100", "-26,4 8,2 46,0"),
     ("-52,-58 -50,-74 -44,-88", "-44,-88 5,-82 50,-92", "50,-92 4,-10 2,100")),
    # 8: one sweep, two rings, open at the top
    (("36,-72 0,-100 -38,-72 -10,-22 38,34 20,92 -26,90 -36,36 6,-16 38,-50 36,-72",),
     ("0,-8 -38,-48 0,-98 38,-50 0,-8", "0,-8 -46,44 0,99 46,46 0,-8"),
     ("44,-84 -8,-98 -36,-62 0,-14 40,40 4,97 -38,58 0,-4 50,-72",)),
    # 9: straight, curled and slanting tail
    (("40,-66 8,-97 -36,-74 -38,-28 0,-10 34,-38 40,-66", "40,-72 36,10 30,100"),
     ("42,-62 8,-96 -36,-74 -38,-26 4,-10 42,-62", "42,-62 46,20 18,88 -18,96 -44,76"),
     ("30,-84 -16,-94 -42,-52 -12,-18 30,-48 38,-86", "38,-86 18,0 -12,100")),
)
SEGMENTS = 28  # of a digit's polyline: enough that the corners do not show at 256 pixels


def _spline(stroke: str, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """A stroke's points (k, 2) and the (pieces + 1, k) weights of them on a uniform Catmull-Rom
    spline through them: jitter the points, and the curve moves smoothly."""
    points = np.array([[int(v) / 100 for v in pair.split(",")] for pair in stroke.split()])
    k = len(points)
    eye = np.eye(k)
    closed = (points[0] == points[-1]).all()
    before, after = (eye[-2], eye[1]) if closed else (2 * eye[0] - eye[1], 2 * eye[-1] - eye[-2])
    knots = np.vstack([before, eye, after])
    at = np.linspace(0, k - 1, pieces + 1)
    span = np.minimum(at.astype(int), k - 2)
    t = (at - span)[:, None]
    p0, p1, p2, p3 = (knots[span + i] for i in range(4))
    return points, 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                          + (3 * p1 - p0 - 3 * p2 + p3) * t**3)


@functools.cache
def _skeleton_tables() -> tuple[np.ndarray, np.ndarray]:
    """Of every way to write every digit, 3 * digit + way: points (30, k, 2) and the weights of
    both ends of its segments (30, SEGMENTS, 2, k). Unused points weigh nothing."""
    ways = [way for digit in SKELETONS for way in digit]
    k = max(sum(len(stroke.split()) for stroke in way) for way in ways)
    points, weights = np.zeros((len(ways), k, 2)), np.zeros((len(ways), SEGMENTS, 2, k))
    for v, way in enumerate(ways):
        spans = np.array([len(stroke.split()) - 1 for stroke in way])
        ends = np.rint(np.cumsum(spans) * SEGMENTS / spans.sum()).astype(int)
        first, point = 0, 0
        for stroke, end in zip(way, ends, strict=True):
            xy, curve = _spline(stroke, end - first)
            if point and (points[v, point - 1] == xy[0]).all():
                point -= 1  # a corner is one point, or jitter would tear it apart
            used = slice(point, point + len(xy))
            points[v, used] = xy
            weights[v, first:end, 0, used], weights[v, first:end, 1, used] = curve[:-1], curve[1:]
            first, point = end, used.stop
    return points, weights


def _digit_strokes(seed: int, index: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments (n, SEGMENTS, 2 ends, 3: x, y, pen radius), labels (n,), factors (n, f)."""
    points, weights = _skeleton_tables()
    n, k = len(index), points.shape[1]
    label = np.array(index, dtype=np.int64).reshape(n) % 10
    u = _uniforms(seed, index, len(DIGIT_FACTORS) + 4 * k)
    low = np.array([-0.15, -0.21, 1.2, 0.88, 0.92, -0.07, -0.07, -0.3, 0])
    high = np.array([0.45, 0.21, 3.2, 1.10, 1.48, 0.07, 0.07, 0.3, 3])
    factors = low + (high - low) * u[:, :len(low)]
    factors[:, -1] = np.floor(factors[:, -1])
    slant, rotation, thickness, scale, aspect, shift_x, shift_y, taper, variant = factors.T

    way = 3 * label + variant.astype(np.int64)
    wobble = u[:, len(low):].reshape(n, k, 2, 2)
    jittered = points[way] + 0.16 * (wobble[..., 0] + wobble[..., 1] - 1)
    ends = np.zeros((n, SEGMENTS, 2, 2))
    for j in range(k):  # a matrix product may add up in another order in another batch
        ends += weights[way][..., j, None] * jittered[:, None, None, j]

    x, y = np.moveaxis(ends, -1, 0)
    cos, sin, slant, scale, aspect, shift_x, shift_y, thickness, taper = (
        v[:, None, None]
        for v in (*_cos_sin(rotation), slant, scale, aspect, shift_x, shift_y, thickness, taper))
    x = x * aspect - slant * y
    x, y = cos * x - sin * y, sin * x + cos * y
    drawn = (np.arange(SEGMENTS)[:, None] + np.arange(2)) / SEGMENTS  # 0 .. 1 as the pen goes
    radius = thickness / 28 * (1 + taper * (2 * drawn - 1))
    reach = 0.63 * scale  # MNIST's digits fill 20 of 28 pixels, half the pen's width included
    return np.stack([reach * x + shift_x, reach * y + shift_y, radius], -1), label, factors


EDGE = 1.5  # pixels of 28 from ink to paper: soft, like MNIST's scans


def digits(index: Index, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Handwritten digits, white ink on black as in MNIST, of any integers >= 0, in any order.

    Returns "image" uint8 (n, 1, size, size), "label" int64 (n,), index % 10, "factors" float32
    (n, len(DIGIT_FACTORS)): slant (shear) and rotation (radians), thickness (pen width in 28ths
    of the picture), scale, aspect (width), shift_x and shift_y (1 is half a picture), taper (how
    the pen's pressure grows), variant (which skeleton).
    """
    x, y = _grid(size)
    index = np.asarray(index, dtype=np.int64).tolist()
    segments, label, factors = _digit_strokes(seed, index)
    image = torch.empty(len(index), 1, size, size, dtype=torch.uint8)

    def draw(part: slice) -> None:
        d = None
        for ends in _planes(segments[part]).unbind(1):  # (n, 2, 3, 1, 1), one segment each
            (ax, ay, ra), (bx, by, rb) = (end.unbind(1) for end in ends.unbind(1))
            stroke = _segment(x, y, ax, ay, bx, by, ra, rb)
            d = stroke if d is None else torch.minimum(d, stroke, out=d)
        image[part, 0] = _bytes(_coverage(d * (min(size, 28 / EDGE) / 2)))

    _in_chunks(draw, len(index), 2**16 // size**2)
    return {"image": image, "label": torch.from_numpy(label),
            "factors": torch.from_numpy(factors.astype(np.float32))}


# Faces

ATTRIBUTES = ("smiling", "open_mouth", "glasses", "beard", "hat", "long_hair", "earrings",
              "dark_hair", "blond_hair", "red_hair")
PARTS = ("background", "clothes", "neck", "skin", "hair", "beard", "eyebrow", "eye", "nose",
         "mouth", "glasses", "hat", "earring")
FACE_CLASSES = ("bald", "short hair", "long hair", "curly hair", "mohawk", "bun", "pigtails",
                "cap", "beanie", "sun hat")
DRAWINGS = ("image", "pencil", "outline", "flat", "label_map", "attributes", "label")  # of faces()


def _palette(colours: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(c)) for c in colours.split()]) / 255


SKIN = _palette("fde3d0 f6d0b1 ecb98f d9a06f bd8050 93592f 6b3f24 4a2b1b")  # fair to deep
DARK, BLOND = _palette("16161c 241c1c 33241e 1b2030"), _palette("f2d06b e6bb55 f7e3a1 d9a441")
RED, OTHER = _palette("b5451f c95a24 a23318 d9743a"), _palette("6f4a30 855a38 9aa0a8 e27fa6 3f8f93")
IRIS = _palette("5b3a1e 2f6fa8 3f8a55 7a5a22 55707a 3b2a20")
CLOTHES = _palette("d94f4f 2f6db3 2f9e77 f0b13c 7d57b8 37474f f4f1ea e6798f 20a4b8 a33b5c b6c95b")
BACKGROUND = _palette("a9d6e5 f7c8a0 c9e4c5 f3d1dc d7c9ee ffe3a3 9fc0d8 e8ddd0 b7d7cf f2a992")
FRAMES = _palette("1c1c22 7a2f1d c23b3b 1f4f8f d9a627 e9e9ee 2d7a5f")
LIPS = _palette("b5434a c75a5f 9a3844 d0606e")

# The pose of a head, at most: a tilt about the neck (radians), a shift, and a range of scales.
TILT, SHIFT, SCALE = 0.10, 0.04, (0.98, 1.12)


def _face_parameters(seed: int, index: list[int]) -> tuple[dict, np.ndarray, np.ndarray]:
    """Of n faces: parameters by name, (n,) numbers and switches or (n, 3) colours in [0, 1]; class
    (n,); attributes (n, len(ATTRIBUTES)) 0 or 1."""
    columns = iter(_uniforms(seed, index, 96).T)

    def between(low, high):
        return low + (high - low) * next(columns)

    def chance(p):
        return next(columns) < p

    def pick(table):
        return table[np.floor(next(columns) * len(table)).astype(np.int64)]

    def either(switch, a, b):
        return np.where(switch.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    label = pick(np.arange(len(FACE_CLASSES)))
    style = {name: label == i for i, name in enumerate(FACE_CLASSES)}
    smiling, open_mouth, glasses = chance(0.5), chance(0.4), chance(0.45)
    beard, earrings = chance(0.35), chance(0.35)
    hat = style["cap"] | style["beanie"] | style["sun hat"]
    # As frequent under a hat as without one, 2 classes of 7, so that the two are independent.
    long_hair = style["long hair"] | style["pigtails"] | (hat & chance(2 / 7))
    kind = next(columns)
    dark, blond, red = kind < 0.32, (0.32 <= kind) & (kind < 0.60), (0.60 <= kind) & (kind < 0.84)

    tone = between(0, len(SKIN) - 1.001)
    lower = np.floor(tone).astype(np.int64)
    skin = SKIN[lower] + (SKIN[lower + 1] - SKIN[lower]) * (tone - lower)[:, None]
    hair = either(dark, pick(DARK), either(blond, pick(BLOND), either(red, pick(RED), pick(OTHER))))
    hair = np.minimum(1, hair * between(0.9, 1.1)[:, None])
    cos, sin = _cos_sin(between(-TILT, TILT))
    p = dict(cos=cos, sin=sin, scale=between(*SCALE),
             shift_x=between(-SHIFT, SHIFT), shift_y=between(-SHIFT, SHIFT))

    # Head and light.
    p.update(skin=skin, hair=hair, dim_skin=skin * [0.80, 0.70, 0.68], lips=pick(LIPS))
    p.update(head=between(0.39, 0.48), jaw=between(0.70, 0.97), chin=between(0.33, 0.42),
             ear=between(0.08, 0.12), neck=between(0.15, 0.20), light=between(-1, 1),
             blush=chance(0.5) * between(0.15, 0.4))
    # Features. Glasses must not meet in the middle: their half width follows the eyes' spacing.
    p.update(eye_x=between(0.175, 0.215), eye_y=between(-0.04, 0.02), eye_w=between(0.085, 0.115),
             eye_h=between(0.075, 0.115), lid=between(0.35, 1.0), iris=pick(IRIS),
             gaze_x=between(-0.03, 0.03), gaze_y=between(-0.015, 0.02),
             brow=between(0.024, 0.042), brow_up=between(0.05, 0.09),
             brow_in=between(-0.04, 0.04), brow_out=between(-0.01, 0.05),
             nose_w=between(0.055, 0.095), nose_y=between(0.12, 0.16), nose_up=between(0.04, 0.14))
    lens_w = p["eye_x"] - between(0.03, 0.045)
    p.update(glasses=glasses, frame=pick(FRAMES), frame_w=between(0.016, 0.032),
             lens_w=lens_w, lens_h=either(chance(0.5), lens_w, between(0.10, 0.13)),
             round=either(chance(0.5), np.ones_like(lens_w), between(0.3, 0.7)))
    # Mouth: how far the middles of both lips hang below its corners.
    wide = either(open_mouth & ~smiling, between(0.09, 0.12), between(0.14, 0.20))
    bend = either(smiling, between(0.075, 0.11), between(-0.018, 0.008))
    gap = either(smiling, between(0.10, 0.14), between(0.10, 0.16))
    top = either(open_mouth, either(smiling, bend - 0.06, bend - 0.3 * gap), bend)
    p.update(mouth_w=wide, mouth_y=between(0.31, 0.35) - 0.4 * bend, lip_top=top,
             lip_bottom=top + gap * open_mouth, lip=between(0.022, 0.034), open_mouth=open_mouth)
    # Hair: the hairline is a parabola about the parting, and ends above the ears or, long, lower.
    p.update(beard=beard, goatee=chance(0.35), volume=between(0.03, 0.09), part=between(-0.2, 0.2),
             hairline=between(-0.40, -0.22), curve=between(0.6, 2.0), wave=between(0, 0.05),
             sides=either(long_hair, between(0.15, 0.4), between(-0.1, 0.06)),
             back=between(0.12, 0.22), curl=between(0.12, 0.17), spike=between(0.15, 0.32))
    # What is worn.
    collar = chance(0.35)
    p.update(clothes=pick(CLOTHES), trim=pick(CLOTHES), hat_colour=pick(CLOTHES),
             ribbon=pick(CLOTHES), shoulders=between(0.72, 0.95), striped=chance(0.3),
             v_neck=collar | chance(0.4), collar=collar, visor=between(-0.2, 0.2),
             earrings=earrings, hoop=chance(0.5), gold=pick(FRAMES[4:6]))
    # The wall: two colours, the way from one to the other, and a pool of light.
    p.update(wall=pick(BACKGROUND), wall_too=pick(BACKGROUND), wall_x=between(-0.5, 0.5),
             wall_y=between(-0.5, 0.5), glow_x=between(-0.8, 0.8), glow_y=between(-0.9, 0.2))
    p.update({name.replace(" ", "_"): style[name] for name in FACE_CLASSES if name != "long hair"},
             hat=hat, straight=long_hair & ~style["pigtails"],
             hairy=~style["bald"] & ~style["mohawk"])
    return p, label, np.stack([smiling, open_mouth, glasses, beard, hat, long_hair, earrings,
                               dark, blond, red], 1).astype(np.uint8)


class _Sheet:
    """The drawings of n faces in progress: those wanted of colour, outline, flat, label map."""
    def __init__(self, n: int, size: int, px: Tensor, want: Sequence[str]):
        self.size, self.px = size, px  # px (n, 1, 1): pixels per unit of the faces' coordinates
        self.pen = (0.011 * px).clamp_min(0.5)  # half a line's width in pixels
        self.image = torch.zeros(n, 3, size, size) if {"image", "pencil"} & {*want} else None
        self.line = torch.zeros(n, size, size) if {"outline", "pencil"} & {*want} else None
        self.flat = torch.zeros(n, 3, size, size) if "flat" in want else None
        self.parts = torch.zeros(n, size, size, dtype=torch.uint8) if "label_map" in want else None

    def region(self, left: float, top: float, right: float, bottom: float) -> tuple:
        """The pixels that this rectangle of a face can fall on, whatever its pose."""
        dx = SHIFT + TILT * max(abs(top - 0.5), abs(bottom - 0.5)) + 0.02
        dy = SHIFT + TILT * max(abs(left), abs(right)) + 0.02

        def pixels(low, high, margin):
            low = min(low * s for s in SCALE) - margin
            high = max(high * s for s in SCALE) + margin
            return slice(max(0, math.floor((low + 1) * self.size / 2)),
                         max(0, math.ceil((high + 1) * self.size / 2)))

        return ..., pixels(top, bottom, dy), pixels(left, right, dx)

    def mix(self, at: tuple, colour: Tensor, alpha: Tensor) -> None:
        """Colour, as opaque as alpha (n, h, w) says, over the colour drawing alone."""
        if self.image is not None:
            canvas = self.image[at]
            canvas += (colour - canvas).mul_(alpha[:, None])

    def shade(self, at: tuple, colour: Tensor, d: Tensor, strength=1) -> None:
        """Light, shadow or pattern: a shape on the colour drawing alone."""
        if self.image is not None:
            self.mix(at, colour, _coverage(d * self.px) * strength)

    def paint(self, at: tuple, part: str, colour: Tensor, d: Tensor, shown=None,
              ink=False) -> None:
        """Covers with a shape what was drawn before. shown: 0 or 1, (n, 1, 1). ink: thin, so
        that an outline drawing fills it with black instead of following its edge."""
        d = d * self.px
        cover = _coverage(d)
        if shown is not None:
            cover *= shown
        self.mix(at, colour, cover)
        if self.line is not None:
            edge = cover if ink else _coverage(d.abs() - self.pen)
            line = self.line[at]
            line *= 1 - cover
            torch.maximum(line, edge if shown is None else edge * shown, out=line)
        if self.flat is not None:
            flat = self.flat[at]
            flat.copy_(torch.where(cover[:, None] > 0.5, colour, flat))
        if self.parts is not None:
            self.parts[at].masked_fill_(cover > 0.5, PARTS.index(part))


def _draw_faces(p: SimpleNamespace, x: Tensor, y: Tensor, want: Sequence[str]) -> dict:
    """Back to front. p: tensors (n, 1, 1) or (n, 3, 1, 1); x, y: pixel centres of the picture."""
    n, size = len(p.scale), x.shape[-1]
    sheet = _Sheet(n, size, p.scale * (size / 2), want)
    paint, mix, shade = sheet.paint, sheet.mix, sheet.shade
    white, black = torch.ones(3, 1, 1), torch.full((3, 1, 1), 0.1)
    all_x, all_y = torch.broadcast_tensors((x - p.shift_x) / p.scale, (y - p.shift_y) / p.scale)
    up = all_y - 0.5  # the head turns about the neck
    head_x, head_y = p.cos * all_x + p.sin * up, p.cos * up - p.sin * all_x + 0.5

    def on_body(*box: float, x=all_x, y=all_y) -> tuple:
        """The pixels that a rectangle can fall on, see region, and where they lie."""
        at = sheet.region(*box)
        return at, x[at], y[at]

    on_head = functools.partial(on_body, x=head_x, y=head_y)

    def skull(x, y, grow):
        return _ellipse(x, y + 0.08, p.head + grow, 0.5 + grow)

    def head(x, y):
        return _blend(skull(x, y, 0), _ellipse(x, y - 0.2, p.head * p.jaw, p.chin), 0.15)

    def above(x, y, middle, centre, curve, lowest):
        """The half plane above a parabola, which goes no lower than that."""
        off = x - centre
        slope = 2 * curve * off
        return torch.maximum((y - middle - curve * off * off) * (1 + slope * slope).rsqrt_(),
                             y - lowest)

    everywhere = ..., slice(None), slice(None)
    if sheet.image is not None:
        way = (0.5 + p.wall_x * x + p.wall_y * y).clamp_(0, 1)
        glow = 1 - ((x - p.glow_x).square() + (y - p.glow_y).square()) * 0.5
        sheet.image += p.wall
        mix(everywhere, p.wall_too, way)
        mix(everywhere, white, glow.clamp_min_(0).square_() * 0.45)
    if sheet.flat is not None:
        sheet.flat += (p.wall + p.wall_too) / 2

    # Hair behind the head and the shoulders
    back_hair = p.hair * 0.78
    if p.straight.any():
        at, x, y = on_head(-0.8, -0.75, 0.8, 1.0)
        t = y * 2.5
        t = t - 2 * (t * 0.5 + 0.5).floor()  # -1 .. 1, then one wave of parabolas
        d = _box(x + p.wave * 4 * t * (1 - t.abs()), y - 0.12, p.head + p.back, 0.76, 0.45)
        paint(at, "hair", back_hair, d, p.straight)
    if p.pigtails.any():
        at, x, y = on_head(-0.9, -0.4, 0.9, 0.7)
        x = x.abs() - p.head
        paint(at, "hair", back_hair, _ellipse(x - 0.19, y - 0.15, 0.14, 0.34), p.pigtails)
        paint(at, "hair", p.trim, _circle(x - 0.11, y + 0.12, 0.07), p.pigtails)
    if p.curly_hair.any():
        at, x, y = on_head(-0.85, -0.95, 0.85, 0.4)
        d = skull(x, y, 0.06)
        for k in range(11):
            angle = math.radians(21 * k - 15)
            around = (p.head + 0.08) * math.cos(angle), -0.12 - 0.52 * math.sin(angle)
            d = torch.minimum(d, _circle(x - around[0], y - around[1], p.curl))
        paint(at, "hair", back_hair, d, p.curly_hair)
    if p.bun.any():
        at, x, y = on_head(-0.3, -1.0, 0.3, -0.4)
        paint(at, "hair", p.hair, _circle(x, y + 0.70, 0.20), p.bun)

    # Neck and clothes
    at, x, y = on_body(-0.4, 0.3, 0.4, 1.1)
    neck = _box(x, y - 0.7, p.neck, 0.4, 0.1)
    paint(at, "neck", p.skin, neck)
    at, x, y = on_body(-1.1, 0.6, 1.1, 1.2)
    body = _ellipse(x, y - 1.32, p.shoulders, 0.58)
    paint(at, "clothes", p.clothes, body)
    stripe = ((y * 5 - (y * 5).floor() - 0.5).abs() - 0.25) / 5
    shade(at, p.trim, torch.maximum(stripe, body), p.striped)
    opening = torch.where(p.v_neck > 0, x.abs() * 0.85 + (y - 1.0) * 0.53,
                          _ellipse(x, y - 0.72, p.neck + 0.07, 0.13))
    tips = 0.9 * (y - 0.8 - 0.4 * x.abs())
    d = torch.maximum((opening - 0.065).abs() - 0.085, torch.maximum(tips, 0.68 - y))
    paint(at, "clothes", p.trim, d, p.collar)
    paint(at, "clothes", p.trim, torch.maximum(opening - 0.045, body))
    paint(at, "neck", p.skin, torch.maximum(opening, body - 0.03))
    if sheet.image is not None:
        at, x, y = on_head(-0.4, 0.3, 0.4, 1.0)
        d = torch.maximum(_box(all_x[at], all_y[at] - 0.6, p.neck, 0.4, 0.1), head(x, y - 0.09))
        shade(at, p.dim_skin, d, 0.8)

    # Head
    at, x, y = on_head(-0.7, -0.3, 0.7, 0.4)
    x, y = x.abs() - p.head, y - 0.05
    paint(at, "skin", p.skin, _ellipse(x, y, p.ear, 0.13))
    shade(at, p.dim_skin, _ellipse(x - 0.015, y, p.ear * 0.5, 0.07))
    at, x, y = on_head(-0.6, -0.7, 0.6, 0.75)
    face = head(x, y)
    paint(at, "skin", p.skin, face)
    if sheet.image is not None:
        cover = _coverage(face * sheet.px)
        mix(at, p.dim_skin, cover * (0.15 + p.light * x * 1.4 + y * 0.25).clamp_(0, 0.8))
        cheek = 1 - ((x.abs() - 0.25).square() + (y - 0.2).square()) * 70
        mix(at, p.lips, cover * cheek.clamp_min_(0) * p.blush)
    full = torch.maximum(face - 0.025, above(x, -y, -0.19, 0, 1.1, 9))
    moustache = _lens(x, y - p.mouth_y + 0.06, 0.16, -0.035, -0.01) - 0.022
    goatee = torch.minimum(moustache, _ellipse(x, y - 0.49, 0.13, 0.12))
    d = torch.where(p.goatee > 0, goatee, full)
    paint(at, "beard", p.hair * 0.85, d, p.beard)

    # Nose and mouth
    at, x, y = on_head(-0.2, -0.1, 0.2, 0.3)
    d = _blend(_ellipse(x, y - p.nose_y, p.nose_w, 0.05),
               _segment(x, y, 0, p.nose_y - p.nose_up, 0, p.nose_y, 0.02, 0.045), 0.06)
    paint(at, "nose", p.dim_skin * 0.93, d)
    shade(at, p.skin, _circle(x + p.light * 0.02, y - p.nose_y + 0.012, 0.022), 0.7)
    at, x, y = on_head(-0.3, 0.1, 0.3, 0.6)
    y = y - p.mouth_y
    mouth = _lens(x, y, p.mouth_w, p.lip_top, p.lip_bottom)
    paint(at, "mouth", p.lips * 0.85, mouth - p.lip, ink=True)
    paint(at, "mouth", black, mouth, p.open_mouth, ink=True)
    teeth = torch.maximum(mouth, y - p.lip_top - 0.055)
    paint(at, "mouth", white, teeth, p.open_mouth)

    # Hair before the head
    if p.hairy.any():
        at, x, y = on_head(-0.65, -0.8, 0.65, 0.5)
        scalp = skull(x, y, p.volume)
        d = torch.maximum(scalp, above(x, y, p.hairline, p.part, p.curve, p.sides))
        paint(at, "hair", p.hair, d, p.hairy)
        sheen = torch.maximum(_ellipse(x + p.light * 0.2, y + 0.48, 0.14, 0.03), d)
        shade(at, white, sheen, p.hairy * 0.16)
    if p.curly_hair.any():
        at, x, y = on_head(-0.6, -0.75, 0.6, -0.1)
        d = _circle(x, y + 0.42, p.curl)
        for k in (-2, -1, 1, 2):
            d = torch.minimum(d, _circle(x - 0.17 * k, y + 0.42 - 0.025 * k * k, p.curl))
        paint(at, "hair", p.hair, d, p.curly_hair)
    if p.mohawk.any():
        at, x, y = on_head(-0.65, -1.0, 0.65, 0.0)
        shaved = torch.maximum(skull(x, y, 0), above(x, y, -0.30, 0, 1.5, 0.0))
        shade(at, p.hair, shaved, p.mohawk * 0.4)
        d = None
        for k in (-2, -1, 0, 1, 2):
            spike = _segment(x, y, 0.04 * k, -0.42, 0.14 * k, -0.55 - p.spike + 0.035 * k * k,
                             0.11, 0.01)
            d = spike if d is None else torch.minimum(d, spike)
        paint(at, "hair", p.hair, d, p.mohawk)

    # Eyes and brows: over the hair, so that no fringe hides them
    at, x, y = on_head(-0.4, -0.25, 0.4, 0.25)
    y = y - p.eye_y
    x = torch.where(x < 0, x + p.eye_x, x - p.eye_x)
    lid = -p.eye_h * p.lid - y
    white_of_eye = torch.maximum(_ellipse(x, y, p.eye_w, p.eye_h), lid)
    lash = torch.maximum(_ellipse(x, y + 0.012, p.eye_w + 0.014, p.eye_h + 0.012), lid - 0.03)
    paint(at, "eye", black, lash, ink=True)
    paint(at, "eye", white, white_of_eye)
    x, y = x - p.gaze_x, y - p.gaze_y
    iris = torch.maximum(_circle(x, y, 0.067), white_of_eye)
    shade(at, p.iris, iris)
    paint(at, "eye", black, torch.maximum(_circle(x, y, 0.036), white_of_eye), ink=True)
    shade(at, white, _circle(x + 0.022, y + 0.025, 0.017))
    at, x, y = on_head(-0.4, -0.3, 0.4, 0.05)
    x, y = x.abs() - p.eye_x, y - p.eye_y + p.eye_h + p.brow_up
    d = torch.minimum(_segment(x, y, -0.09, p.brow_in, 0.02, -0.02, p.brow, p.brow),
                      _segment(x, y, 0.02, -0.02, 0.11, p.brow_out, p.brow, 0.6 * p.brow))
    paint(at, "eyebrow", p.hair * 0.62, d, ink=True)

    # What is worn on the head
    at, x, y = on_head(-0.62, 0.1, 0.62, 0.4)
    x, y = x.abs() - p.head - 0.03, y - 0.22
    d = torch.where(p.hoop > 0, _circle(x, y - 0.03, 0.055).abs() - 0.02, _circle(x, y, 0.045))
    paint(at, "earring", p.gold, d, p.earrings)
    if p.hat.any():
        at, x, y = on_head(-0.95, -1.0, 0.95, 0.0)
        crown = skull(x, y, p.volume + 0.04)
        if p.cap.any():
            paint(at, "hat", p.hat_colour, torch.maximum(crown, y + 0.26), p.cap)
            peak = _lens(x - p.visor, y + 0.27, p.head + 0.06, -0.06, 0.12) - 0.025
            paint(at, "hat", p.ribbon, peak, p.cap)
        if p.beanie.any():
            paint(at, "hat", p.ribbon, _circle(x, y + 0.76, 0.13), p.beanie)
            paint(at, "hat", p.hat_colour, torch.maximum(crown - 0.03, y + 0.3), p.beanie)
            band = _box(x, y + 0.31, p.head + p.volume + 0.04, 0.08, 0.06)
            paint(at, "hat", p.ribbon, band, p.beanie)
        if p.sun_hat.any():
            top = _box(x, y + 0.5, p.head * 0.85, 0.3, 0.2)
            paint(at, "hat", p.hat_colour, top, p.sun_hat)
            paint(at, "hat", p.ribbon, torch.maximum(top, -0.46 - y), p.sun_hat)
            paint(at, "hat", p.hat_colour, _ellipse(x, y + 0.31, p.head + 0.34, 0.10), p.sun_hat)
    at, x, y = on_head(-0.62, -0.25, 0.62, 0.25)
    x, y = x.abs(), y - p.eye_y
    lens = _box(x - p.eye_x, y, p.lens_w, p.lens_h, torch.minimum(p.lens_w, p.lens_h) * p.round)
    bridge = _segment(x, y, 0, -0.03, p.eye_x - p.lens_w, -0.02, p.frame_w, p.frame_w)
    arm = _segment(x, y, p.eye_x + p.lens_w, -0.03, p.head + 0.04, -0.04, 0.02, 0.02)
    shade(at, white, lens, p.glasses * 0.16)
    d = torch.minimum(lens.abs() - p.frame_w, torch.minimum(bridge, arm))
    paint(at, "glasses", p.frame, d, p.glasses, ink=True)

    if sheet.image is not None:  # one soft light over all, from the side that the face is lit from
        sheet.image *= (1 - 0.08 * p.light * all_x - 0.05 * all_y)[:, None]
        sheet.image.clamp_(0, 1)
    finish = {"image": lambda: _bytes(sheet.image), "flat": lambda: _bytes(sheet.flat),
              "outline": lambda: _bytes(1 - sheet.line)[:, None], "label_map": lambda: sheet.parts,
              "pencil": lambda: _bytes(_pencil(sheet, all_x, all_y))}
    return {name: finish[name]() for name in want}


def _pencil(sheet: _Sheet, x: Tensor, y: Tensor) -> Tensor:
    """(n, 3, h, w): the outlines in soft graphite, the tones smudged and hatched both ways."""
    r, g, b = sheet.image.unbind(1)
    dark = 1 - (0.3 * r + 0.59 * g + 0.11 * b)
    graphite = 0.35 * dark.square()  # smudged with a finger
    for slope, bend, threshold in ((0.7, 0.15, 0.15), (-0.8, -0.1, 0.45)):
        lines = (x + slope * y + bend * x * y) * 10
        ridge = 2 * (lines - lines.floor() - 0.5).abs()  # 0 on a line of hatching, 1 between two
        weight = ((dark - threshold) * 1.3).clamp_(0, 1)
        hatch = _coverage((ridge - weight) * (sheet.px / 20)) * (4 * weight).clamp_max_(1)
        graphite = 1 - (1 - graphite) * (1 - hatch * (0.12 + 0.4 * dark))
    graphite = torch.maximum(graphite, 0.92 * sheet.line)
    paper, lead = torch.tensor([0.98, 0.965, 0.93]), torch.tensor([0.16, 0.16, 0.19])
    return paper[:, None, None] + (lead - paper)[:, None, None] * graphite[:, None]


def faces(index: Index, size: int = 64, seed: int = 0,
          want: Sequence[str] = ("image",)) -> dict[str, Tensor]:
    """Cartoon portraits with everything that is known about them.

    index: any integers >= 0, in any order. want: which of these to draw, all of the same face, and
    all uint8 but for "label", int64 (n,), what is on the head, an index into FACE_CLASSES:
    "image", "pencil", "flat" (n, 3, size, size), in colour, as a pencil drawing, each part in one
    colour, without light, shadow or pattern; "outline" (n, 1, size, size), black lines on white;
    "label_map" (n, size, size), the part each pixel shows, an index into PARTS; "attributes"
    (n, len(ATTRIBUTES)), 0 or 1, independent but for the hair colours, of which none has two.
    """
    if unknown := [w for w in want if w not in DRAWINGS]:
        raise ValueError(f"want: {unknown} unknown, choose from {', '.join(DRAWINGS)}")
    x, y = _grid(size)
    index = np.asarray(index, dtype=np.int64).tolist()
    p, label, attributes = _face_parameters(seed, index)
    known = {"label": torch.from_numpy(label), "attributes": torch.from_numpy(attributes)}
    shapes = {"image": (3, size, size), "pencil": (3, size, size), "outline": (1, size, size),
              "flat": (3, size, size), "label_map": (size, size)}
    out = {w: known[w] if w in known
           else torch.empty(len(index), *shapes[w], dtype=torch.uint8) for w in want}
    drawn = [w for w in want if w in shapes]
    order = np.argsort(label, kind="stable")  # of one class, most of a chunk lack the same things

    def draw(part: slice) -> None:
        rows = order[part]
        lots = SimpleNamespace(**{name: _planes(value[rows]) for name, value in p.items()})
        for name, picture in _draw_faces(lots, x, y, drawn).items():
            out[name][torch.from_numpy(rows)] = picture

    _in_chunks(draw, len(index) if drawn else 0, 2**17 // size**2)
    return out
