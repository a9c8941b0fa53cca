"""pix2pix/: U-Net and PatchGANs, one window for a pair, dropout as noise, translating any file."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import (
    ROOT,
    assert_input_is_checked,
    assert_resume_refused,
    kinds,
    load,
    main,
    n_parameters,
    tiny,
)
from PIL import Image
from torch import nn

from common import data

model, train, sample = (load("pix2pix", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data", "place")
SMALL = "--width", 2, "--size", 16


def trained(*flags):
    """A run in run/ of these flags."""
    train.train(train.parse_args(tiny("pix2pix", "run", *SMALL, "--sample-every", 100, *flags)))


def small_g(**options) -> nn.Module:
    """A G whose picture shows all of its weights, without dropout."""
    torch.manual_seed(0)
    G = model.Generator(16, width=4, dropout=(), **options)
    for p in G.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, 0, 0.2)
    return G.requires_grad_(False)


# The networks

def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    assert (args.data, args.size, args.width, args.batch_size) == ("facades", 256, 64, 1)
    assert (args.net_g, args.dropout, args.net_d) == ("unet", 3, 70)
    assert (args.lr, args.beta1, args.lambda_l1, args.lambda_gan) == (2e-4, 0.5, 100, 1)
    assert args.steps == 200 * 400 and round(args.size * args.jitter) == 286 and args.flip
    assert args.steps // args.sample_every == args.steps // args.save_every == 40


@pytest.mark.parametrize("size, width, count", [
    (256, 64, 54_413_955), (128, 64, 41_828_995), (64, 64, 29_244_035), (32, 64, 16_659_075),
    (32, 32, 4_168_003), (64, 32, 7_314_755), (128, 32, 10_461_507)])
def test_parameter_counts_of_g(size, width, count):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, width=width)) == count
        assert size < 256 or n_parameters(model.Generator()) == count


@pytest.mark.parametrize("field, count, size, side", [
    (1, 9_024, 16, 16), (16, 139_585, 16, 6), (34, 666_433, 64, 14), (70, 2_768_705, 256, 30),
    (142, 6_964_033, 256, 14), (286, 11_159_361, 256, 6)])
def test_d(field, count, size, side):
    with torch.device("meta"):
        D, x = model.Discriminator(field=field), torch.empty(2, 3, size, size)
        assert n_parameters(D) == count and D(x, x).shape == (2, 1, side, side)
        assert field != 70 or n_parameters(model.Discriminator()) == count


@pytest.mark.parametrize("skips", [True, False])
def test_shapes_of_g(skips):
    shapes = []
    with torch.device("meta"):
        G = model.Generator(skips=skips)
        for m in G.modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
                m.register_forward_hook(lambda m, x, y: shapes.append((y.shape[1], y.shape[2])))
        G(torch.empty(1, 3, 256, 256))
        assert G(torch.empty(2, 3, 512, 256)).shape == (2, 3, 512, 256)  # [Sec. 4.4]
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    assert shapes[:8] == [(c, 128 >> i) for i, c in enumerate(widths)]
    assert shapes[8:16] == [(c, 2 << i) for i, c in enumerate([*widths[-2::-1], 3])]
    with pytest.raises(ValueError, match="16, 32, 64"):
        model.Generator(96)


def test_layers():
    G, D = model.Generator(64, width=2), model.Discriminator(width=2)
    conv, up, norm = nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d
    decoder = [nn.ReLU, up, norm]
    assert kinds(G) == [conv, *[nn.LeakyReLU, conv, norm] * 4, nn.LeakyReLU, conv,
                        *[*decoder, nn.Dropout] * 3, *decoder * 2, nn.ReLU, up, nn.Tanh]
    assert kinds(D) == [conv, nn.LeakyReLU, *[conv, norm, nn.LeakyReLU] * 3, conv]
    for m in (*G.modules(), *D.modules()):
        if isinstance(m, norm):
            assert (m.eps, m.affine, m.track_running_stats) == (1e-5, True, False)
        assert not isinstance(m, nn.LeakyReLU) or m.negative_slope == 0.2
        assert not isinstance(m, nn.Dropout) or m.p == 0.5


def test_initialisation():
    torch.manual_seed(0)
    gains = []
    for net in (model.Generator(32, width=32), model.Discriminator(width=32)):
        for m in net.modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.06)
            elif isinstance(m, nn.InstanceNorm2d):
                gains.append(m.weight)
            if getattr(m, "bias", None) is not None:
                assert (m.bias == 0).all()
    gains = torch.cat(gains)
    assert gains.mean().item() == pytest.approx(1, abs=0.003)
    assert gains.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("skips", [True, False])
def test_only_skips_lead_around_the_bottleneck(skips):
    G = small_g(skips=skips)
    G.down[-1].register_forward_hook(lambda m, x, y: y * 0)
    x, other = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    assert torch.equal(G(x), G(other)) != skips


@pytest.mark.parametrize("field", model.FIELDS)
def test_receptive_field(field, monkeypatch):
    """Of one logit, in x and in y, by its gradient; without instance norm, which mixes all."""
    monkeypatch.setattr(model, "norm", lambda c: nn.Identity())
    D = model.Discriminator(1, 1, width=1, field=field)
    for p in D.parameters():
        nn.init.constant_(p, 0.1)  # nothing cancels
    pair = torch.rand(2, 1, 1, 512, 512, requires_grad=True)
    logits = D(*pair)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    for grad in pair.grad[:, 0, 0]:
        for side in (0, 1):
            seen = grad.sum(side).nonzero()
            assert seen.max() - seen.min() + 1 == field and len(seen) == field


def test_norm_is_batch_norm_of_one_image():
    """Whatever the batch: at test time, too, no picture depends on its neighbours."""
    G, D, x = small_g(), model.Discriminator(width=4, field=16), torch.rand(3, 3, 16, 16) * 2 - 1
    y = G(x)
    assert torch.allclose(D(x, x)[1:2], D(x[1:2], x[1:2]), atol=1e-5)
    for m in list(G.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                batch_norm = nn.BatchNorm2d(child.num_features)
                batch_norm.load_state_dict(child.state_dict(), strict=False)
                setattr(m, name, batch_norm)
    assert torch.allclose(torch.cat([G(one[None]) for one in x]), y, atol=1e-5)


# The losses, the windows

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 4, 1, 5, 5, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item() / 2)
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    a = torch.full((4, 1, 2, 2), 200.0)
    assert train.d_loss(a, -a).item() == 0 and train.d_loss(-a, a).item() == 200
    assert train.g_loss(-a).item() == 200 and train.g_loss(a).item() == 0


def test_windows():
    """Each image has its own, all places and both sides alike. cyclegan's are the same text."""
    torch.manual_seed(0)
    n, side, size = 600, 18, 16
    across = torch.arange(side).expand(side, side)  # pixels that tell their place, x and y
    places = torch.stack([across, across.T]).float().expand(n, 2, side, side)
    x = train.crop_and_flip(places, size)
    mirrored = x[:, 0, 0, 0] > x[:, 0, 0, -1]
    left, top = x[:, 0].amin((1, 2)).long(), x[:, 1].amin((1, 2)).long()
    for i in range(n):
        window = places[i, :, top[i]:top[i] + size, left[i]:left[i] + size]
        assert torch.equal(x[i], window.flip(2) if mirrored[i] else window)
    assert (left * 6 + top * 2 + mirrored).bincount(minlength=18).min() > 15
    straight = train.crop_and_flip(places, size, flip=False)[:, 0]
    assert (straight[:, 0, 0] < straight[:, 0, -1]).all()


