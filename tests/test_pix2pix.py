"""pix2pix/: U-Net and PatchGANs, one window for a pair, dropout as noise, translating any file."""
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    assert_resume_refused,
    kinds,
    load,
    main,
    n_parameters,
    tiny,
    watching,
)
from PIL import Image
from torch import nn

from common import data

model, train, sample = (load("pix2pix", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 2, "--size", 16, "--sample-every", 100, "--save-every", 100)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    return watching("pix2pix", train, torch.optim.Adam, SMALL, tmp_path, monkeypatch)


def without_dropout(net):
    for m in net.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return net


def small_g(**options) -> nn.Module:
    """A G whose picture shows all of its weights."""
    torch.manual_seed(0)
    G = model.Generator(16, width=4, **options)
    for p in G.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, 0, 0.2)
    return G.requires_grad_(False)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.batch_size) == (256, 64, 1)
    assert (args.net_g, args.dropout, args.net_d) == ("unet", 3, 70)
    assert (args.lr, args.beta1, args.lambda_l1, args.lambda_gan) == (2e-4, 0.5, 100, 1)
    assert args.steps == 200 * 400 and round(args.size * args.jitter) == 286 and not args.no_flip


@pytest.mark.parametrize("size, width, count", [
    (256, 64, 54_413_955), (128, 64, 41_828_995), (64, 64, 29_244_035), (32, 64, 16_659_075),
    (32, 32, 4_168_003), (64, 32, 7_314_755), (128, 32, 10_461_507)])
def test_parameter_counts_of_g(size, width, count):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, width=width)) == count
        assert size < 256 or n_parameters(model.Generator()) == count


@pytest.mark.parametrize("field, count", [(1, 9_024), (16, 139_585), (34, 666_433),
                                          (70, 2_768_705), (142, 6_964_033), (286, 11_159_361)])
def test_parameter_counts_of_d(field, count):
    with torch.device("meta"):
        assert n_parameters(model.Discriminator(field=field)) == count
        assert n_parameters(model.Discriminator(0, 3)) == 2_765_633


def shapes_of(net, kinds, *inputs):
    shapes = []
    for m in net.modules():
        if isinstance(m, kinds):
            m.register_forward_hook(lambda m, x, y: shapes.append((y.shape[1], y.shape[2])))
    net(*inputs)
    return shapes


@pytest.mark.parametrize("skips", [True, False])
def test_shapes_of_g(skips):
    with torch.device("meta"):
        G = model.Generator(skips=skips)
        shapes = shapes_of(G, (nn.Conv2d, nn.ConvTranspose2d), torch.empty(1, 3, 256, 256))
        assert G(torch.empty(2, 3, 512, 256)).shape == (2, 3, 512, 256)  # [Sec. 4.4]
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    assert shapes[:8] == [(c, 128 >> i) for i, c in enumerate(widths)]
    assert shapes[8:16] == [(c, 2 << i) for i, c in enumerate([*widths[-2::-1], 3])]
    ups = [m.in_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert ups == [512, *((2 if skips else 1) * c for c in widths[-2::-1])]


@pytest.mark.parametrize("size", [0, 8, 33, 96])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="16, 32, 64"):
        model.Generator(size)


