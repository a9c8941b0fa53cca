"""stargan/: networks, labels and masks, losses, the schedule, several sets, translating files."""
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import assert_resume_refused, feature_maps, load, main, n_parameters, tiny
from PIL import Image
from torch import nn

from common import data
from common.images import read_image

model, train, sample = (load("stargan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data", "place")
SMALL = "--width", 4, "--n-blocks", 1, "--size", 16
HAIR = [["dark_hair", "blond_hair", "red_hair"], ["glasses"], ["smiling"]]
BOTH = [HAIR, [["a", "b"]]]  # the drawn faces, and two classes


def trained(out, *flags):
    train.train(train.parse_args(tiny("stargan", out, *SMALL, "--sample-every", 100, *flags)))


@pytest.fixture(scope="module")
def ckpt(small_data, tmp_path_factory):
    """The checkpoint of a finished run. No test changes it."""
    out = tmp_path_factory.mktemp("stargan") / "run"
    trained(out, "--steps", 2)
    return out / "ckpt.pt"


def write_classes(folder, names="ab", n=3, mode="L"):
    """n pictures of noise for each class; those of each are unlike all others."""
    rng = np.random.default_rng(len(str(folder)))
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(20, 24, 3), dtype="u1")
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i}.png")


def translated(*args) -> int:
    return main("stargan", *args, script="sample.py")


def refused(capfd, says: str) -> bool:
    err = capfd.readouterr().err
    return err.startswith("error: ") and err.count("\n") == 1 and says in err


# The networks

def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    assert (args.data, args.size, args.width, args.n_blocks) == ("celeba", 128, 64, 6)
    assert (args.lambda_cls, args.lambda_rec, args.lambda_gp, args.n_critic) == (1, 10, 10, 5)
    assert (args.lr, args.beta1, args.batch_size, args.flip) == (1e-4, 0.5, 16, True)
    assert args.steps == math.ceil(20 * 162_770 / 16 / 5)


def test_parameter_counts():
    with torch.device("meta"):
        for n_labels, size, n_g, n_d in ((5, 128, 8_430_528, 44_762_048), (5, 256, 0, 44_884_928),
                                         (8, 128, 8_439_936, 44_786_624), (15, 128, 8_461_888, 0)):
            assert n_parameters(model.Generator(n_labels)) == n_g or not n_g
            assert n_parameters(model.Discriminator(n_labels, size)) == n_d or not n_d