def test_the_windows_of_both_papers_are_one_text():
    texts = [(ROOT / paper / "train.py").read_text().partition("def crop_and_flip")[2]
             .partition("\n\n\n")[0] for paper in ("pix2pix", "cyclegan")]
    assert texts[0] == texts[1] != ""


# The algorithm

@pytest.mark.parametrize("direction, net_g, net_d, flip, l1, gan", [
    ("AtoB", "unet", 16, True, 100, 1), ("BtoA", "encoder-decoder", 1, False, 10, 0.5)])
def test_three_steps(direction, net_g, net_d, flip, l1, gan):
    """Sec. 3.1, 3.3 and App. 6.2, written out again: a pair's one window, its one mirror, and one
    y_fake with one dropout for D's update and G's."""
    def bce(logits, label):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    flags = ["--steps", 3, "--batch-size", 2, "--direction", direction, "--net-g", net_g,
             "--net-d", net_d, "--lambda-l1", l1, "--lambda-gan", gan, "--seed", 5]
    with float64():
        trained(*flags, *["--no-flip"] * (not flip))
        torch.manual_seed(5)
        G = model.Generator(16, 3, 3, 2, net_g == "unet")
        D = model.Discriminator(3, 3, 2, net_d)
        opt_g, opt_d = Adam(G.parameters(), 0.5), Adam(D.parameters(), 0.5)
        batches, rows = data.load_pairs("faces-flat", 18).batches(2, seed=5), []  # 16 * 286 / 256
        for step in (1, 2, 3):
            torch.manual_seed(5 * 1_000_003 + step)
            a, b = next(batches)
            x, y = (a, b) if direction == "AtoB" else (b, a)
            top, left = torch.randint(3, (2, 2)).tolist()
            mirrored = [flip and m for m in (torch.rand(2) < 0.5).tolist()]
            x, y = (torch.stack([
                one[:, t:t + 16, s:s + 16].flip(2) if m else one[:, t:t + 16, s:s + 16]
                for one, t, s, m in zip(z, top, left, mirrored, strict=True)]) for z in (x, y))

            y_fake = G(x)
            real, fake = D(x, y), D(x, y_fake.detach())
            loss_d = (bce(real, 1.0) + bce(fake, 0.0)) / 2
            opt_d.step(loss_d, 2e-4)
            loss_l1 = F.l1_loss(y_fake, y)
            loss_g = gan * bce(D(x, y_fake), 1.0) + l1 * loss_l1  # D is the new one
            opt_g.step(loss_g, 2e-4)
            rows.append([loss_d.item(), loss_g.item(), loss_l1.item(),
                         real.sigmoid().mean().item(), fake.sigmoid().mean().item()])
        assert_same_run(Path("run"), rows, G=G, D=D)