def test_layers():
    G, D = model.Generator(64, width=2), model.Discriminator(width=2)
    conv, up, norm = nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d
    decoder = [nn.ReLU, up, norm]
    assert kinds(G) == [conv, *[nn.LeakyReLU, conv, norm] * 4, nn.LeakyReLU, conv,
                        *[*decoder, nn.Dropout] * 3, *decoder * 2, nn.ReLU, up, nn.Tanh]
    assert kinds(D) == [conv, nn.LeakyReLU, *[conv, norm, nn.LeakyReLU] * 3, conv]
    for net in (G, D):
        biased = [m.bias is not None for m in net.modules() if isinstance(m, (conv, up))]
        assert biased == ([False] * 11 + [True] if net is G else [True, False, False, False, True])
        for m in net.modules():
            if isinstance(m, (conv, up)):
                assert (m.kernel_size, m.padding) == ((4, 4), (1, 1))
            if isinstance(m, norm):
                assert (m.eps, m.affine, m.track_running_stats) == (1e-5, True, False)
            if isinstance(m, nn.LeakyReLU):
                assert m.negative_slope == 0.2
            if isinstance(m, nn.Dropout):
                assert m.p == 0.5
    assert {m.stride for m in G.modules() if isinstance(m, (conv, up))} == {(2, 2)}
    assert [m.stride[0] for m in D.modules() if isinstance(m, conv)] == [2, 2, 2, 1, 1]


def test_initialisation():
    torch.manual_seed(0)
    gains = []
    for net in (model.Generator(32, width=32), model.Discriminator(width=32)):
        for m in net.modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.06)
                assert m.bias is None or (m.bias == 0).all()
            elif isinstance(m, nn.InstanceNorm2d):
                assert (m.bias == 0).all()
                gains.append(m.weight)
    gains = torch.cat(gains)
    assert gains.mean().item() == pytest.approx(1, abs=0.003)
    assert gains.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("skips", [True, False])
def test_only_skips_lead_around_the_bottleneck(skips):
    G = without_dropout(small_g(skips=skips))
    G.down[-1].register_forward_hook(lambda m, x, y: y * 0)
    x, other = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    assert torch.equal(G(x), G(other)) != skips


@pytest.mark.parametrize("field", model.FIELDS)
def test_receptive_field(field, monkeypatch):
    """Of one logit, by its gradient; instance norm, through which all depends on all, left out."""
    monkeypatch.setattr(model, "norm", lambda c: nn.Identity())
    D = model.Discriminator(1, 1, width=1, field=field)
    for p in D.parameters():
        nn.init.constant_(p, 0.1)  # nothing cancels
    x = torch.rand(1, 1, 512, 512)
    y = torch.rand(1, 1, 512, 512, requires_grad=True)
    logits = D(x, y)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    for side in (1, 2):
        seen = y.grad[0, 0].sum(side - 1).nonzero()
        assert seen.max() - seen.min() + 1 == field and len(seen) == field


@pytest.mark.parametrize("field, size, side", [(70, 256, 30), (1, 16, 16), (16, 16, 6),
                                               (34, 64, 14), (286, 256, 6), (286, 128, 2)])
def test_the_map_of_d(field, size, side):
    with torch.device("meta"):
        x = torch.empty(2, 3, size, size)
        assert model.Discriminator(field=field)(x, x).shape == (2, 1, side, side)


def test_a_picture_depends_on_no_neighbour():
    """Of G and D alike: so a batch at test time has each image's own statistics."""
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    G, D = without_dropout(small_g()), model.Discriminator(width=4, field=16)
    assert torch.allclose(G(x)[1:2], G(x[1:2]), atol=1e-5)
    assert torch.allclose(D(x, x)[1:2], D(x[1:2], x[1:2]), atol=1e-5)
    assert not torch.allclose(G(x)[1:2], G(x[2:3]), atol=1e-2)


def test_norm_is_batch_norm_of_one_image():
    G = without_dropout(small_g())
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    y = G(x)
    for m in list(G.modules()):
        for name, child in m.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                batch_norm = nn.BatchNorm2d(child.num_features)
                batch_norm.load_state_dict(child.state_dict(), strict=False)
                setattr(m, name, batch_norm)
    assert torch.allclose(G(x), y, atol=1e-5)


def test_dropout_is_the_noise():
    G, x = small_g(), torch.rand(1, 3, 16, 16)
    torch.manual_seed(1)
    once, again = G(x), G(x)
    torch.manual_seed(1)
    assert torch.equal(once, G(x)) and not torch.allclose(once, again, atol=1e-3)


