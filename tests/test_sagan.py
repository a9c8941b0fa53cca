"""sagan/: self-attention, spectral normalisation in both networks, two learning rates."""
import copy

import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import assert_resume_refused, load, main, n_parameters, tiny
from torch import nn

from common import data

model, train, sample = (load("sagan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width-g", 8, "--width-d", 8, "--z-dim", 6)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width_g, args.width_d, args.attention) == (128, 64, 64, 32)
    assert (args.lr, args.ttur, args.beta1, args.beta2) == (1e-4, 4, 0, 0.9)
    assert (args.batch_size, args.z_dim, args.steps) == (256, 128, 1_000_000)


@pytest.mark.parametrize("size, width_g, width_d, n_classes, attention, g, d", [
    (128, 64, 64, 1000, 32, 42_078_852, 39_463_618),
    (128, 64, 64, 1000, 64, 42_017_412, 39_448_258),
    (128, 64, 64, 1000, 0, 41_996_931, 39_443_137),
    (32, 256, 128, 10, 16, 4_386_308, 1_075_586), (32, 64, 64, 10, 16, 380_804, 270_530)])
def test_parameter_counts(size, width_g, width_d, n_classes, attention, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, 3, 128, width_g, n_classes, attention)) == g
        assert n_parameters(model.Discriminator(size, 3, width_d, n_classes, attention)) == d


@pytest.mark.parametrize("size, attention", [
    (size, a) for size in (32, 64, 128) for a in (0, 8, 16, 32, 64) if a < size])
def test_attention_is_where_it_is_asked_for_and_once(size, attention):
    """In maps of that side; D has several of 8 pixels at 32 px, and only the first one attends."""
    with torch.device("meta"):
        G = model.Generator(size, 1, 6, 8, 3, attention)
        D = model.Discriminator(size, 1, 8, 3, attention)
        seen = []
        for net in (G, D):
            layers = [m for m in net.modules() if isinstance(m, model.SelfAttention)]
            assert len(layers) == (attention > 0)
            for m in layers:
                m.register_forward_pre_hook(lambda m, x: seen.append(tuple(x[0].shape[2:])))
        y = torch.zeros(2, dtype=torch.int64)
        x = G(torch.empty(2, 6), y)
        assert x.shape == (2, 1, size, size) and D(x, y).shape == (2,)
        assert seen == [(attention, attention)] * 2 * (attention > 0)


def test_blocks_of_d_are_wide_and_their_shortcuts_see_x():
    torch.manual_seed(0)
    block, x = model.DownBlock(3, 5), torch.randn(2, 3, 8, 8)
    assert block.conv1.out_channels == 5
    before, h = x.clone(), block.conv2(F.relu(block.conv1(F.relu(x))))
    assert torch.allclose(block(x), F.avg_pool2d(h + block.shortcut(x), 2), atol=1e-5)
    assert torch.equal(x, before)


def test_d_sums_over_places_and_projects():
    torch.manual_seed(0)
    D = model.Discriminator(32, 3, 8, 3, 0).eval()
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 0])
    h = x
    for block in D.blocks:
        h = block(h)
    h = h.clamp(min=0).sum((2, 3))
    by_hand = h @ D.logit.weight[0] + D.logit.bias + (D.embed.weight[y] * h).sum(1)
    assert torch.allclose(D(x, y), by_hand, atol=1e-5)


# Attention