def test_resume_refuses_another_network(capfd):
    trained("--steps", 1)
    for flags in (("--size", 32), ("--net-d", 34), ("--net-g", "encoder-decoder"),
                  ("--direction", "BtoA")):
        assert_resume_refused(train, Path("run"), capfd, flags)


def works(field: int, size: int) -> bool:
    try:
        model.Discriminator(1, 1, width=1, field=field)(*torch.rand(2, 1, 1, size, size))
    except (ValueError, RuntimeError):  # a norm of one value; a kernel larger than its input
        return False
    return True


@pytest.mark.parametrize("field", model.FIELDS)
def test_a_field_too_large_for_the_size_is_refused(field, monkeypatch, capsys):
    """Where D could not run, and only there; the size named is the least that works."""
    monkeypatch.setattr(train, "load_data", lambda *_: 1 / 0)
    least = next(size for size in (16, 32, 64, 128) if works(field, size))
    for size in (16, 32, 64, 128, 256):
        args = ["--size", str(size), "--net-d", str(field), "--out", "run"]
        with pytest.raises(ZeroDivisionError if size >= least else SystemExit):
            train.train(train.parse_args(args))
        said = capsys.readouterr().err
        assert (f"--net-d {field} needs --size {least} or more" in said) == (size < least)


# Held-out pairs

def write_pairs(folder, first, n, side=16):
    """A|B files: A is the grey of its number, B white."""
    folder.mkdir(parents=True)
    for i in range(first, first + n):
        a = np.full((side, 2 * side), 255, "u1")
        a[:, :side] = 10 * i
        Image.fromarray(a).save(folder / f"{i:02d}.png")


def numbers(x):
    return ((x[:, 0, 0, 0] + 1) * 127.5 / 10).round().long().tolist()


@pytest.mark.parametrize("parts, trained_on, held", [
    ({".": 12}, range(10), [10, 11]), ({".": 5}, range(5), range(5)),
    ({"train": 7, "test": 3}, range(7), [7, 8, 9]), ({"train": 7, "val": 3}, range(7), [7, 8, 9]),
    ({"train": 12}, range(10), [10, 11])])