# The losses, and what a step does to the data

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 4, 1, 5, 5, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item() / 2)
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    y, y_fake = torch.tensor([[[[1.0, -1]]], [[[0.5, 0]]]]), torch.zeros(2, 1, 1, 2)
    assert train.l1_loss(y_fake, y).item() == pytest.approx((1 + 1 + 0.5) / 4)


def test_losses_of_extreme_logits():
    a = torch.full((4, 1, 2, 2), 200.0)
    assert train.d_loss(a, -a).item() == 0 and train.d_loss(-a, a).item() == 200
    assert train.g_loss(-a).item() == 200 and train.g_loss(a).item() == 0


def positions(n, side):
    """Images whose pixels tell their own place: (n, 2, side, side), x and y."""
    across = torch.arange(side).expand(side, side)
    return torch.stack([across, across.T]).float().expand(n, 2, side, side)


def test_crop_and_flip():
    torch.manual_seed(0)
    n, side, size = 600, 18, 16
    x, y = train.crop_and_flip(positions(n, side), positions(n, side) + 100, size, flip=True)
    assert x.shape == y.shape == (n, 2, size, size) and torch.equal(y, x + 100)  # the same window
    flipped = x[:, 0, 0, 0] > x[:, 0, 0, -1]
    assert 0.42 < flipped.float().mean() < 0.58
    left, top = x[:, 0].amin((1, 2)), x[:, 1].amin((1, 2))
    for corner in (left, top):
        counts = corner.long().bincount()
        assert len(counts) == 3 and counts.min() > n / 3 * 0.75
    straight = torch.where(flipped[:, None, None, None], x.flip(3), x)
    moved = straight - torch.stack([left, top], 1)[:, :, None, None]
    assert torch.equal(moved, positions(n, size))  # a window, nothing resized
    joint = (left * 6 + top * 2 + flipped).long().bincount(minlength=18)
    assert joint.min() > 10  # the three are drawn one by one
    x, _ = train.crop_and_flip(positions(9, 16), positions(9, 16), 16, flip=False)
    assert torch.equal(x, positions(9, 16))


@pytest.fixture
def judged(monkeypatch):
    """All (x, y) that D sees."""
    pairs = []

    class Spy(model.Discriminator):
        def forward(self, x, y):
            pairs.append((x.detach().clone(), y.detach().clone()))
            return super().forward(x, y)

    monkeypatch.setattr(train, "Discriminator", Spy)
    return pairs


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_step(watched, judged, direction):
    watch = watched("--steps", 2, "--direction", direction, "--jitter", 1, "--no-flip")
    assert watch.order() == "G D D step(D) D step(G) G D D step(D) D step(G)"
    assert [e.fresh for e in watch.all("step")] == [{"D"}, {"G"}] * 2
    batches = data.load_pairs("faces-flat", 16).batches(4, seed=0)
    passes = zip(watch.all("G"), *[iter(judged)] * 3, *[iter(watch.all("D"))] * 3, strict=True)
    for made, real, fake, again, first, second, third in passes:
        x, y = next(batches)[::1 if direction == "AtoB" else -1]
        assert torch.equal(made.x, x) and made.training
        for pair, output in ((real, y), (fake, made.y), (again, made.y)):
            assert torch.equal(pair[0], x) and torch.equal(pair[1], output)
        assert all(map(torch.equal, first.weights, second.weights))
        assert not all(map(torch.equal, second.weights, third.weights))  # G learns from the new D


def test_pairs_are_cropped_and_mirrored_in_the_loop(watched, judged):
    watched("--steps", 1)
    a, b = next(data.load_pairs("faces-flat", 18).batches(4, seed=0))  # 16 * 286 / 256
    for x, y, pair in zip(*judged[0], torch.cat([a, b], 1), strict=True):
        windows = [p[:, top:top + 16, left:left + 16] for p in (pair, pair.flip(2))
                   for top in range(3) for left in range(3)]
        assert any(torch.equal(torch.cat([x, y]), window) for window in windows)