def test_attention_place_by_place():
    """Eqs. 1-3 by loops: softmax over keys, of the pooled maps, no scale; then x + gamma o."""
    torch.manual_seed(0)
    layer, x = model.SelfAttention(16).double(), torch.randn(2, 16, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        layer.gamma.fill_(0.7)
    f, g, h = layer.query(x), F.max_pool2d(layer.key(x), 2), F.max_pool2d(layer.value(x), 2)
    assert f.shape[1:] == (2, 4, 6) and g.shape[1:] == (2, 2, 3) and h.shape[1:] == (8, 2, 3)
    o = torch.zeros(2, 8, 4, 6, dtype=torch.float64)
    for n in range(2):
        for i in range(4):
            for j in range(6):
                s = torch.stack([f[n, :, i, j] @ g[n, :, a, b] for a in range(2) for b in range(3)])
                beta = s.exp() / s.exp().sum()
                o[n, :, i, j] = sum(w * h[n, :, k // 3, k % 3] for k, w in enumerate(beta))
    assert torch.allclose(layer(x), x + 0.7 * layer.out(o), atol=1e-10)
    assert torch.allclose(layer.weights(x).sum(2), torch.ones(2, 24, dtype=torch.float64))


def test_gamma_begins_at_0_and_learns():
    torch.manual_seed(0)
    layer, x = model.SelfAttention(16), torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gamma.grad.abs() > 0


def test_attention_has_second_derivatives():
    torch.manual_seed(0)
    layer = model.SelfAttention(8).double()
    with torch.no_grad():
        layer.gamma.fill_(1)
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).sum((2, 3)), x)


def test_all_layers_of_both_networks_are_normalised():
    """The attention's four included, the classes' gains not; u has a number for each class."""
    torch.manual_seed(0)
    G, D = model.Generator(32, 3, 6, 8, 3, 16), model.Discriminator(32, 3, 8, 3, 16)
    for net, n in ((G.double(), 1 + 3 * 3 + 4 + 1), (D.double(), 3 + 3 + 2 + 2 + 4 + 2)):
        layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
        assert len(layers) == n
        for _ in range(1000):
            weights = [m.weight for m in layers]
        for W in weights:
            assert torch.linalg.svdvals(W.flatten(1))[0].item() == pytest.approx(1, abs=1e-3)
    assert D.embed.parametrizations.weight[0].u.shape == (3,)
    with torch.no_grad():
        G.blocks[0].norm1.gamma.fill_(7)
    assert (G.blocks[0].norm1.gamma == 7).all()


def test_sigma_has_its_gradient_and_rests_in_eval():
    """d (W / sigma) has no part along W: the length of W does not matter."""
    torch.manual_seed(0)
    W = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    norm = model.SpectralNorm(W).double()
    for _ in range(200):
        norm(W)
    gradient, = torch.autograd.grad((norm(W) * torch.randn_like(W)).sum(), W)
    assert gradient.abs().max() > 1e-3 and abs((gradient * W).sum().item()) < 1e-9
    norm.u.copy_(torch.randn(6))
    u = norm.u.clone()
    norm.eval()(W)
    assert torch.equal(norm.u, u)
    norm.train()(W)
    assert not torch.equal(norm.u, u)


# The losses, and a step

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50) * 2
    hinge = sum(max(0, 1 - a) for a in real.tolist()) / 50
    hinge += sum(max(0, 1 + a) for a in fake.tolist()) / 50
    assert train.d_loss(real, fake).item() == pytest.approx(hinge, rel=1e-5)
    assert train.g_loss(fake).item() == pytest.approx(-fake.mean().item())


def test_classes_of_fakes_are_all_alike():
    assert train.sample_y(20_000, 10).bincount(minlength=10).min() > 1800


@pytest.mark.parametrize("attention", [0, 8])
def test_steps_are_the_authors_algorithm(tmp_path, monkeypatch, attention):
    """G, then D once, each with a rate of its own, on noise and classes of its own."""
    start, keep = [], train.Run.keep
    monkeypatch.setattr(train.Run, "keep", lambda run, *sets, G, D, **parts: (
        start.extend(copy.deepcopy((G, D))), keep(run, *sets, G=G, D=D, **parts)))
    with float64():
        train.train(train.parse_args(tiny("sagan", tmp_path / "run", "--steps", 3, *SMALL,
                                          "--attention", attention)))
        G, D = start
        batches = data.load_labelled("digits", 32).batches(4, seed=0)
        opt_g, opt_d = Adam(G.parameters(), 0, 0.9), Adam(D.parameters(), 0, 0.9)
        rows = []
        for step in (1, 2, 3):
            torch.manual_seed(step)
            y = torch.randint(10, (4,))
            loss_g = -D(G(torch.randn(4, 6), y), y).mean()
            opt_g.step(loss_g, 5e-4)
            x, y = next(batches)
            y_fake = torch.randint(10, (4,))
            x_fake = G(torch.randn(4, 6), y_fake).detach()
            real, fake = D(x, y), D(x_fake, y_fake)
            loss_d = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
            opt_d.step(loss_d, 2e-3)
            gammas = [net.attention.gamma for net in (G, D) if attention]
            rows.append([t.mean().item() for t in (loss_d, loss_g, real, fake, *gammas)])
        assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D)
    assert not attention or all(gamma != 0 for gamma in gammas)


def test_attention_must_fit(tmp_path, capfd):
    assert main("sagan", *tiny("sagan", tmp_path, "--attention", 32)) == 2
    assert "--attention 32" in capfd.readouterr().err
    train.train(train.parse_args(tiny("sagan", tmp_path, "--steps", 1)))
    assert_resume_refused(train, tmp_path, capfd, ("--attention", 8))  # all its widths are alike


