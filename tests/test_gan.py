"""gan/: the authors' MNIST networks and schedule, Algorithm 1, Parzen's window."""
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    Watch,
    assert_sgd,
    load,
    n_parameters,
    n_train,
    tiny,
)
from torch import nn

from common import data

model, train, sample = (load("gan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 16, "--units", 8, "--sample-every", 100, "--save-every", 100)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags; what happened in it, and the images that it had."""
    def go(*flags):
        watch = Watch(monkeypatch, train, torch.optim.SGD)
        train.train(train.parse_args(tiny("gan", tmp_path / "run", *SMALL, *flags)))
        return watch, data.load_images("digits", 16).subset(0, n_train())
    return go


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.data, args.size, args.batch_size, args.k) == ("mnist", 28, 100, 1)
    assert (args.lr, args.z_dim, args.saturating, args.steps) == (0.1, 100, False, 250 * 500)
    G = model.Generator(args.size, 1, args.z_dim, args.width)
    D = model.Discriminator(args.size, 1, args.units, args.pieces)
    assert (n_parameters(G), n_parameters(D)) == (2_503_984, 1_231_441)
    assert (n_parameters(model.Generator()), n_parameters(model.Discriminator())) == (
        2_503_984, 1_231_441)


@pytest.mark.parametrize("size, channels", [(16, 1), (28, 1), (32, 3), (64, 3)])
def test_shapes_and_range(size, channels):
    G = model.Generator(size, channels, 7, 20)
    D = model.Discriminator(size, channels, 6, 3)
    nn.init.normal_(G.net[4].weight, std=50)  # to reach the ends of the range
    for n in (1, 5):
        x = G(train.sample_z(n, 7))
        assert x.shape == (n, channels, size, size) and D(x).shape == (n,)
    assert -1 <= x.min() < -0.8 < 0.8 < x.max() <= 1


def test_layers():
    kinds = [type(m) for m in model.Generator().net]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid, nn.Unflatten]
    D = model.Discriminator()
    kinds = [type(m) for m in D.net]
    assert kinds == [nn.Flatten, nn.Dropout, model.Maxout, nn.Dropout, model.Maxout, nn.Dropout,
                     nn.Linear]
    assert [m.p for m in D.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]


def test_initialisation():
    torch.manual_seed(0)
    for net, a in ((model.Generator(), 0.05), (model.Discriminator(), 0.005)):
        for m in net.modules():
            if isinstance(m, nn.Linear):
                assert (m.bias == 0).all()
                assert m.weight.abs().max() <= a
                assert m.weight.std().item() == pytest.approx(a / 3 ** 0.5, rel=0.05)


def test_d_sees_the_papers_pixels():
    """[0, 1], so that dropout's zero is black."""
    D = model.Discriminator(16, 1, 8, 2).eval()
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    assert torch.allclose(D(x), D.net((x + 1) / 2)[:, 0])


def test_dropout_is_in_d_alone():
    G, D = model.Generator(16, 1, 7, 20), model.Discriminator(16, 1, 8, 2)
    x = torch.rand(3, 1, 16, 16)
    nn.init.normal_(D.net[-1].weight)
    assert not torch.equal(D(x), D(x)) and torch.equal(D.eval()(x), D(x))
    z = train.sample_z(3, 7)
    assert torch.equal(G(z), G(z)) and torch.equal(G(z), train.sample(G, z))


def test_output_bias_is_the_logit_of_the_mean():
    G = model.Generator(16, 1, 7, 20)
    mean = torch.rand(1, 16, 16) * 1.9 - 0.95
    mean[0, 0, 0] = -1  # a pixel that is always black must not become -inf, nor grey
    G.init_output_bias(mean)
    assert G.net[4].bias.isfinite().all()
    nn.init.zeros_(G.net[4].weight)
    assert torch.allclose(G(train.sample_z(2, 7)), mean.expand(2, -1, -1, -1), atol=1e-5)


def test_z():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and z.abs().max() <= 3 ** 0.5
        assert z.min() < -1.72 and z.max() > 1.72
        assert z.mean().abs() < 0.02 and z.var().item() == pytest.approx(1, abs=0.02)


# The schedules

@pytest.mark.parametrize("updates, lr", [
    (0, 0.1), (1, 0.1 / 1.000004), (125_000, 0.1 * math.exp(-125_000 * math.log1p(4e-6))),
    (10 ** 8, 1e-6)])
def test_learning_rate(updates, lr):
    assert train.learning_rate(0.1, updates) == pytest.approx(lr, rel=1e-9)


def test_schedules_are_used(watched):
    """Over two epochs and a half, for G and, at half the rate, for D."""
    watch, images = watched("--steps", 6, "--batch-size", 27, "--lr", 0.1)
    assert_sgd(watch, lambda i: train.learning_rate(0.1, i),
               lambda i: train.momentum(27 * i / len(images)))
    assert len(watch.all("step")) == 12 and train.momentum(27 * 5 / len(images)) > 0.5