def test_eq_4(tmp_path, monkeypatch):
    """G's gradient is that of the GAN term plus 100 times that of L1: seen by plain descent."""
    monkeypatch.setattr(torch.optim, "Adam", lambda params, lr, betas: torch.optim.SGD(params, lr))

    def moved(name, *flags):
        out = tmp_path / name
        train.train(train.parse_args(tiny("pix2pix", out, *SMALL, "--steps", 1, *flags)))
        return torch.cat([v.flatten().double() for v in torch.load(out / "ckpt.pt")["G"].values()])

    start = moved("0", "--lambda-l1", 0, "--lambda-gan", 0)
    l1 = moved("l1", "--lambda-l1", 1, "--lambda-gan", 0) - start
    gan = moved("gan", "--lambda-l1", 0) - start
    both = moved("both") - start
    assert l1.norm() > 1e-6 and gan.norm() > 1e-6
    assert (both - (100 * l1 + gan)).norm() < 1e-2 * both.norm()


@pytest.mark.parametrize("flags, lr, beta1", [((), 2e-4, 0.5), (("--lr", 1e-3, "--beta1", 0),
                                                               1e-3, 0.0)])
def test_adam(watched, flags, lr, beta1):
    watch = watched("--steps", 1, *flags)
    for step in (*watch.all("step"), *watched("--steps", 2, "--resume").all("step")):
        assert (step.group["lr"], step.group["betas"]) == (lr, (beta1, 0.999))
        assert (step.group["weight_decay"], step.group["eps"]) == (0, 1e-8)


@pytest.mark.parametrize("flags", [("--width", 3), ("--size", 32), ("--net-d", 34),
                                   ("--net-g", "encoder-decoder"), ("--direction", "BtoA")])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def works(field: int, size: int) -> bool:
    try:
        model.Discriminator(1, 1, width=1, field=field)(*torch.rand(2, 1, 1, size, size))
    except (ValueError, RuntimeError):  # a norm of one value; a kernel larger than its input
        return False
    return True


@pytest.mark.parametrize("field", model.FIELDS)
def test_a_field_too_large_for_the_size_is_refused(field, tmp_path, monkeypatch, capsys):
    """Where D could not run, and only there; the size named is the least that works."""
    monkeypatch.setattr(train, "load_data", lambda *_: 1 / 0)
    least = next(size for size in (16, 32, 64, 128) if works(field, size))
    for size in (16, 32, 64, 128, 256):
        args = ["--size", str(size), "--net-d", str(field), "--out", str(tmp_path)]
        with pytest.raises(ZeroDivisionError if size >= least else SystemExit):
            train.train(train.parse_args(args))
        said = capsys.readouterr().err
        assert (f"--net-d {field} needs --size {least} or more" in said) == (size < least)


# Held-out pairs

def write_pairs(folder, n, side=16):
    """A|B files: A is the grey of its number, B white."""
    folder.mkdir(parents=True)
    for i in range(n):
        a = np.full((side, 2 * side), 255, "u1")
        a[:, :side] = 10 * i
        Image.fromarray(a).save(folder / f"{i:02d}.png")
    return folder


def numbers(x):
    return ((x[:, 0, 0, 0] + 1) * 127.5 / 10).round().long().tolist()


