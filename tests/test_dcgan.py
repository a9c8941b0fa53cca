"""dcgan/: the five rules, Fig. 1's shapes, batch norm's statistics, the figures."""
import math

import pytest
import torch
from conftest import (
    assert_loss_at,
    assert_no_neighbours,
    assert_normal_weights,
    assert_reaches_both_ends,
    assert_resume_refused,
    assert_uniform,
    feature_maps,
    kinds,
    load,
    n_parameters,
    parser,
    watching,
)
from torch import nn

from common import data

model, train, sample = (load("dcgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8, "--size", 16, "--sample-every", 100, "--save-every", 100)
SIZES = parser("dcgan")._option_string_actions["--size"].choices


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    return watching("dcgan", train, torch.optim.Adam, SMALL, tmp_path, monkeypatch)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.batch_size, args.z_dim) == (64, 128, 128, 100)
    assert (args.lr, args.beta1) == (2e-4, 0.5)
    assert args.steps == 5 * 3_033_042 // 128


@pytest.mark.parametrize("size, channels, width, g, d", [
    (64, 3, 128, 18_855_040, 17_232_768),  # Fig. 1, first batch norm by channels
    (32, 3, 64, 1_439_296, 1_033_664),     # the authors' SVHN network
    (32, 1, 64, 1_436_096, 1_030_464)])
def test_parameter_counts(size, channels, width, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, channels, 100, width)) == g
        assert n_parameters(model.Discriminator(size, channels, width)) == d
        if size == 64:
            assert n_parameters(model.Generator()) == g
            assert n_parameters(model.Discriminator()) == d


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_double_and_halve(size, channels):
    with torch.device("meta"):
        G, D = model.Generator(size, channels, 100, 8), model.Discriminator(size, channels, 8)
        of_g, of_d = feature_maps(G, D)
        x = G(torch.empty(3, 100))
        assert x.shape == (3, channels, size, size) and D(x).shape == (3,)
    k = int(math.log2(size // 4))
    assert of_d == [(8 << i, size >> i + 1, size >> i + 1) for i in range(k)]
    assert of_g == [(8 << k - i - 2, 8 << i, 8 << i) for i in range(k - 1)] + [
        (channels, size, size)]


@pytest.mark.parametrize("size", [0, 4, 12, 33, 96])
def test_other_sizes_are_refused(size):
    for net in (model.Generator, model.Discriminator):
        with pytest.raises(ValueError, match="8, 16, 32, 64"):
            net(size)


def test_the_five_rules():
    G, D = model.Generator(64, 3, 100, 8), model.Discriminator(64, 3, 8)
    up, down, norm = nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d
    assert kinds(G) == [nn.Linear, nn.Unflatten, norm, nn.ReLU, *[up, norm, nn.ReLU] * 3,
                        up, nn.Tanh]  # no batch norm at G's output
    assert kinds(D) == [down, nn.LeakyReLU, *[down, norm, nn.LeakyReLU] * 3,
                        nn.Flatten, nn.Linear]  # nor at D's input
    for m in (*G.modules(), *D.modules()):
        if isinstance(m, (up, down)):
            assert (m.kernel_size, m.stride, m.bias) == ((5, 5), (2, 2), None)
        if isinstance(m, nn.Linear):
            assert m.bias is None
        if isinstance(m, nn.LeakyReLU):
            assert m.negative_slope == 0.2
        if isinstance(m, norm):
            assert (m.eps, m.momentum, m.affine) == (1e-5, 0.1, True)


def test_initialisation():
    torch.manual_seed(0)
    assert_normal_weights(model.Generator(32, 3, 100, 64), model.Discriminator(32))


def test_range():
    torch.manual_seed(0)
    assert_reaches_both_ends(model.Generator(16, 3, 10, 8), train.sample_z(9, 10))


def test_z():
    assert_uniform(train.sample_z, sample.sample_z)


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())  # a sum, not halved
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())


@pytest.mark.parametrize("loss, logit, value, slope", [
    (lambda a: train.d_loss(a, a * 0 - 200), -200, 200, -1),
    (lambda a: train.d_loss(a, a * 0 - 200), 200, 0, 0),
    (lambda a: train.d_loss(a * 0 + 200, a), 200, 200, 1),
    (lambda a: train.d_loss(a * 0 + 200, a), -200, 0, 0),
    (lambda a: train.g_loss(a), -200, 200, -1), (lambda a: train.g_loss(a), 200, 0, 0)])
def test_losses_of_extreme_logits(loss, logit, value, slope):
    assert_loss_at(loss, logit, value, slope)


# A step