# sample.py

@pytest.fixture(scope="module")
def run(small_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main("sagan", *tiny("sagan", out, *SMALL, "--steps", 2)) == 0
    return out / "ckpt.pt"


def test_maps_are_the_points_rows_of_the_weights(run):
    G, _ = sample.load_generator(run)
    with torch.no_grad():
        for p in (G.attention.query, G.attention.key):
            p.parametrizations.weight.original.normal_()
    seen = []
    G.attention.register_forward_hook(lambda m, x, _: seen.append(m.weights(x[0])))
    torch.manual_seed(0)
    z, y = torch.randn(3, 6), torch.tensor([0, 5, 9])
    x, maps = sample.looks(G, z, y, [(0.0, 0.5), (0.99, 0.2)])  # at (x, y): column, row
    assert torch.equal(x, G(z, y)) and maps.shape == (3, 2, 32, 32)
    for k, place in ((0, 8 * 16 + 0), (1, 3 * 16 + 15)):
        row = seen[0][:, place].unflatten(1, (8, 8))  # 16 x 16 places, 8 x 8 keys
        where = row / row.amax((1, 2), keepdim=True)
        assert torch.allclose(F.avg_pool2d(maps[:, k], 4), where, atol=0.2)
        top = maps[:, k].flatten(1).argmax(1)  # a pixel; its key is the greatest, or nearly
        assert (where[torch.arange(3), top // 32 // 4, top % 32 // 4] > 0.9).all()


def test_the_picture_of_the_maps():
    """A column of pictures as they are, then one a point: dark, and coloured where it looks."""
    x, maps = torch.rand(2, 1, 8, 8) * 2 - 1, torch.zeros(2, 1, 8, 8)
    maps[:, :, 4:], maps[:, :, 6:] = 0.5, 1
    sheet = sample.overlay(x, maps, [(0.5, 0.1)], scale=3).unflatten(0, (2, 2))
    assert sheet.shape == (2, 2, 3, 24, 24)
    big = x.repeat_interleave(3, 2).repeat_interleave(3, 3).expand(-1, 3, -1, -1)
    blue = (torch.tensor([0, 0x72, 0xb2]) / 127.5 - 1)[:, None, None]
    assert torch.allclose(sheet[:, 0, :, 6:], big[:, :, 6:])
    dark = (big + 1) / 2 - 1
    assert torch.allclose(sheet[:, 1, :, 6:12], dark[:, :, 6:12], atol=1e-6)
    assert torch.allclose(sheet[:, 1, :, 12:18], (dark[:, :, 12:18] + blue) / 2, atol=1e-6)
    assert torch.allclose(sheet[:, 1, :, 18:], blue.expand(2, 3, 6, 24), atol=1e-6)
    for j, colour in (0, blue), (1, torch.ones(3, 1, 1)):
        assert torch.allclose(sheet[:, j, :, 2:3, 12:13], colour.expand(2, 3, 1, 1))


@pytest.mark.parametrize("points", ["0.5", "0.5 1", "-0.1 0.5"])
def test_points_outside_are_refused(run, tmp_path, capfd, points):
    assert main("sagan", "--ckpt", run, "--out", tmp_path / "out", "--points", *points.split(),
                script="sample.py") == 2
    assert "--points" in capfd.readouterr().err


def test_rows_are_classes(run, tmp_path, monkeypatch):
    grids = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: (x, options)}))
    monkeypatch.setattr(sample, "save_gif", lambda *_: (tmp_path / "out").mkdir())
    sample.main(["--ckpt", str(run), "--classes", "7", "3", "--out", str(tmp_path / "out")])
    x, options = grids["classes.png"]
    G, ckpt = sample.load_generator(run)
    assert options["captions"] == ["7", "3"] and len(x) == 20 and "attention.png" in grids
    torch.manual_seed(0)
    z, y = torch.randn(20, 6), torch.full((10,), ckpt["classes"].index("3"))
    assert torch.allclose(x[10:], G(z[10:], y), atol=1e-5)
    with pytest.raises(SystemExit):
        sample.main(["--ckpt", str(run), "--classes", "zebra"])


def test_names_of_single_files_tell_the_class(run, tmp_path):
    sample.main(["--ckpt", str(run), "--n", "3", "--each", str(tmp_path / "all")])
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "000000-0.png", "000001-1.png", "000002-2.png"]