# Algorithm 1

@pytest.mark.parametrize("k", [1, 3])
def test_algorithm_1(watched, k):
    watch, images = watched("--steps", 2, "--k", k)
    once = " ".join(["G D D step(D)"] * k + ["G D step(G)"])
    assert watch.order() == f"{once} {once}"
    assert [e.fresh for e in watch.all("step")] == ([{"D"}] * k + [{"G"}]) * 2

    z = torch.stack([e.x for e in watch.all("G")])
    assert len(z.flatten(0, 1).unique(dim=0)) == len(z) * 4  # fresh noise each time
    seen = iter(watch.all("D"))
    batches, made = images.batches(4, seed=0), iter(watch.all("G"))
    for _ in range(2):
        for _ in range(k):
            assert torch.equal(next(seen).x, next(batches))  # fresh data each time
            assert torch.equal(next(seen).x, next(made).y)
        assert torch.equal(next(seen).x, next(made).y)
    assert all(e.training for e in watch.all("D"))  # dropout is on, in G's update too


def test_training_starts_at_the_mean_image(watched):
    watch, images = watched("--steps", 1)
    p = ((images[:].mean(0) + 1) / 2).clamp(1e-7, 1 - 1e-7)
    assert torch.allclose(watch.all("G")[0].weights[-1], torch.logit(p).flatten(), atol=1e-5)


# sample.py: figures

def test_nearest_is_brute_force():
    torch.manual_seed(0)
    known, x = torch.rand(2300, 1, 3, 3) * 2 - 1, torch.rand(40, 1, 3, 3) * 2 - 1
    x[0] = known[2299]  # of the last part
    d = ((x[:, None] - known[None]) ** 2).flatten(2).sum(2)
    assert torch.equal(sample.nearest(x, known), known[d.argmin(1)])


@pytest.fixture
def figures(watched, tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, and the run's G."""
    def draw(*flags):
        grids = {}
        monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                            grids.update({path.name: (x, options)}))
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *flags])
        return grids, sample.load_generator(tmp_path / "run" / "ckpt.pt")[0]
    watched("--steps", 2)
    return draw


def test_fig_2_ends_with_the_nearest_training_image(figures, monkeypatch):
    seen = []
    monkeypatch.setattr(sample, "nearest", lambda x, known, right=sample.nearest:
                        seen.append(known[:]) or right(x, known))
    x, options = figures()[0]["fig2.png"]
    x = x.unflatten(0, (-1, 6))
    assert options["n_cols"] == 6
    assert torch.equal(seen[0], data.load_images("digits", 16)[:n_train()])  # not for validation
    d = (x[:, 4:5] - seen[0]).flatten(2).norm(dim=2)
    assert torch.equal(x[:, 5], seen[0][d.argmin(1)])
    assert len(x[:, :5].flatten(0, 1).unique(dim=0)) == 5 * len(x)


def test_fig_3_walks_straight_in_z(figures):
    grids, G = figures("--seed", "3")
    x, options = grids["fig3.png"]
    torch.manual_seed(3)
    ends = sample.sample_z(16, 100).unflatten(0, (8, 2))
    rows = torch.stack([torch.stack([a + (b - a) * i / 9 for i in range(10)]) for a, b in ends])
    assert options["n_cols"] == 10 and torch.allclose(x, G(rows.flatten(0, 1)), atol=1e-5)


def test_parzen_flag_keeps_the_sets_apart(figures, monkeypatch, capsys):
    seen = {}
    monkeypatch.setattr(sample, "parzen", lambda G, ckpt, valid, test: seen.update(
        valid=valid[:], test=test[:]) or (1.25, 0.5, 0.2))
    figures("--parzen")
    assert torch.equal(seen["valid"], data.load_images("digits", 16)[n_train():])
    assert torch.equal(seen["test"], data.load_images("digits", 16, split="test")[:])
    assert "1.2 +- 0.5 nats" in capsys.readouterr().out


def test_log_4_is_the_value_at_the_optimum():
    """C(G) = -log 4 + 2 JSD: for p_g = p_data the optimal D is 1/2, for disjoint ones C = 0."""
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    for p_g, cost in ((p, -math.log(4)), (q, -math.log(4) + math.log(2))):  # JSD(p, q) = log 2 / 2
        logits = (p.clamp_min(1e-30) / p_g.clamp_min(1e-30)).log()  # D* = p / (p + p_g), Eq. 2
        value = -(p * F.softplus(-logits) + p_g * F.softplus(logits)).sum()
        drawn = torch.tensor([0, 1]), torch.tensor([0, 1]) if p_g is p else torch.tensor([1, 2])
        assert value.item() == pytest.approx(cost, abs=1e-5)
        assert -train.d_loss(*(logits[i] for i in drawn)).item() == pytest.approx(cost, abs=1e-5)