@pytest.mark.parametrize("size, maps", [(16, 3), (32, 4), (64, 5), (128, 6), (256, 6)])
def test_shapes(size, maps):
    G, D = model.Generator(3, 1, 4, 2), model.Discriminator(3, size, 1, 4)
    in_g, in_d = feature_maps(G, D)
    scores, logits = D(G(torch.randn(2, 1, size, size), torch.ones(2, 3)))
    assert scores.shape == (2, 1, *[max(2, size // 64)] * 2) and logits.shape == (2, 3)
    sides = [1, 2, 4, *[4] * 4, 2, 1, 1]
    assert in_g == [(c, size // s, size // s) for c, s in
                    zip([4, 8, 16, *[16] * 4, 8, 4, 1], sides, strict=True)]
    assert in_d[:maps] == [(4 << i, size >> i + 1, size >> i + 1) for i in range(maps)]


def test_layers():
    """Zeros at all borders, statistics of the image itself in training and after it, slope 0.01."""
    G, D = model.Generator(2, 3, 4, 1), model.Discriminator(2, 16, 3, 4)
    convolutions = [m for net in (G, D) for m in net.modules() if hasattr(m, "padding_mode")]
    assert {m.padding_mode for m in convolutions} == {"zeros"} and not any(
        "Pad" in type(m).__name__ for m in G.modules())
    assert [m.bias is not None for m in convolutions] == [False] * 8 + [True] * 3 + [False] * 2
    assert {m.negative_slope for m in D.modules() if isinstance(m, nn.LeakyReLU)} == {0.01}
    assert not any("Norm" in type(m).__name__ for m in D.modules())
    x, c = torch.randn(3, 3, 16, 16), torch.eye(3)[:, :2]
    y = G(x, c)
    assert list(G.buffers()) == [] and torch.equal(G.eval()(x, c), y)
    assert torch.allclose(G(x[1:2], c[1:2]), y[1:2], atol=1e-6)
    assert len(list(G.parameters())) == 8 + 2 * 7  # each norm has a gain and a bias


def test_labels_come_in_at_the_borders():
    """Reflected, they would be constant, and normalised away."""
    torch.manual_seed(0)
    G, x = model.Generator(2, 3, 4, 1), torch.randn(1, 3, 16, 16)
    ends = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    a, b = (G(x, c[None]) for c in ends)
    assert (a - b).abs().max() > 0.01
    G.net[0].padding_mode = "reflect"
    G.net[0]._reversed_padding_repeated_twice = [3, 3, 3, 3]
    a, b = (G(x, c[None]) for c in ends)
    assert (a - b).abs().max() < 1e-4


# Labels

def test_join():
    c = torch.tensor([[1.0, 0], [1, 1]])
    assert model.join(c, 0, [2]) is c
    assert model.join(c, 0, [2, 3]).tolist() == [[1, 0, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1, 0]]
    assert model.join(c, 1, [3, 2]).tolist() == [[0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 0, 1]]


@pytest.mark.parametrize("domains, c, place, value, new", [
    ([HAIR], [1, 0, 0, 1, 0], 2, None, [0, 0, 1, 1, 0]),  # a colour replaces another
    ([HAIR], [0, 0, 1, 1, 0], 2, None, [0, 0, 1, 1, 0]),
    ([HAIR], [0, 0, 1, 1, 0], 2, 0, [0, 0, 0, 1, 0]),
    ([HAIR], [1, 0, 0, 1, 0], 3, None, [1, 0, 0, 0, 0]),  # an attribute is flipped
    ([HAIR], [1, 0, 0, 1, 0], 3, 1, [1, 0, 0, 1, 0]),
    ([HAIR], [1, 0, 0, 1, 0], 4, 1, [1, 0, 0, 1, 1]),
    (BOTH, [1, 0, 0, 1, 0, 0, 0, 1, 0], 1, None, [0, 1, 0, 1, 0, 0, 0, 1, 0]),
    (BOTH, [1, 0, 0, 1, 0, 0, 0, 1, 0], 6, None, [0, 0, 0, 0, 0, 0, 1, 0, 1]),  # the other set
    (BOTH, [0, 0, 0, 0, 0, 1, 0, 0, 1], 4, None, [0, 0, 0, 0, 1, 0, 0, 1, 0])])
def test_change(domains, c, place, value, new):
    c = torch.tensor([c, c], dtype=torch.float)
    before = c.clone()
    assert model.change(c, domains, place, value).tolist() == [new, new]
    assert torch.equal(c, before)


def test_labels():
    attributes = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    assert train.labels(attributes, torch.tensor([2, 0])).tolist() == [[1, 1], [1, 0]]
    assert train.labels(torch.tensor([1, 0]), torch.arange(2)).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("wanted, domains", [
    ("", HAIR), ("smiling,red_hair/dark_hair", [["smiling"], ["red_hair", "dark_hair"]]),
    ("hat", [["hat"]])])
def test_choose(wanted, domains):
    assert train.choose(wanted, [data.load_attributes("faces", 16)]) == [domains]


def test_choose_from_other_lists(place, capfd):
    write_classes(place / "set")
    names = "Male,Brown_Hair,Black_Hair,Bald,Young,Blond_Hair"
    usual = [["Black_Hair", "Blond_Hair", "Brown_Hair"], ["Male"], ["Young"]]
    for head, domains in ((names, usual),
                          (names[5:], [[name] for name in names[5:].split(",")])):
        row = ",".join("1" * len(head.split(",")))
        (place / "set/a/attributes.csv").write_text(
            f"file,{head}\n" + "".join(f"{i}.png,{row}\n" for i in range(3)))
        assert train.choose("", [train.load("set/a", 16)[0]]) == [domains]
    for flags, says in (("--attributes smile", "smiling"), ("--data set --attributes a", "classes"),
                        ("--data set/a --data-2 faces --attributes hat", "Blond_Hair")):
        with pytest.raises(SystemExit):
            trained("run", *flags.split())
        assert refused(capfd, says)


@pytest.mark.parametrize("flags, says", [
    (("--attributes", "hat/hat"), "twice"), (("--data", "plain"), "looked for attributes.csv")])
def test_data_without_domains_of_their_own(place, capfd, flags, says):
    (place / "plain").mkdir()
    with pytest.raises(SystemExit):
        trained("run", *flags)
    assert refused(capfd, says)


# Losses

def test_losses():
    real, fake = torch.tensor([[[[1.0, 2], [3, 6]]]]), torch.tensor([[[[5.0, 5], [5, 1]]]])
    assert train.d_loss(real, fake) == 4 - 3 and train.g_loss(fake) == -4
    c = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 1, 1, 0]])
    assert train.cls_loss(torch.zeros(2, 5), c, False).item() == pytest.approx(5 * math.log(2))
    logits = torch.randn(2, 5)
    p = logits.sigmoid()
    textbook = -(c * p.log() + (1 - c) * (1 - p).log()).sum() / 2
    assert torch.allclose(train.cls_loss(logits, c, False), textbook)
    one = torch.eye(5)[[4, 1]]
    textbook = -(logits.softmax(1).log() * one).sum() / 2
    assert torch.allclose(train.cls_loss(logits, one, True), textbook)


def test_gradient_penalty():
    """Of a D whose every patch is w x: (n_patches |w| - 1)^2. And where it is taken."""
    w, seen = torch.randn(3, 16, 16), []

    def D(x):
        seen.append(x.detach())
        return (x * w).sum((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), None

    x, x_fake = torch.zeros(64, 3, 16, 16), torch.ones(64, 3, 16, 16)
    penalty = train.gradient_penalty(D, x, x_fake)
    assert penalty.item() == pytest.approx((4 * w.norm().item() - 1) ** 2, rel=1e-5)
    a = seen[0].flatten(1)
    assert (a == a[:, :1]).all() and len(a[:, 0].unique()) == 64  # one number an image
    assert 0 <= a.min() < 0.1 and 0.9 < a.max() <= 1


@pytest.mark.parametrize("steps", [20, 40_000])
def test_learning_rate(steps):
    """As the paper has it: down to 0, not to 0.999 of it."""
    rates = [train.learning_rate(1e-4, step, steps) for step in range(1, steps + 1)]
    assert rates[:steps // 2] == [1e-4] * (steps // 2)
    falls = [a - b for a, b in pairwise(rates[steps // 2:])]
    assert falls == pytest.approx([2e-4 / steps] * len(falls))
    assert rates[-1] == pytest.approx(2e-4 / steps)


# The algorithm

@pytest.mark.parametrize("flags", ["", "--data-2 two/train", "--data two/train --no-flip"])
def test_three_steps(place, monkeypatch, flags):
    """Sec. 3.1 and 3.2, written out again: attributes, both sets in turn, classes alone."""
    monkeypatch.setattr(train, "learning_rate", lambda lr, step, steps: lr * step / steps)
    write_classes(place / "two/train")
    lr, weights = 1e-3, (2.0, 7.0, 3.0)
    with float64():
        trained("run", *flags.split(), "--steps", 3, "--n-critic", 2, "--lr", lr, "--seed", 4,
                *(f"--lambda-{name}={v}" for name, v in zip(("cls", "rec", "gp"), weights,
                                                            strict=True)))
        kinds = ["faces"] * ("--data " not in flags) + ["two"] * ("two" in flags)
        channels = 3 if "faces" in kinds else 1
        n_g, n_d = {1: (5, 5), 2: (9, 7)}[len(kinds)] if "faces" in kinds else (2, 2)
        torch.manual_seed(4)
        G, D = model.Generator(n_g, channels, 4, 1), model.Discriminator(n_d, 16, channels, 4)
        opt_g, opt_d = Adam(G.parameters(), 0.5), Adam(D.parameters(), 0.5)
        sets = {"faces": lambda: data.load_attributes("faces", 16),
                "two": lambda: data.load_labelled("two/train", 16)}
        streams = {kind: sets[kind]().batches(4, seed=4) for kind in kinds}
        attributes, rows = data.load_attributes("faces", 16).attributes, []

        def label(kind, y):
            """What G is told."""
            if kind == "faces":
                c = torch.stack([y[:, attributes.index(name)] for name in (
                    "dark_hair", "blond_hair", "red_hair", "glasses", "smiling")], 1)
                return torch.cat([c, torch.tensor([[0.0, 0, 1, 0]] * 4)], 1)[:, :n_g]
            c = torch.stack([(y == i).double() for i in range(2)], 1)
            if n_g == 2:
                return c
            return torch.cat([torch.zeros(4, 5), c, torch.tensor([[0.0, 1]] * 4)], 1)

        def cls(kind, logits, c):
            if kind == "faces":
                p, c = logits[:, :5].sigmoid(), c[:, :5]
                return -(c * p.log() + (1 - c) * (1 - p).log()).sum(1).mean()
            first = n_d - 2
            return -(c[:, first:first + 2] * F.log_softmax(logits[:, first:], 1)).sum(1).mean()

        for step in (1, 2, 3):
            torch.manual_seed(4 * 1_000_003 + step)
            rate, row = lr * step / 3, []
            for turn in (1, 2):
                for kind in kinds:
                    x, y = next(streams[kind])
                    if len(x[0]) < channels:
                        x = torch.cat([x, x, x], 1)
                    if "--no-flip" not in flags:
                        mirrored = (torch.rand(4, 1, 1, 1) < 0.5).flatten().tolist()
                        x = torch.stack([one.flip(2) if m else one
                                         for one, m in zip(x, mirrored, strict=True)])
                    c_org = label(kind, y)
                    c = c_org[torch.randperm(4)]  # only labels that occur

                    (real, logits), x_fake = D(x), G(x, c).detach()
                    fake, a = D(x_fake)[0], torch.rand(4, 1, 1, 1)
                    x_hat = (a * x + (1 - a) * x_fake).requires_grad_()
                    grad, = torch.autograd.grad(D(x_hat)[0].sum(), x_hat, create_graph=True)
                    penalty = ((grad.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
                    estimate, cls_real = real.mean() - fake.mean(), cls(kind, logits, c_org)
                    loss_d = -estimate + weights[2] * penalty + weights[0] * cls_real
                    opt_d.step(loss_d, rate)
                    if turn == 2:
                        x_fake = G(x, c)
                        fake, logits = D(x_fake)
                        cls_fake, rec = cls(kind, logits, c), (G(x_fake, c_org) - x).abs().mean()
                        loss_g = -fake.mean() + weights[0] * cls_fake + weights[1] * rec
                        opt_g.step(loss_g, rate)
                        row += [loss_d, loss_g, estimate, penalty, cls_real, cls_fake, rec]
            rows.append([v.item() for v in row])
        assert_same_run(Path("run"), rows, 1e-9, G=G, D=D)


def test_resume_refuses_other_domains(capfd):
    trained("run", "--steps", 1)
    for flags in (("--attributes", "hat,beard,red_hair/dark_hair/blond_hair"), ("--width", 5),
                  ("--attributes", "dark_hair,blond_hair,red_hair,glasses,smiling")):
        assert_resume_refused(train, Path("run"), capfd, flags)


# Data

def test_held_out_images(place, capfd):
    """Those of test/ beside train/; they have to be of the same kind."""
    write_classes(place / "two/train")
    own, held = train.load("two/train", 16)
    assert held is own
    write_classes(place / "two/val", n=2)
    own, held = train.load("two/train", 16)
    assert (len(own), len(held)) == (6, 4) and held.classes == ["a", "b"]
    trained("run", "--steps", 1, "--data", "two/train")
    saved = torch.load("run/ckpt.pt", weights_only=True)
    assert torch.equal(saved["x_fixed"], held[:][0]) and saved["c_fixed"].tolist() == [
        [1, 0], [1, 0], [0, 1], [0, 1]]
    assert translated("--ckpt", "run/ckpt.pt", "--n", 9, "--real", "real") == 0
    for file, x in zip(sorted(Path("real").iterdir()), held[:][0], strict=True):
        assert (read_image(file, channels=1) / 127.5 - 1 - x).abs().max() < 0.005
    write_classes(place / "two/test", "abc", n=1)
    with pytest.raises(SystemExit):
        train.load("two/train", 16)
    assert refused(capfd, "classes")


# sample.py

@pytest.fixture
def photos(place):
    """A photograph, a grey one, one with alpha in a sub-folder, and one that is none."""
    (place / "photos" / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(50, 71, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save("photos/photo.png")
    Image.fromarray(pixels[:30, :40, 0]).save("photos/grey.bmp")
    Image.fromarray(pixels[:40, :30]).save("photos/more/alpha.png")
    (place / "photos/text.png").write_text("no image")
    return place / "photos"


def test_wishes(ckpt):
    saved = torch.load(ckpt, weights_only=True)
    assert sample.wishes("hair=red,Smiling=1,glasses=0", saved) == [(2, 1), (4, 1), (3, 0)]
    assert sample.wishes("smiling, Red Hair=0", saved) == [(4, 1), (2, 0)]


def test_input(ckpt, photos, place, capfd):
    """What --set leaves open is what D sees."""
    args = "--ckpt", ckpt, "--input", "photos"
    assert translated(*args, "--set", "hair=blond,smiling=0", "--side", 24, "--out", "out") == 0
    shown = capfd.readouterr().out
    assert "3 of 4" in shown and "text.png" in shown
    nets, saved = sample.load_generator(ckpt)
    made = sorted(str(p.relative_to(place / "out")) for p in (place / "out").rglob("*.*"))
    assert made == ["grey.bmp", "more/alpha.png", "photo.png"]
    x = read_image("photos/photo.png", None)[None] / 127.5 - 1
    x = F.interpolate(x, (24, 34), mode="bicubic", antialias=True).clamp(-1, 1)
    square = F.interpolate(x[..., 5:29], (16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    c = torch.tensor([[0.0, 1, 0, 0, 0]])
    c[0, 3] = nets["D"](square)[1][0, 3] > 0
    expected = nets["G"](F.pad(x, (0, 2, 0, 0), "reflect"), c)[..., :34]
    y = read_image("out/photo.png", None) / 127.5 - 1
    assert y.shape == expected[0].shape and (y - expected[0]).abs().max() < 0.005
    assert translated(*args, "--out", "all") == 0
    names = [name for group in HAIR for name in group]
    assert sorted(p.name for p in Path("all").glob("*.png")) == sorted(
        f"photo-{name}.png" for name in names)
    before = sorted(place.rglob("*"))
    for flags, says in (("--out out2 --set hair=green", "red_hair"), ("--set smiling", "--out"),
                        ("--out out2 --set smiling=2", "smiling"),
                        ("--out photos --set glasses", "overw"), ("--out out2 --side 0", "--side"),
                        ("--each out2", "--each")):
        assert translated(*args, *flags.split()) == 2 and refused(capfd, says)
    for flag, value in (("--set", "smiling"), ("--side", "8")):  # would be ignored
        assert translated("--ckpt", ckpt, flag, value) == 2
        assert refused(capfd, f"{flag} {value} goes with --input")
    assert sorted(place.rglob("*")) == before


def test_each(ckpt, place):
    nets, saved = sample.load_generator(ckpt)
    test = data.load_images("faces", 16, split="test")
    torch.manual_seed(3)
    x = test[torch.randperm(32)[:3]]
    read = sample.read_labels(nets, saved, x, 0)
    logits = nets["D"](x)[1]
    assert torch.equal(read[:, 3:], (logits[:, 3:] > 0).float())
    for scores, hair in zip(logits[:, :3], read[:, :3], strict=True):  # at most one colour
        best = int(scores.argmax())
        assert hair.tolist() == [float(i == best and scores[best] > 0) for i in range(3)]
    assert translated("--ckpt", ckpt, "--n", 3, "--each", "each", "--seed", 3) == 0
    for i, name in enumerate(("dark_hair", "blond_hair", "red_hair")):
        expected = nets["G"](x[i:i + 1], model.change(read[i:i + 1], [HAIR], i))[0]
        y = read_image(f"each/{i:06d}-{name}.png") / 127.5 - 1
        assert (y - expected).abs().max() < 0.005


def test_two_sets(place, photos, capfd):
    write_classes(place / "two/train")
    trained("run", "--steps", 1, "--data-2", "two/train")
    saved = torch.load("run/ckpt.pt", weights_only=True)
    assert saved["domains"] == BOTH and saved["one_of_n"] == [False, True]
    assert saved["x_fixed"].shape == (8, 3, 16, 16) and saved["c_fixed"].shape == (8, 9)
    assert saved["c_fixed"][:, 7:].tolist() == [[1, 0]] * 4 + [[0, 1]] * 4
    assert Path(saved["args"]["data_2"]).is_absolute()
    assert translated("--ckpt", "run/ckpt.pt") == 0 and Path("run/figures/fig7.png").exists()
    args = "--ckpt", "run/ckpt.pt", "--input", "photos/photo.png"
    assert translated(*args, "--set", "a", "--out", "out") == 0
    for wish, says in (("a,smiling", "two"), ("a=0", "class")):
        assert translated(*args, "--set", wish, "--out", "out") == 2 and refused(capfd, says)
    nets, ckpt = sample.load_generator("run/ckpt.pt")
    x = saved["x_fixed"][:1]
    assert sample.targets(nets, ckpt, x, "b")["b"].tolist() == [[0, 0, 0, 0, 0, 0, 1, 0, 1]]
    assert sample.targets(nets, ckpt, x, "hair=red,glasses,smiling=0")[
        "hair=red,glasses,smiling=0"].tolist() == [[0, 0, 1, 1, 0, 0, 0, 1, 0]]


# The authors' files

class OfficialBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.InstanceNorm2d(c, affine=True,
            track_running_stats=True), nn.ReLU(True), nn.Conv2d(c, c, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(c, affine=True, track_running_stats=True))

    def forward(self, x):
        return x + self.main(x)


class Official(nn.Module):
    """The generator of yunjey/stargan, from its description; it is used without eval()."""

    def __init__(self, n_labels, c=4, n_blocks=6):
        super().__init__()

        def norm(c):
            return nn.InstanceNorm2d(c, affine=True, track_running_stats=True), nn.ReLU(True)

        down = [nn.Conv2d(3 + n_labels, c, 7, 1, 3, bias=False), *norm(c)]
        for i in (1, 2):
            down += [nn.Conv2d(c * i, c * i * 2, 4, 2, 1, bias=False), *norm(c * i * 2)]
        up = []
        for i in (4, 2):
            up += [nn.ConvTranspose2d(c * i, c * i // 2, 4, 2, 1, bias=False), *norm(c * i // 2)]
        self.main = nn.Sequential(*down, *(OfficialBlock(4 * c) for _ in range(n_blocks)), *up,
                                  nn.Conv2d(c, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, x, c):
        return self.main(torch.cat([x, c[:, :, None, None].repeat(1, 1, *x.shape[2:])], 1))


def their_keys() -> list[str]:
    norm = "weight bias running_mean running_var num_batches_tracked".split()
    keys = []
    for conv in (0, 3, 6, *(f"{i}.main.{k}" for i in range(9, 15) for k in (0, 3)), 15, 18, 21):
        head, _, last = str(conv).rpartition(".")
        after = f"{head}{'.' * bool(head)}{int(last) + 1}"
        keys += [f"main.{conv}.weight"] + [f"main.{after}.{kind}" for kind in norm] * (conv != 21)
    return keys


@pytest.mark.parametrize("n, old", [(5, False), (8, True), (15, False), (3, False)])
def test_official(n, old):
    torch.manual_seed(0)
    theirs = Official(n)
    x, c = torch.randn(2, 3, 32, 24), torch.eye(n)[:2]
    for _ in range(3):
        theirs(x * 2 + 1, c)  # its averages are of something
    state = theirs.state_dict()
    assert list(state) == their_keys() and len(state) == 103  # of the fact card
    if old:
        state = {k: v for k, v in state.items() if not k.endswith("tracked")}
    torch.save(state, "200000-G.ckpt", _use_new_zipfile_serialization=not old)
    nets, ckpt = sample.load_generator("200000-G.ckpt")
    assert torch.equal(nets["G"](x, c), theirs(x, c))
    assert len(sample.names_of(ckpt)) == {15: 13}.get(n, n)


def test_official_command(photos, place, capfd):
    torch.manual_seed(0)
    theirs = Official(5, n_blocks=2)
    torch.save(theirs.state_dict(), "G.ckpt")
    flags = "--official", "G.ckpt", "--input", "photos", "--out", "out", "--side", 30
    assert translated(*flags, "--set", "hair=blond,male=0,young=1") == 0
    x, y = (read_image(folder / "more/alpha.png")[None] / 127.5 - 1 for folder in (photos,
            place / "out"))
    with torch.no_grad():
        expected = theirs(F.pad(x, (0, 2, 0, 0), "reflect"), torch.tensor([[0.0, 1, 0, 0, 1]]))
    assert (expected[..., :30] - y).abs().max() < 0.005
    for wish, says in (("", "Male"), ("hair=blond,male", "Young"), ("angry", "Black_Hair"),
                       ("hair=blond,black_hair=0,male,young", "")):
        more = ["--set", wish] if wish else []
        assert translated(*flags[:4], "--out", "out2", *more) == (2 if says else 0)
        assert not says or refused(capfd, says)
    for more in ([], ["--each", "each"], ["--real", "real"]):
        assert translated(*flags[:2], *more) == 2 and refused(capfd, "--official")
    torch.save({"conv2.weight": torch.ones(3), "main.0.weight": torch.ones(3)}, "G.ckpt")
    assert translated(*flags) == 2 and refused(capfd, "200000-G.ckpt")