def test_held_out(place, parts, trained_on, held):
    """The test or val split; of a folder without one the last sixth, that is not trained on; of
    five pairs none could be."""
    for part, n in parts.items():
        write_pairs(place / "pairs" / part, 7 * (part in ("test", "val")), n)
    args = train.parse_args(["--data", "pairs", "--size", "16"])
    pairs, held_pairs = train.load_data(args, {"device": "cpu"})
    assert numbers(pairs[:][0]) == list(trained_on) and pairs.size == 18
    assert numbers(held_pairs[:][0]) == list(held) and held_pairs.size == 16


# sample.py

def translated(*args) -> int:
    return main("pix2pix", *args, script="sample.py")


def test_figures(monkeypatch):
    trained("--steps", 2, "--dropout", 2)
    grids = {}
    monkeypatch.setattr(sample, "save_grid",
                        lambda path, x, **options: grids.update({path.name: x}))
    sample.main(["--ckpt", "run/ckpt.pt"])
    G, ckpt = sample.load_generator("run/ckpt.pt")
    held = data.load_pairs("faces-flat", 16, split="test")[:12]
    rows = grids["samples.png"].unflatten(0, (12, 3))
    assert torch.equal(rows[:, 0], held[0]) and torch.equal(rows[:, 2], held[1])
    rows = grids["dropout.png"].unflatten(0, (6, 8))
    assert len(rows[0].unique(dim=0)) == 8  # input, six different outputs, target
    assert sum(isinstance(m, nn.Dropout) for m in G.modules()) == ckpt["args"]["dropout"] == 2


def test_single_files_are_of_held_out_pairs(place):
    write_pairs(place / "pairs", 0, 12)
    trained("--steps", 1, "--data", "pairs", "--direction", "BtoA", "--batch-size", 1)
    _, ckpt = sample.load_generator("run/ckpt.pt")
    parts = list(sample.some_held_out(ckpt, 120, seed=0))
    assert [len(x) for x, _ in parts] == [50, 50, 20] and all((x == 1).all() for x, _ in parts)
    shown = numbers(torch.cat([y for _, y in parts]))
    assert all(sorted(shown[i:i + 2]) == [10, 11] for i in range(0, 120, 2))
    (place / "pairs").rename(place / "moved")
    flags = "--ckpt", "run/ckpt.pt", "--data", "moved", "--n", 3
    assert translated(*flags, "--each", "each", "--real", "real") == 0
    assert len(list((place / "each").iterdir())) == 3
    assert {np.asarray(Image.open(file)).max() for file in (place / "real").iterdir()} == {100, 110}


@pytest.mark.parametrize("h, w", [(16, 32), (30, 51), (9, 40), (16, 4), (5, 7)])
def test_translate(h, w):
    G = small_g()
    torch.manual_seed(1)
    x = torch.rand(2, 3, h, w) * 2 - 1
    y = sample.translate(G, x)
    top, left = -h % 16 // 2, -w % 16 // 2
    mode = "reflect" if min(h, w) > 8 else "edge"
    pad = [(0, 0), (0, 0), (top, -h % 16 - top), (left, -w % 16 - left)]
    padded = torch.from_numpy(np.pad(x.numpy(), pad, mode))
    assert torch.allclose(G(padded)[:, :, top:top + h, left:left + w], y, atol=1e-6)