@pytest.mark.parametrize("n, trained, held", [(12, range(10), [10, 11]), (5, range(5), range(5))])
def test_of_a_folder_without_splits_the_last_sixth_is_held_out(tmp_path, n, trained, held):
    folder = write_pairs(tmp_path / "pairs", n)
    args = train.parse_args(["--data", str(folder), "--size", "16", "--out", str(tmp_path)])
    train_pairs, held_pairs = train.load_data(args, torch.device("cpu"))
    assert numbers(train_pairs[:][0]) == list(trained) and train_pairs.size == 18
    assert numbers(held_pairs[:][0]) == list(held) and held_pairs.size == 16


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_is_used(tmp_path, split):
    write_pairs(tmp_path / "pairs" / "train", 7)
    write_pairs(tmp_path / "pairs" / split, 3)
    args = train.parse_args(["--data", str(tmp_path / "pairs"), "--size", "16", "--out",
                             str(tmp_path)])
    assert list(map(len, train.load_data(args, torch.device("cpu")))) == [7, 3]
    assert len(train.load_data(train.parse_args(["--out", str(tmp_path)]), "cpu")[1]) == 32


# sample.py

@pytest.fixture
def trained(watched, tmp_path):
    watched("--steps", 2, "--dropout", 2)
    return tmp_path / "run" / "ckpt.pt"


def test_figures(trained, monkeypatch):
    grids = {}
    monkeypatch.setattr(sample, "save_grid",
                        lambda path, x, **options: grids.update({path.name: x}))
    sample.main(["--ckpt", str(trained)])
    G, ckpt = sample.load_generator(trained)
    held = data.load_pairs("faces-flat", 16, split="test")[:12]
    rows = grids["samples.png"].unflatten(0, (12, 3))
    assert torch.equal(rows[:, 0], held[0]) and torch.equal(rows[:, 2], held[1])
    rows = grids["dropout.png"].unflatten(0, (6, 8))
    assert len(rows[0].unique(dim=0)) == 8  # input, six different outputs, target
    assert sum(isinstance(m, nn.Dropout) for m in G.modules()) == ckpt["args"]["dropout"] == 2


def test_single_files_are_of_held_out_pairs(watched, tmp_path):
    folder = write_pairs(tmp_path / "pairs", 12)
    watched("--steps", 1, "--data", folder, "--direction", "BtoA")
    _, ckpt = sample.load_generator(tmp_path / "run" / "ckpt.pt")
    x, y = sample.held_out(ckpt, 5, seed=0)
    assert (x == 1).all() and sorted(numbers(y)[:2]) == sorted(numbers(y)[2:4]) == [10, 11]
    folder.rename(tmp_path / "moved")
    again = sample.held_out(ckpt, 5, seed=0, data=str(tmp_path / "moved"))
    assert torch.equal(again[1], y)


@pytest.mark.parametrize("h, w", [(16, 32), (30, 51), (9, 40), (16, 4), (5, 7)])
def test_translate(h, w):
    G = without_dropout(small_g())
    torch.manual_seed(1)
    x = torch.rand(2, 3, h, w) * 2 - 1
    y = sample.translate(G, x)
    assert y.shape == x.shape
    top, left = -h % 16 // 2, -w % 16 // 2
    mode = "reflect" if min(h, w) > 8 else "edge"
    pad = [(0, 0), (0, 0), (top, -h % 16 - top), (left, -w % 16 - left)]
    padded = torch.from_numpy(np.pad(x.numpy(), pad, mode))
    assert torch.allclose(G(padded)[:, :, top:top + h, left:left + w], y, atol=1e-6)


