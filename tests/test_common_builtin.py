"""The drawn data sets: a function of (seed, index) alone, with ground truth that is true."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import builtin
from common.builtin import ATTRIBUTES, DIGIT_FACTORS, DRAWINGS, FACE_CLASSES, PARTS, digits, faces

PICTURES = ("image", "pencil", "outline", "flat", "label_map")


def drawn_in(batch, draw, order):
    """Everything that draw(index) returns, for order, batch by batch."""
    parts = [draw(order[i:i + batch]) for i in range(0, len(order), batch)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("draw", [
    lambda index: digits(index, 20),
    lambda index: faces(index, 24, want=DRAWINGS),
    lambda index: faces(index, 9, want=DRAWINGS),  # rows that no vector register fits
], ids=["digits", "faces", "odd"])
def test_bit_for_bit_whatever_the_batch(draw):
    index = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:65]
    together = draw(index)
    for batch in (1, 7, 64):
        for name, value in drawn_in(batch, draw, index.tolist()).items():
            assert torch.equal(value, together[name]), (batch, name)
    back = draw(index.flip(0).tolist())
    assert all(torch.equal(back[name].flip(0), together[name]) for name in together)


def test_threads_change_nothing_and_are_given_back():
    before, threads = faces(range(40), 64), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(faces(range(40), 64)["image"], before["image"])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    faces([0], 16)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("draw", [digits, faces])
def test_seed_and_index_both_matter(draw):
    a, b = draw(range(50), 32, seed=0)["image"], draw(range(50), 32, seed=1)["image"]
    assert (a != b).flatten(1).any(1).all()
    assert torch.equal(a, draw(range(50), 32, seed=0)["image"])
    assert len(a.flatten(1).unique(dim=0)) == 50


def test_digits_contract():
    d = digits(range(30), 28)
    assert (d["image"].dtype, d["image"].shape) == (torch.uint8, (30, 1, 28, 28))
    assert d["label"].dtype == torch.int64 and d["label"].tolist() == list(range(10)) * 3
    assert (d["factors"].dtype, d["factors"].shape) == (torch.float32, (30, len(DIGIT_FACTORS)))
    assert digits([], 28)["image"].shape == (0, 1, 28, 28)


def test_digits_have_the_ink_of_mnist():
    ink = digits(range(1000), 28)["image"].float().div(255)
    assert 0.09 < ink.mean() < 0.16  # MNIST: 0.131
    low, high = np.quantile(ink.mean((1, 2, 3)), [0.01, 0.99])
    assert low > 0.03 and high < 0.26  # MNIST: 0.049 and 0.246
    border = torch.cat([ink[..., 0, :], ink[..., -1, :], ink[..., 0], ink[..., -1]], -1)
    assert (border.flatten(1).amax(1) > 0.5).float().mean() < 0.02  # none is cut off
    assert ink.amax((1, 2, 3)).min() > 0.7


def test_digit_factors_are_the_true_ones():
    d = digits(range(600), 32)
    ink = d["image"][:, 0].float()
    at = torch.linspace(-1, 1, 32)
    total = ink.sum((1, 2))
    seen = {"thickness": total,
            "shift_x": (ink * at).sum((1, 2)) / total,
            "shift_y": (ink * at[:, None]).sum((1, 2)) / total}
    for name, value in seen.items():
        factor = d["factors"][:, DIGIT_FACTORS.index(name)]
        assert np.corrcoef(factor, value)[0, 1] > 0.25, name
    assert d["factors"][:, DIGIT_FACTORS.index("variant")].unique().tolist() == [0, 1, 2]


def test_digits_are_told_apart_by_their_neighbours():
    def centred(index):
        d = digits(index, 16)
        return F.normalize(F.avg_pool2d(d["image"].float(), 2).flatten(1)), d["label"]
    (known, label), (new, truth) = centred(range(3000)), centred(range(3000, 3300))
    right = (label[(new @ known.T).argmax(1)] == truth).float().mean()
    assert 0.75 < right < 1  # readable, and not trivially so


def test_faces_contract():
    d = faces(range(12), 32, want=DRAWINGS)
    shapes = {"image": (12, 3, 32, 32), "pencil": (12, 3, 32, 32), "outline": (12, 1, 32, 32),
              "flat": (12, 3, 32, 32), "label_map": (12, 32, 32),
              "attributes": (12, len(ATTRIBUTES)), "label": (12,)}
    assert {name: tuple(value.shape) for name, value in d.items()} == shapes
    assert all(d[name].dtype == (torch.int64 if name == "label" else torch.uint8) for name in d)
    assert d["attributes"].max() == 1 and d["label_map"].max() < len(PARTS)
    assert set(faces([0], 16)) == {"image"}
    assert faces([], 16)["image"].shape == (0, 3, 16, 16)


def test_every_want_shows_the_same_face():
    together = faces(range(40), 32, want=DRAWINGS)
    for name in DRAWINGS:
        alone = faces(range(40), 32, want=(name,))
        assert list(alone) == [name] and torch.equal(alone[name], together[name])


def test_what_is_not_wanted_is_not_drawn(monkeypatch):
    monkeypatch.setattr(builtin, "_draw_faces", lambda *_: pytest.fail("drew a picture"))
    faces(range(10), want=("attributes", "label"))
    monkeypatch.undo()
    monkeypatch.setattr(builtin._Sheet, "mix", lambda self, *_: self.image is None
                        or pytest.fail("mixed colours"))
    faces(range(10), 16, want=("outline", "label_map"))
    with pytest.raises(pytest.fail.Exception):
        faces(range(10), 16)


@pytest.mark.parametrize("size", [32, 64])
def test_regions_cut_nothing_off(monkeypatch, size):
    cropped = faces(range(300), size, want=PICTURES)
    monkeypatch.setattr(builtin._Sheet, "region",
                        lambda *_: (..., slice(None), slice(None)))
    whole = faces(range(300), size, want=PICTURES)
    for name in PICTURES:
        wrong = (cropped[name] != whole[name]).flatten(1).any(1).nonzero().flatten()
        assert not len(wrong), (name, wrong.tolist())


@pytest.mark.parametrize("draw", [digits, faces])
def test_the_same_picture_at_every_size(draw):
    small, large, huge = (draw(range(60), size)["image"].float() for size in (32, 64, 256))
    for shrunk in (F.avg_pool2d(large, 2), F.avg_pool2d(huge, 8)):
        far = (shrunk - small).abs().mean((1, 2, 3))
        strangers = (shrunk.roll(1, 0) - small).abs().mean((1, 2, 3))
        assert far.max() < 10 and far.mean() < 0.2 * strangers.mean(), (far.max(), far.mean())


def test_classes_are_balanced():
    label = faces(range(5000), want=("label",))["label"]
    share = label.bincount(minlength=len(FACE_CLASSES)) / 5000
    assert len(share) == len(FACE_CLASSES)
    assert (share - 1 / len(FACE_CLASSES)).abs().max() < 0.02


def test_attributes_are_frequent_and_independent():
    a = faces(range(5000), want=("attributes",))["attributes"].double().numpy()
    share = dict(zip(ATTRIBUTES, a.mean(0), strict=True))
    assert all(0.2 < s < 0.55 for s in share.values()), share
    colours = [ATTRIBUTES.index(name) for name in ("dark_hair", "blond_hair", "red_hair")]
    assert a[:, colours].sum(1).max() == 1  # no one has two
    correlation = np.corrcoef(a.T)
    correlation[np.ix_(colours, colours)] = 0
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.06  # 4 standard errors of 5,000 independent pairs


def test_label_maps_agree_with_the_attributes():
    d = faces(range(400), 64, want=("label_map", "attributes", "label"))
    there = torch.stack([(d["label_map"] == i).flatten(1).any(1) for i in range(len(PARTS))], 1)
    for attribute, part in (("glasses", "glasses"), ("hat", "hat"), ("earrings", "earring"),
                            ("beard", "beard")):
        has = d["attributes"][:, ATTRIBUTES.index(attribute)].bool()
        assert torch.equal(there[:, PARTS.index(part)], has), attribute
    for part in ("background", "clothes", "neck", "skin", "eye", "nose", "mouth"):
        assert there[:, PARTS.index(part)].all(), part
    bald = d["label"] == FACE_CLASSES.index("bald")
    assert torch.equal(there[:, PARTS.index("hair")], ~bald)
    hats = torch.tensor([name in ("cap", "beanie", "sun hat") for name in FACE_CLASSES])
    assert torch.equal(hats[d["label"]], there[:, PARTS.index("hat")])


def test_glasses_are_visible_at_32_pixels():
    d = faces(range(300), 32, want=("label_map", "attributes"))
    pixels = (d["label_map"] == PARTS.index("glasses")).sum((1, 2))
    has = d["attributes"][:, ATTRIBUTES.index("glasses")].bool()
    assert pixels[has].min() >= 8 and pixels[~has].max() == 0


def test_no_two_of_500_faces_alike():
    image = F.avg_pool2d(faces(range(500), 32)["image"].float(), 2).flatten(1)
    far = torch.pdist(image) / image.shape[1] ** 0.5  # root mean square, of 255
    assert far.min() > 8, far.min()


def test_flat_colours_are_the_parts_and_nothing_else():
    d = faces(range(100), 64, want=("flat", "image", "label_map"))
    for flat, image, parts in zip(d["flat"], d["image"], d["label_map"], strict=True):
        # No light, shadow or pattern: few colours, on one wall a single one
        assert len(flat.flatten(1).unique(dim=1).T) <= 16 < len(image.flatten(1).unique(dim=1).T)
        assert len(flat[:, parts == PARTS.index("background")].unique(dim=1).T) == 1
    # The portrait has these colours, but for the light: the same part is similar in both
    for part in ("hair", "clothes", "hat", "skin", "background"):
        there = (d["label_map"] == PARTS.index(part)).float()[:, None]
        rows = there.sum((1, 2, 3)) > 20
        mean = [((d[name] * there).sum((2, 3)) / there.sum((2, 3)))[rows]
                for name in ("flat", "image")]
        assert np.corrcoef(*(m.flatten() for m in mean))[0, 1] > 0.85, part


def test_outline_and_pencil_are_drawings():
    d = faces(range(50), 64, want=("outline", "pencil"))
    outline, pencil = d["outline"].float(), d["pencil"].float()
    assert 0.02 < (outline < 128).float().mean() < 0.25
    assert (outline > 250).float().mean() > 0.6  # paper
    assert (pencil.amax(1) - pencil.amin(1)).max() < 30  # graphite has no colour
    assert pencil.std((1, 2, 3)).min() > 20


def test_what_a_caller_can_get_wrong():
    with pytest.raises(ValueError, match="at least 8"):
        digits([0], 7)
    with pytest.raises(ValueError, match="at least 8"):
        faces([0], 0)
    with pytest.raises(ValueError, match="smile.*choose from image"):
        faces([0], want=("image", "smile"))