@pytest.fixture
def photos(place):
    """A photograph of 300x517, a grey one, one with alpha in a sub-folder, a damaged one."""
    (place / "photos" / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(300, 517, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save("photos/large.JPG", "jpeg")
    Image.fromarray(pixels[:20, :33, 0]).save("photos/grey.png")
    Image.fromarray(pixels[:16, :16]).save("photos/more/alpha.png")
    (place / "photos/bad.jpg").write_bytes(b"no picture")
    return place / "photos"


def test_input(photos, place, capfd):
    trained("--steps", 1)
    args = "--ckpt", "run/ckpt.pt", "--input"
    assert translated(*args, "photos", "--out", "small", "--side", 10) == 0
    assert "wrote 3 of 4" in capfd.readouterr().out
    sizes = {str(p.relative_to(place / "small")): Image.open(p).size
             for p in (place / "small").rglob("*.*")}
    assert sizes == {"large.JPG": (17, 10), "grey.png": (16, 10), "more/alpha.png": (10, 10)}
    assert translated(*args, "photos/grey.png", "--out", "alone", "--side", 10) == 0
    alone, among = (Image.open(f"{out}/grey.png") for out in ("alone", "small"))
    assert alone.mode == "RGB" and np.array_equal(alone, among)  # it depends on no other file
    assert_input_is_checked("pix2pix", "run/ckpt.pt", place, capfd)


# The authors' checkpoints

class Block(nn.Module):
    """A level of their U-Net, as their networks.py nests and names it."""

    def __init__(self, outer, inner, c_in=None, sub=None, outermost=False, dropout=False):
        super().__init__()
        conv = nn.Conv2d(c_in or outer, inner, 4, 2, 1, bias=False)
        down, up, self.outermost = nn.LeakyReLU(0.2), nn.ReLU(), outermost
        if outermost:
            layers = [conv, sub, up, nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1), nn.Tanh()]
        elif sub is None:
            layers = [down, conv, up, nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False),
                      nn.BatchNorm2d(outer)]
        else:
            layers = [down, conv, nn.BatchNorm2d(inner), sub, up,
                      nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=False),
                      nn.BatchNorm2d(outer), *[nn.Dropout(0.5)] * dropout]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Theirs(nn.Module):
    def __init__(self, k, width, c_in, c_out):
        super().__init__()
        block = Block(8 * width, 8 * width)
        for _ in range(k - 5):
            block = Block(8 * width, 8 * width, sub=block, dropout=True)
        for i in (4, 2, 1):
            block = Block(i * width, 2 * i * width, sub=block)
        self.model = Block(c_out, width, c_in, block, outermost=True)

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize("k, width, c_in, c_out", [(8, 2, 3, 3), (7, 3, 1, 3), (5, 2, 3, 1)])
def test_official(k, width, c_in, c_out):
    torch.manual_seed(0)
    theirs = Theirs(k, width, c_in, c_out)
    for p in theirs.parameters():
        nn.init.normal_(p, 0, 0.3)
    state = theirs.state_dict()
    assert k != 8 or len(state) == 82
    assert "model.model.1.model.3.model.1.weight" in state and "model.model.3.bias" in state
    for name in list(state) if k == 7 else ():
        if name.endswith("num_batches_tracked"):
            del state[name]  # of older versions of torch, whose files are no zip files either
    torch.save(state, "latest_net_G.pth", _use_new_zipfile_serialization=k != 7)
    G, _ = sample.load_generator("latest_net_G.pth")
    assert [any(isinstance(m, nn.Dropout) for m in layer) for layer in G.up] == [
        1 <= j < k - 4 for j in range(k)]
    x = torch.rand(1, c_in, 2 ** k, 2 ** k) * 2 - 1
    torch.manual_seed(1)
    y = G(x)
    torch.manual_seed(1)
    assert torch.allclose(y, theirs(x), atol=1e-4)
    assert y.std() > 0.1


def test_official_command(photos, place, capfd):
    flags = "--official", "net.pth", "--input", "photos", "--out", "out"
    for content, says in ((Theirs(5, 2, 1, 2).state_dict(), "2 channels of 1"),  # colorization
                          ({"model.1.weight": torch.ones(3)}, "cyclegan/sample.py"),
                          ({"model.model.0.weight": torch.ones(2, 3, 4, 4),
                            "model.model.3.bias": torch.ones(3)}, "instance norm"),
                          ({"weight": torch.ones(3)}, str(place / "net.pth"))):
        torch.save(content, "net.pth")
        assert translated(*flags) == 2 and not (place / "out").exists()
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and says in err
    torch.save(Theirs(5, 2, 3, 3).state_dict(), "net.pth")
    assert translated(*flags) == 0
    assert Image.open("out/large.JPG").size == (517, 300)
    for more in ([], ["--each", "each"], ["--real", "real"]):
        assert translated(*flags[:2], *more) == 2
        assert "--official" in capfd.readouterr().err