def test_a_step(watched):
    watch = watched("--steps", 2)
    assert watch.order() == "G D D step(D) D step(G) G D D step(D) D step(G)"
    assert [e.fresh for e in watch.all("step")] == [{"D"}, {"G"}] * 2
    batches = data.load_images("faces", 16).batches(4, seed=0)
    for made, real, fake, again in zip(watch.all("G"), *[iter(watch.all("D"))] * 3, strict=True):
        # Two passes of one batch each: real and fake have their own statistics
        assert torch.equal(real.x, next(batches))
        assert torch.equal(fake.x, made.y) and torch.equal(again.x, made.y)
        assert made.training and real.training and fake.training and again.training
        assert all(map(torch.equal, real.weights, fake.weights))
        assert not all(map(torch.equal, fake.weights, again.weights))  # G learns from the new D
    first, second = watch.all("G")
    assert not torch.equal(first.x, second.x)
    norms = [m for m in watch.nets["D"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert [int(m.num_batches_tracked) for m in norms] == [6] * len(norms)


@pytest.mark.parametrize("flags, lr, beta1", [
    ((), 2e-4, 0.5), (("--lr", 1e-3, "--beta1", 0.25), 1e-3, 0.25), (("--beta1", 0), 2e-4, 0.0)])
def test_adam(watched, flags, lr, beta1):
    for step in watched("--steps", 1, *flags).all("step"):
        assert (step.group["lr"], step.group["betas"]) == (lr, (beta1, 0.999))
        assert (step.group["weight_decay"], step.group["eps"]) == (0, 1e-8)


def test_beta1_given_at_resume_is_used(watched, tmp_path):
    watched("--steps", 1)
    watch = watched("--steps", 2, "--resume", "--beta1", 0.25)
    assert [step.group["betas"] for step in watch.all("step")] == [(0.25, 0.999)] * 2


@pytest.mark.parametrize("flags", [("--width", 9), ("--z-dim", 5), ("--size", 32),
                                   ("--data", "digits")])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def test_sampling_depends_on_no_neighbour():
    assert_no_neighbours(train, model)


# sample.py

@pytest.fixture
def figures(watched, tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, and the run's G."""
    def draw(*flags, data="faces"):
        watched("--steps", 2, "--data", data)
        grids = {}
        monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                            grids.update({path.name: (x, options)}))
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *flags])
        return grids, sample.load_generator(tmp_path / "run" / "ckpt.pt")[0]
    return draw


def test_fig_4_walks_from_each_point_to_the_next(figures):
    grids, G = figures("--seed", "3")
    x, options = grids["fig4.png"]
    rows = x.unflatten(0, (8, 10))
    assert options["n_cols"] == 10
    torch.manual_seed(3)
    ends = G(sample.sample_z(9, 100))
    assert torch.allclose(rows[:, 0], ends[:-1], atol=1e-5)
    assert torch.allclose(rows[:, -1], ends[1:], atol=1e-5)
    torch.manual_seed(3)
    z = sample.sample_z(9, 100)
    assert torch.allclose(rows[2, 3], G(torch.lerp(z[2:3], z[3:4], 3 / 9))[0], atol=1e-5)


def test_fig_7_of_drawn_faces_and_by_number(figures):
    grids, G = figures()
    x, options = grids["fig7.png"]
    assert len(x) == 24 and len(options["captions"]) == 3 and "candidates.png" in grids
    assert options["captions"][0].strip() == "glasses, smiling"
    torch.manual_seed(0)
    sample.sample_z(9, 100)  # Fig. 4's
    z = sample.sample_z(1000, 100)
    assert torch.allclose(grids["candidates.png"][0], G(z[:100]), atol=1e-5)


def test_fig_7_by_number(figures):
    picks = "4 17 32 8 9 51 0 3 77".split()
    grids, G = figures("--vectors", *picks, data="digits")
    x, candidates = grids["fig7.png"][0].unflatten(0, (3, 8)), grids["candidates.png"][0]
    chosen = candidates[list(map(int, picks))].unflatten(0, (3, 3))
    assert torch.allclose(x[:, :3], chosen, atol=1e-5)


def test_fig_7_needs_a_choice(figures, capsys):
    grids, _ = figures(data="digits")
    assert "fig7.png" not in grids and "--vectors" in capsys.readouterr().out


def test_arithmetic():
    """With G(z) = z, as 2x2 pictures, every number can be seen."""
    def G(z):
        return z.unflatten(1, (1, 2, 2))

    torch.manual_seed(0)
    z, picks = torch.rand(20, 4) * 2 - 1, [3, 1, 4, 15, 9, 2, 6, 5, 13]
    x = sample.arithmetic(G, z, picks).unflatten(0, (3, 8)).flatten(2)
    A, B, C = z[[3, 1, 4]], z[[15, 9, 2]], z[[6, 5, 13]]
    for row, concept in zip(x, (A, B, C), strict=True):
        assert torch.allclose(row[:3], concept) and torch.allclose(row[3], concept.mean(0))
        assert (row[4] == 1).all()  # white
    nine, y = x[:, 5:].flatten(0, 1), A.mean(0) - B.mean(0) + C.mean(0)
    assert torch.allclose(nine[4], y, atol=1e-6)
    away = (nine - y)[[0, 1, 2, 3, 5, 6, 7, 8]].abs()
    assert 0.15 < away.max() <= 0.25 + 1e-6 and len(nine.unique(dim=0)) == 9


def test_exemplars_show_the_whole_concept():
    scores = torch.tensor([[9.0, -9], [1, 1], [2, 3], [-5, 4], [5, 5], [-1, 8]])
    names = ["glasses", "smiling"]
    assert sample.exemplars(scores, names, dict(glasses=1, smiling=1)) == [4, 2, 1]
    assert sample.exemplars(scores, names, dict(glasses=0, smiling=1))[:2] == [3, 5]


def test_judge_knows_held_out_faces(monkeypatch):
    monkeypatch.setitem(data.N_BUILTIN, "train", 4000)
    monkeypatch.setitem(data.N_BUILTIN, "test", 500)
    x, a = data.load_attributes("faces", 32, split="test")[:]
    faces = data.load_attributes("faces", 32)
    names, scores = faces.attributes, sample.judge(x, faces)
    right = ((scores > 0) == (a > 0)).float().mean(0)
    assert right[names.index("glasses")] > 0.78 and right[names.index("smiling")] > 0.8
    for concept in sample.CONCEPTS:  # those it is surest of, which Fig. 7 takes
        for i in sample.exemplars(scores, names, concept):
            assert {name: a[i, names.index(name)] for name in concept} == concept
