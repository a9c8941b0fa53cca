"""dcgan/: the five rules, Fig. 1's shapes, batch norm's statistics, the figures."""
import math

import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import (
    assert_loss_at,
    assert_no_neighbours,
    assert_normal_weights,
    assert_reaches_both_ends,
    assert_resume_refused,
    assert_uniform,
    caught,
    feature_maps,
    load,
    n_parameters,
    parser,
    tiny,
)
from torch import nn

from common import data

model, train, sample = (load("dcgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = "--width", 4, "--size", 16


# The paper's setting

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.batch_size, args.z_dim) == (64, 128, 128, 100)
    assert (args.lr, args.beta1, args.data) == (2e-4, 0.5, "lsun/bedroom")
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


@pytest.mark.parametrize("size", parser("dcgan")._option_string_actions["--size"].choices)
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


def test_first_weights_z_and_range():
    torch.manual_seed(0)
    assert_normal_weights(model.Generator(32, 3, 100, 64), model.Discriminator(32))
    assert_uniform(train.sample_z, sample.sample_z)
    assert_reaches_both_ends(model.Generator(16, 3, 10, 8), train.sample_z(9, 10))


# The losses

@pytest.mark.parametrize("loss, logit, value, slope", [
    (lambda a: train.d_loss(a, a * 0 - 200), -200, 200, -1),
    (lambda a: train.d_loss(a * 0 + 200, a), 200, 200, 1),
    (lambda a: train.d_loss(a, a * 0), 0, 2 * math.log(2), -0.5),  # a sum, not halved
    (lambda a: train.g_loss(a), -200, 200, -1), (lambda a: train.g_loss(a), 0, math.log(2), -0.5)])
def test_losses_of_extreme_logits(loss, logit, value, slope):
    assert_loss_at(loss, logit, value, slope)


# A step, with the networks of Sec. 3 at 16x16, written out again

def norm(x, bn):
    """By the batch's own statistics, of which running averages are kept. [rule 2]"""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    n = x.numel() / x.shape[1]
    with torch.no_grad():
        bn.running_mean.lerp_(mean, 0.1)
        bn.running_var.lerp_(var * n / (n - 1), 0.1)
        bn.num_batches_tracked += 1
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return bn.weight[:, None, None] * x + bn.bias[:, None, None]


def parts(net):
    return ([w for w in net.parameters() if w.ndim > 1],
            [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)])


def draw(G, z):
    (project, up1, up2), (bn1, bn2) = parts(G)
    x = norm((z @ project.T).view(len(z), -1, 4, 4), bn1).relu()  # [rules 3, 4]
    x = norm(F.conv_transpose2d(x, up1, None, 2, 2, 1), bn2).relu()  # [rule 1]
    return F.conv_transpose2d(x, up2, None, 2, 2, 1).tanh()


def judge(D, x):
    (down1, down2, last), (bn,) = parts(D)
    x = F.conv2d(x, down1, None, 2, 2)
    x = norm(F.conv2d(torch.max(x, 0.2 * x), down2, None, 2, 2), bn)  # [rule 5]
    return torch.sigmoid(torch.max(x, 0.2 * x).flatten(1) @ last.T)


def test_three_steps(tmp_path):
    """D, then G on the same z. With a stop after the second, and other settings of Adam from there
    on."""
    with float64():
        train.train(train.parse_args(tiny("dcgan", tmp_path, *SMALL, "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", "--lr=0.01", "--beta1=0.25",
                                      f"--out={tmp_path}"]))

        batches, rows = data.load_images("faces", 16).batches(4, seed=0), []
        torch.manual_seed(0)
        train.sample_z(64, 100)
        G, D = model.Generator(16, 3, 100, 4), model.Discriminator(16, 3, 4)
        opt_g, opt_d = (Adam(net.parameters(), beta1=0.5) for net in (G, D))
        for step in (1, 2, 3):
            torch.manual_seed(step)
            lr = 2e-4 if step < 3 else 0.01
            if step == 3:
                opt_g.betas = opt_d.betas = (0.25, 0.999)
            x_fake = draw(G, torch.rand(4, 100) * 2 - 1)
            real, fake = judge(D, next(batches)), judge(D, x_fake.detach())  # not in one pass
            loss_d = -real.log().mean() - (1 - fake).log().mean()
            opt_d.step(loss_d, lr)
            loss_g = -judge(D, x_fake).log().mean()
            opt_g.step(loss_g, lr)
            rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake)])
    assert_same_run(tmp_path, rows, 1e-9, G=G, D=D)


@pytest.mark.parametrize("flags", [("--width", 9), ("--z-dim", 5), ("--size", 32),
                                   ("--data", "digits")])
def test_resume_refuses_another_network(tmp_path, capfd, flags):
    train.train(train.parse_args(tiny("dcgan", tmp_path, *SMALL, "--steps", 1)))
    assert_resume_refused(train, tmp_path, capfd, flags)


def test_sampling_depends_on_no_neighbour():
    assert_no_neighbours(train, model)


# sample.py

@pytest.fixture
def figures(tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, and the run's G."""
    def draw(*flags, data="faces"):
        ckpt = tmp_path / "ckpt.pt"
        train.train(train.parse_args(tiny("dcgan", tmp_path, *SMALL, "--steps=2", "--data", data)))
        grids = caught(monkeypatch, sample)
        sample.main(["--ckpt", str(ckpt), "--frames=2", *flags])
        return grids, sample.load_generator(ckpt)[0]
    return draw


def test_figures_of_drawn_faces(figures):
    """Fig. 4 walks from each point to the next; Fig. 7 is of samples that the judge chose."""
    grids, G = figures("--seed=3")
    assert not G.training  # batch norm's running averages, as in the run's own pictures
    torch.manual_seed(3)
    z = sample.sample_z(9, 100)
    along = torch.arange(10)[:, None] / 9
    rows = z[:-1, None] * (1 - along) + z[1:, None] * along
    assert torch.allclose(grids["fig4.png"], G(rows.flatten(0, 1)).unflatten(0, (8, 10)), atol=1e-5)
    x = G(sample.sample_z(1000, 100))
    assert torch.allclose(grids["candidates.png"].flatten(0, 1), x[:100], atol=1e-5)
    faces = data.load_attributes("faces", 16)
    scores = sample.judge(x, faces)
    for row, concept in zip(grids["fig7.png"], sample.CONCEPTS, strict=True):
        chosen = sample.exemplars(scores, faces.attributes, concept)
        assert torch.allclose(row[:3], x[chosen], atol=1e-5)


def test_fig_7_by_number(figures):
    picks = "4 17 32 8 9 51 0 3 77".split()
    grids, _ = figures("--vectors", *picks, data="digits")
    chosen = grids["candidates.png"].flatten(0, 1)[list(map(int, picks))]
    assert torch.allclose(grids["fig7.png"][:, :3].flatten(0, 1), chosen, atol=1e-5)


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