@pytest.fixture
def photos(tmp_path):
    """A photograph of 300x517, a grey one, one with alpha, one in a sub-folder, a damaged one."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(300, 517, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save(folder / "large.JPG", "jpeg")
    Image.fromarray(pixels[:20, :33, 0]).save(folder / "grey.png")
    Image.fromarray(pixels[:16, :16]).save(folder / "more" / "alpha.png")
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("notes")
    return folder


def sizes(folder):
    return {str(path.relative_to(folder)): Image.open(path).size for path in folder.rglob("*.*")}


def translated(*args) -> int:
    return main("pix2pix", *args, script="sample.py")


def test_input_folder(trained, photos, capfd):
    args = "--ckpt", trained, "--input"
    assert translated(*args, photos, "--out", "small", "--side", 10) == 0
    assert sizes(Path("small")) == {"large.JPG": (17, 10), "grey.png": (16, 10),
                                    "more/alpha.png": (10, 10)}
    for out in ("out", "photos/out", "photos/out"):  # its own outputs are no inputs
        assert translated(*args, photos, "--out", out) == 0
        assert sizes(Path(out)) == {"large.JPG": (517, 300), "grey.png": (33, 20),
                                    "more/alpha.png": (16, 16)}
        said = capfd.readouterr().out
        assert "wrote 3 of 4" in said and f"{photos / 'bad.jpg'} (not an image)" in said
    assert translated(*args, photos / "grey.png", "--out", "alone") == 0
    alone, among = (Image.open(Path(out, "grey.png")) for out in ("alone", "out"))
    assert alone.mode == "RGB" and np.array_equal(alone, among)  # it depends on no other file


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("flags, says", [
    ("--input photos", "--out"), ("--input nowhere --out out", "nowhere"),
    ("--input photos --out photos", "overwritten"),
    ("--input photos/bad.jpg --out out", "photos/bad.jpg (not an image)"),
    ("--input photos/large.JPG --out out --side 0", "--side 0"),
    ("--official photos/bad.jpg --input photos --out out", "photos/bad.jpg is no U-Net"),
    ("--official nowhere.pth --input photos --out out", "nowhere.pth"),
    ("--official run/ckpt.pt --input photos --out out", "run/ckpt.pt is no U-Net"),
    ("--official run/ckpt.pt", "needs both")])
def test_mistakes_with_input(trained, photos, tmp_path, capfd, flags, says):
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    assert translated("--ckpt", trained, *flags.split()) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err
    assert sorted(tmp_path.rglob("*")) == before


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
def test_official(tmp_path, k, width, c_in, c_out):
    torch.manual_seed(0)
    theirs = Theirs(k, width, c_in, c_out)
    for p in theirs.parameters():
        nn.init.normal_(p, 0, 0.3)
    state = theirs.state_dict()
    assert k != 8 or len(state) == 82
    assert "model.model.1.model.3.model.1.weight" in state and "model.model.3.bias" in state
    for name in list(state) if k == 7 else ():
        if name.endswith("num_batches_tracked"):
            del state[name]  # of older versions of torch
    torch.save(state, tmp_path / "latest_net_G.pth")
    G = sample.load_official(tmp_path / "latest_net_G.pth")
    names = sample.official_names(k)
    ours = G.state_dict()
    assert names.keys() == ours.keys()
    assert all(torch.equal(ours[name], state[other]) for name, other in names.items())
    trained = {name for name, _ in theirs.named_parameters()}
    assert set(names.values()) == trained and len(names) == len(trained)
    assert [any(isinstance(m, nn.Dropout) for m in layer) for layer in G.up] == [
        1 <= j < k - 4 for j in range(k)]
    x = torch.rand(1, c_in, 2 ** k, 2 ** k) * 2 - 1
    torch.manual_seed(1)
    y = G(x)
    torch.manual_seed(1)
    assert torch.allclose(y, theirs(x), atol=1e-4)
    assert y.std() > 0.1


def test_official_translates_files(photos, tmp_path):
    torch.save(Theirs(5, 2, 3, 3).state_dict(), "latest_net_G.pth")
    assert translated("--official", "latest_net_G.pth", "--input", photos, "--out", "out") == 0
    assert sizes(tmp_path / "out")["large.JPG"] == (517, 300)


def test_official_of_other_channels_is_refused(photos, tmp_path, capfd):
    torch.save(Theirs(5, 2, 1, 2).state_dict(), "latest_net_G.pth")  # colorization: L to ab
    assert translated("--official", "latest_net_G.pth", "--input", photos, "--out", "out") == 2
    assert "2 channels of 1" in capfd.readouterr().err
