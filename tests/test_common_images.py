"""common/images.py: every kind of file comes out right, and every file written is whole."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import images


def save(path, array, mode=None, **options):
    im = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
    (im.convert(mode) if mode else im).save(path, **options)
    return path


def smooth(h, w):
    """uint8 (h, w, 3) without fine detail, so that two good resizers agree on it."""
    y, x = np.mgrid[:h, :w]
    return np.stack([x * 255 / w, y * 255 / h, 128 + 100 * np.sin(x / w * 9)], 2).astype("u1")


# Reading

@pytest.mark.parametrize("value, expected", [(0, 0), (257, 1), (65280, 254), (65535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled(tmp_path, value, expected, suffix):
    path = save(tmp_path / f"a.{suffix}", np.full((4, 4), value, np.uint16))
    assert images.header(path) == ("deep", False)
    assert images.read_image(path, channels=1).unique().tolist() == [expected]


@pytest.mark.parametrize("top", [1, 255])
def test_float_tiff_in_either_convention(tmp_path, top):
    a = np.linspace(0, top, 16, dtype=np.float32).reshape(4, 4)
    x = images.read_image(save(tmp_path / "a.tif", a), channels=1)
    assert torch.equal(x.flatten(), torch.arange(16, dtype=torch.uint8) * 17)


@pytest.mark.parametrize("kind, top, white, usual", [
    ("I", 65535, 65535, True), ("I", 16384, 65535, True), ("I", 4095, 4095, False),
    ("I", 900, 1023, False), ("I", 5, 255, False), ("I", 0, 65535, True), ("F", 1, 1, True),
    ("F", 0.05, 0.0625, False), ("F", 200, 255, True), ("F", 9.5, 16, False),
    ("F", 300, 512, False)])
def test_white_of_a_set(kind, top, white, usual):
    assert images.white_of(kind, top) == (white, usual)


def test_deep_pictures_by_the_white_of_their_set(tmp_path):
    a = np.arange(130 * 7, dtype=np.uint16).reshape(130, 7) * 4  # more than two strips of rows
    path = save(tmp_path / "a.png", a)
    assert images.value_range(path) == ("I", 0, a.max())
    x = images.read_image(path, channels=1, white={"I": 4095})[0]
    assert np.array_equal(x, np.round(a * (255 / 4095)))
    f = np.linspace(-1, 9, 40, dtype=np.float32).reshape(8, 5)
    path = save(tmp_path / "a.tif", f)
    assert images.value_range(path) == ("F", -1, 9)
    x = images.read_image(path, channels=1, white={"F": 16.0})[0]
    assert np.array_equal(x, np.round(f * (255 / 16)).clip(0))


def test_integers_of_no_known_range_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.full((4, 4), 70000, np.int32))
    with pytest.raises(ValueError, match="32-bit"):
        images.read_image(path)


def test_one_bit(tmp_path):
    path = save(tmp_path / "a.png", np.eye(4, dtype="u1") * 255, "1")
    assert torch.equal(images.read_image(path, channels=1)[0], torch.eye(4).byte() * 255)


def test_transparency_lies_on_white(tmp_path):
    rgba = np.zeros((4, 4, 4), "u1")
    rgba[..., 0], rgba[0, :, 3], rgba[1, :, 3] = 200, 255, 51  # opaque, a fifth, nothing
    x = images.read_image(save(tmp_path / "a.png", rgba))
    assert x[:, 0, 0].tolist() == [200, 0, 0]
    assert x[:, 1, 0].tolist() == [244, 204, 204]
    assert x[:, 2, 0].tolist() == [255, 255, 255]


def test_grey_with_alpha_is_grey(tmp_path):
    path = save(tmp_path / "a.png", np.tile(np.array([90, 0], "u1"), (4, 4, 1)))
    assert images.header(path) == ("grey", False)
    assert images.read_image(path, channels=1).unique().tolist() == [255]


def test_palette_with_a_transparent_colour(tmp_path):
    im = Image.new("P", (4, 4), 1)
    im.putpalette([9, 9, 9, 10, 20, 30])
    im.putpixel((0, 0), 0)
    x = images.read_image(save(tmp_path / "a.png", im, transparency=0))
    assert x[:, 0, 0].tolist() == [255, 255, 255]
    assert x[:, 1, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix, slack", [("tif", 0), ("jpg", 3)])  # JPEG stores CMYK inverted
def test_cmyk(tmp_path, suffix, slack):
    path = save(tmp_path / f"a.{suffix}", Image.new("CMYK", (8, 8), (255, 0, 0, 0)))
    x = images.read_image(path)[:, 4, 4].int()
    assert (x - torch.tensor([0, 255, 255])).abs().max() <= slack


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.arange(24, dtype="u1").reshape(4, 6) * 10
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T,
              8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(images.read_image(path, channels=1)[0], upright)


def test_a_turned_picture_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", smooth(200, 300), exif=exif)
    for size in (None, 8):  # as it is, or decoded small
        x, sides = images.read_upright(path, size)
        assert sides == (300, 200) and x.shape == (3, *([8, 8] if size else sides))


def test_first_frame_of_an_animation(tmp_path):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    path = save(tmp_path / "a.webp", first, save_all=True, append_images=[second], lossless=True)
    assert images.read_image(path)[:, 0, 0].tolist() == [255, 0, 0]


def test_centre_crop_without_stretching(tmp_path):
    wide = np.zeros((16, 48), "u1")
    wide[:, 16:32] = np.arange(16) * 16
    for name, a in (("wide", wide), ("high", wide.T)):
        x = images.read_image(save(tmp_path / f"{name}.png", a), 16, channels=1)[0]
        assert np.array_equal(x, a[:, 16:32] if name == "wide" else a[16:32])


@pytest.fixture
def decoded(monkeypatch):
    """The short sides of the pictures that get resized, as they come out of the decoder."""
    sides = []
    monkeypatch.setattr(images, "_square", lambda im, real=images._square:
                        sides.append(min(im.size)) or real(im))
    return sides


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path, decoded):
    path = save(tmp_path / "a.jpg", smooth(1536, 2048), quality=95)
    full = images.resize(images.read_image(path), 64)
    fast = images.read_image(path, 64)
    assert decoded == [1536, 192]
    assert (full.int() - fast.int()).abs().max() <= 3


@pytest.mark.parametrize("size", [256, 300, 511, 512, 700])
def test_no_jpeg_is_decoded_below_the_size(tmp_path, decoded, size):
    images.read_image(save(tmp_path / "a.jpg", smooth(512, 640)), size)
    assert decoded[0] >= min(size, 512)


@pytest.mark.parametrize("content, reason", [
    (b"hello", "not an image"), (b"", "not an image"), ("cut", "truncated"), ("tiny", "too small"),
    ("bomb", "exceeds limit"), (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an im"),
    ("pipe", "not a file of data"), ("folder", "not a file of data")])
def test_bad_files_give_a_short_reason(tmp_path, monkeypatch, content, reason):
    path = tmp_path / "a.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content in ("pipe", "folder"):
        (os.mkfifo if content == "pipe" else os.mkdir)(path)
    else:
        save(path, np.random.default_rng(0).integers(0, 255, (3, 3) if content == "tiny"
                                                     else (64, 64), "u1"))
    if content == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    if content == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises((OSError, ValueError), match=reason):
        images.read_image(path, 8)
    assert content == "bomb" or images.header(path) == ("grey", False)


def test_ids_are_never_interpolated(tmp_path):
    a = np.zeros((40, 40), "u1")
    a[:, 20:] = 200
    assert images.read_ids(save(tmp_path / "a.png", a), 17).unique().tolist() == [0, 200]
    p = Image.fromarray(a // 100)
    p = p.convert("P")
    assert images.read_ids(save(tmp_path / "p.png", p)).dtype == torch.int32
    with pytest.raises(ValueError, match="one channel"):
        images.read_ids(save(tmp_path / "c.png", smooth(8, 8)))


def test_halves(tmp_path):
    both = np.concatenate([np.full((8, 8, 3), 10, "u1"), np.full((8, 8, 3), 200, "u1")], 1)
    a, b = images.read_halves(save(tmp_path / "a.png", both), 8)
    assert (a == 10).all() and (b == 200).all() and a.shape == (3, 8, 8)
    with pytest.raises(ValueError, match="side by side"):
        images.read_halves(save(tmp_path / "b.png", both[:, :8]), 8)


def test_palette_has_distinct_colours():
    assert len(images.PALETTE.unique(dim=0)) == 256
    assert images.PALETTE[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


# Writing

def test_the_range_is_fixed(tmp_path):
    x = torch.zeros(2, 1, 4, 4)
    x[1] = 0.5
    im = np.asarray(images.grid(x, pad=0))
    assert (im[:, :4] == 128).all() and (im[:, 4:8] == 191).all()
    assert images.to_uint8(torch.tensor([-9.0, -1, 1, 9])).tolist() == [0, 0, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(every / 127.5 - 1), every)


def test_grid_places_rows_pads_and_scales():
    x = torch.linspace(-1, 0.9, 5)[:, None, None, None].expand(5, 3, 4, 6)
    im = images.grid(x, n_cols=2, pad=1, scale=3)
    assert im.mode == "RGB" and im.size == (1 + 2 * 19, 1 + 3 * 13)
    a = np.asarray(im)
    for i in range(5):
        top, left = 1 + i // 2 * 13, 1 + i % 2 * 19
        assert (a[top:top + 12, left:left + 18] == images.to_uint8(x[i, 0, 0, 0]).item()).all()
    assert (a[-13:, 20:] == 255).all() and (a[0] == 255).all()  # no sixth picture, the border


def test_captions_stand_left_and_fit():
    x = torch.full((4, 1, 32, 32), -1.0)
    plain, told = images.grid(x, 2), images.grid(x, 2, captions=["a", "a long caption"])
    margin = told.width - plain.width
    assert told.mode == "L" and told.height == plain.height
    assert np.array_equal(np.asarray(told)[:, margin:], np.asarray(plain))
    left = np.asarray(told)[:, :margin]
    assert (left[:34].min(), left[34:].min()) < (100, 100) and (left[:, 0] == 255).all()
    with pytest.raises(ValueError, match="3 captions for 2 rows"):
        images.grid(x, 2, captions=["a"] * 3)


def test_a_caption_of_other_letters_is_its_number():
    x = torch.full((4, 1, 32, 32), -1.0)
    for text in ("\u732b", "caf\u0441", "\udcff"):  # Chinese, one Cyrillic letter, not UTF-8
        assert (images.grid(x, 2, captions=["caf\xe9", text]).tobytes()
                == images.grid(x, 2, captions=["caf\xe9", "1"]).tobytes())


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB")])
def test_files_come_back(tmp_path, channels, mode):
    x = torch.randint(256, (channels, 8, 8)).byte()
    images.write_image(tmp_path / "new" / "a.png", x / 127.5 - 1)
    images.write_image(tmp_path / "new" / "b.png", x)
    assert len({path.read_bytes() for path in (tmp_path / "new").iterdir()}) == 1
    with Image.open(tmp_path / "new" / "a.png") as im:
        assert im.mode == mode
    assert torch.equal(images.read_image(tmp_path / "new" / "a.png", channels=channels), x)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.save_grid(path, torch.zeros(1, 1, 4, 4))
    before = path.read_bytes()

    def half(self, target, **options):
        Path(target).write_bytes(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        images.save_grid(path, torch.ones(1, 1, 4, 4))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_gif_has_few_frames_and_holds_the_last(tmp_path):
    frames = []
    for i in range(100):
        frames.append(tmp_path / f"{i}.png")
        images.save_grid(frames[-1], torch.full((1, 1, 8, 8), i / 50 - 1))
    images.save_gif(tmp_path / "a.gif", frames, seconds=0.1, hold=3)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == images.MAX_FRAMES and film.info["duration"] == 100
        film.seek(film.n_frames - 1)
        assert film.info["duration"] == 3000
        last = np.asarray(film.convert("L"))[4, 4]
        assert abs(int(last) - int(images.to_uint8(torch.tensor(0.98)))) <= 1


def test_gif_refuses_what_it_cannot_show(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        images.save_gif(tmp_path / "a.gif", [])
    with pytest.raises(ValueError, match="two sizes"):
        images.save_gif(tmp_path / "a.gif", [Image.new("L", (8, 8)), Image.new("L", (9, 8))])


def colours(path):
    """How many pixels the first two curves have in each panel: [[panel 1], [panel 2], ...]."""
    with Image.open(path) as im:
        a = np.asarray(im).astype(int)
    return [[int((abs(panel - np.array(rgb)).sum(2) < 60).sum())
             for rgb in ((0x00, 0x72, 0xb2), (0xd5, 0x5e, 0x00))]
            for panel in np.split(a, len(a) // 300)]


def test_curves_losses_above_the_others(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,loss_d,d_real,loss_g\n" + "".join(
        f"{i},{i % 7},{0.5},{'nan' if i % 3 else 1e9 if i == 60 else 2}\n" for i in range(1, 200))
        + "200,0.1")
    images.save_curves(tmp_path / "a.png", log)
    (d, g), (real, none) = colours(tmp_path / "a.png")
    assert d > 2000  # the 1e9 of the other curve has not flattened it
    assert g > 100 and real > 500 and none == 0


@pytest.mark.parametrize("text", [
    "", "step\n", "step,loss\n", "step,loss\n1,nan\n", "step,loss\n1,2",
    "step,loss\n1,inf\n2,-inf\n", "step,loss\n1,0\n2,0\n"])
def test_curves_of_next_to_nothing(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    images.save_curves(tmp_path / "a.png", tmp_path / "log.csv")
    (curve, _), = colours(tmp_path / "a.png")
    assert (curve > 0) == ("loss" in text)  # the legend
