"""wgan/: the three generators of Figs. 5 to 7, Algorithm 1 with its clipping, the estimate."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from algorithm import RMSProp, assert_same_run, float64
from conftest import (
    assert_no_neighbours,
    assert_normal_weights,
    feature_maps,
    kinds,
    load,
    n_parameters,
    parser,
    tiny,
)
from torch import nn

from common import data

model, train, sample = (load("wgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8)
SIZES = parser("wgan")._option_string_actions["--size"].choices


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.arch, args.z_dim) == (64, 64, "dcgan", 100)
    assert (args.lr, args.clip, args.batch_size, args.n_critic) == (5e-5, 0.01, 64, 5)
    assert (args.data, args.authors_schedule) == ("lsun/bedroom", False)
    assert args.steps == 25 * 3_033_042 // (5 * 64)


@pytest.mark.parametrize("size, channels, g, d", [
    (64, 3, 3_576_704, 2_765_568), (32, 3, 1_068_928, 663_296), (32, 1, 1_066_880, 661_248)])
def test_parameter_counts(size, channels, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, channels, 100, 64)) == g
        assert n_parameters(model.Critic(size, channels, 64)) == d
        if size == 64:
            assert n_parameters(model.Generator()) == g
            assert n_parameters(model.Critic()) == d


@pytest.mark.parametrize("arch, n", [("dcgan", 3_576_704), ("nobn", 302_080), ("mlp", 7_143_424)])
def test_parameter_counts_of_the_three_generators(arch, n):
    with torch.device("meta"):
        assert n_parameters(model.Generator(arch=arch)) == n


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_double_and_halve(size, channels):
    with torch.device("meta"):
        G, D = model.Generator(size, channels, 100, 8), model.Critic(size, channels, 8)
        of_g, of_d = feature_maps(G, D)
        x = G(torch.empty(3, 100))
        assert x.shape == (3, channels, size, size) and D(x).shape == (3,)
        for arch in ("nobn", "mlp"):
            assert model.Generator(size, channels, 7, 8, arch)(torch.empty(3, 7)).shape == x.shape
    k = size.bit_length() - 3
    assert of_d == [(8 << i, size >> i + 1, size >> i + 1) for i in range(k)] + [(1, 1, 1)]
    assert of_g == [(8 << k - i - 1, 4 << i, 4 << i) for i in range(k)] + [
        (channels, size, size)]


@pytest.mark.parametrize("size", [0, 4, 8, 12, 33, 96])
def test_other_sizes_are_refused(size):
    for build in (model.Generator, model.Critic):
        with pytest.raises(ValueError, match="16, 32, 64"):
            build(size)


def test_layers():
    up, down, norm, linear = nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d, nn.Linear
    G, D = model.Generator(width=8), model.Critic(width=8)
    assert kinds(G) == [nn.Unflatten, *[up, norm, nn.ReLU] * 4, up, nn.Tanh]
    assert kinds(D) == [down, nn.LeakyReLU, *[down, norm, nn.LeakyReLU] * 3, down]  # no sigmoid
    for net in (G, D):
        convs = [m for m in net.modules() if isinstance(m, (up, down))]
        assert all((m.kernel_size, m.bias) == ((4, 4), None) for m in convs)
        assert sorted((m.stride[0], m.padding[0]) for m in convs) == [(1, 0)] + [(2, 1)] * 4
        assert all(m.negative_slope == 0.2 for m in net.modules() if isinstance(m, nn.LeakyReLU))
    nobn, mlp = (model.Generator(width=8, arch=arch) for arch in ("nobn", "mlp"))
    assert norm not in kinds(nobn) and kinds(nobn)[-1] is nn.Tanh
    assert {m.out_channels for m in nobn.modules() if isinstance(m, up)} == {8, 3}
    assert kinds(mlp) == [*[linear, nn.ReLU] * 4, linear, nn.Unflatten]
    assert {m.out_features for m in mlp.modules() if isinstance(m, linear)} == {512, 3 * 64 * 64}


def test_initialisation():
    torch.manual_seed(0)
    assert_normal_weights(model.Generator(32), model.Critic(32), model.Generator(32, arch="nobn"))


def test_ranges():
    torch.manual_seed(0)
    for arch in ("dcgan", "nobn", "mlp"):
        G = model.Generator(16, 1, 10, 8, arch)
        for m in G.modules():
            if isinstance(m, (nn.ConvTranspose2d, nn.Linear)):
                nn.init.normal_(m.weight)
        x = G(train.sample_z(9, 10))
        assert (x.abs().max() > 1) == (arch == "mlp")  # it has no tanh, but its pictures have:
        ckpt = {"args": {"z_dim": 10}, "z_fixed": torch.empty(0)}
        x, = sample.generate(G, ckpt, 9)
        assert -1 <= x.min() < -0.9 and 0.9 < x.max() <= 1
    D = model.Critic(16, 1, 8)
    nn.init.constant_(D.net[-1].weight, 9)
    assert D(x).abs().max() > 1  # scores are not probabilities


def test_z():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and z.abs().max() > 3
        assert z.mean().abs() < 0.02 and z.std().item() == pytest.approx(1, abs=0.02)


# The losses and the clipping

def test_losses_are_linear():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    estimate = real.sum().item() / 50 - fake.sum().item() / 50
    assert train.d_loss(real, fake).item() == pytest.approx(-estimate)
    assert train.d_loss(3 * real, 3 * fake).item() == pytest.approx(-3 * estimate)
    assert train.d_loss(real + 7, fake + 7).item() == pytest.approx(-estimate)
    assert train.g_loss(fake).item() == pytest.approx(-fake.sum().item() / 50)


def test_the_critic_finds_the_best_function_of_its_set():
    """Linear f in the cube: max E[f(x)] - E[f(G(z))] = c |E x - E G(z)|_1, w = c sign."""
    torch.manual_seed(0)
    x, x_fake, D = torch.randn(40, 6), torch.randn(40, 6) * 2, nn.Linear(6, 1)
    opt = torch.optim.RMSprop(D.parameters(), lr=1e-3)
    for _ in range(500):
        loss = train.d_loss(D(x)[:, 0], D(x_fake)[:, 0])
        opt.zero_grad()
        loss.backward()
        opt.step()
        train.clip(D, 0.01)
    difference = x.mean(0) - x_fake.mean(0)
    assert torch.allclose(D.weight[0], 0.01 * difference.sign())
    assert -loss.item() == pytest.approx(0.01 * difference.abs().sum().item(), rel=1e-4)
    assert D.bias.abs() <= 0.01


# Algorithm 1

@pytest.mark.parametrize("step, updates", [
    (1, 100), (2, 100), (25, 100), (26, 5), (500, 5), (501, 100), (502, 5), (1001, 100)])
def test_the_authors_schedule(step, updates):
    """100 where gen_iterations, counted from 0, is below 25 or divisible by 500."""
    for on, n in ((True, updates), (False, 5)):
        assert train.critic_updates(step, SimpleNamespace(n_critic=5, authors_schedule=on)) == n


@pytest.mark.parametrize("arch, flags, n_critic", [
    ("dcgan", (), 5), ("nobn", ("--n-critic", 2, "--clip", 0.1), 2), ("mlp", ("--n-critic", 1), 1),
    ("dcgan", ("--authors-schedule",), 100)])
def test_three_steps_are_algorithm_1(tmp_path, arch, flags, n_critic):
    """With a stop after the second, and another learning rate from there on."""
    c = 0.1 if "--clip" in flags else 0.01
    with float64():
        train.train(train.parse_args(tiny("wgan", tmp_path, *SMALL, "--arch", arch, *flags,
                                          "--lr", 5e-5, "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", "--lr=1e-3", f"--out={tmp_path}"]))

        batches, rows = data.load_images("digits", 16).batches(4, seed=0), []
        torch.manual_seed(0)
        torch.randn(64, 100)  # z_fixed
        G, D = model.Generator(16, 1, 100, 8, arch), model.Critic(16, 1, 8)
        opt_g, opt_d = RMSProp(G.parameters()), RMSProp(D.parameters())
        for step in (1, 2, 3):
            torch.manual_seed(step)
            lr = 5e-5 if step < 3 else 1e-3
            for _ in range(n_critic):
                real = D(next(batches))  # of the batch's own statistics, as is fake
                fake = D(G(torch.randn(4, 100)).detach())
                estimate = sum(real) / 4 - sum(fake) / 4
                opt_d.step(-estimate, lr)
                with torch.no_grad():
                    for w in D.parameters():
                        w.copy_(w.maximum(torch.tensor(-c)).minimum(torch.tensor(c)))
            loss_g = -sum(D(G(torch.randn(4, 100)))) / 4
            opt_g.step(loss_g, lr)
            rows.append([-estimate.item(), loss_g.item(), estimate.item()])
    assert_same_run(tmp_path, rows, G=G, D=D)
    assert (tmp_path / "log.csv").read_text().startswith("step,loss_d,loss_g,estimate\n")


def test_sampling_depends_on_no_neighbour():
    assert_no_neighbours(train, model)


# sample.py

def test_median_filter():
    rng = np.random.default_rng(0)
    step = np.cumsum(rng.integers(1, 40, 300)).astype(float)  # rows need not be regular
    value = rng.normal(size=300)
    by_hand = [np.median([v for t, v in zip(step, value, strict=True) if abs(t - s) <= 50])
               for s in step]
    assert sample.median_filter(step, value).tolist() == by_hand
    spike = np.zeros(500)
    spike[200:250] = 9  # 50 of 101 are no majority
    assert not sample.median_filter(np.arange(500.0), spike).any()
    spike[250] = 9
    assert sample.median_filter(np.arange(500.0), spike).nonzero()[0].tolist() == [*range(200, 251)]


@pytest.mark.parametrize("arch, sheet", [
    ("dcgan", "fig5.png"), ("nobn", "fig6.png"), ("mlp", "fig7.png")])
def test_figures(tmp_path, monkeypatch, arch, sheet):
    train.train(train.parse_args(tiny("wgan", tmp_path, *SMALL, "--steps", 3, "--n-critic", 1,
                                      "--arch", arch)))
    log, ckpt = tmp_path / "log.csv", tmp_path / "ckpt.pt"
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    with open(log, "a") as f:
        f.write("4,-9.0,9.0,9.0\n5,9.")  # later than the checkpoint, as a kill leaves it
    grids, films = {}, {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: x}))
    monkeypatch.setattr(sample, "grid", lambda x, **options: x)
    monkeypatch.setattr(sample, "save_gif", lambda path, frames: films.update({path.name: frames}))
    out = tmp_path / "figures"
    out.mkdir()
    sample.main(["--ckpt", str(ckpt), "--seed=3", "--frames=3"])
    assert grids.keys() == {"samples.png", sheet}
    G, _ = sample.load_generator(ckpt)
    torch.manual_seed(3)
    assert torch.allclose(grids[sheet], G(torch.randn(256, 100)).clamp(-1, 1), atol=1e-5)
    torch.manual_seed(3)
    a, b = torch.randn(64, 100).split(32)
    for x, z in zip(films["walk.gif"], (a, (a + b) / 2 ** 0.5, b), strict=True):
        assert torch.allclose(x, G(z), atol=1e-5)  # half way z is as long as at the ends

    head, *table = (out / "fig3.csv").read_text().splitlines()
    assert head.split(",")[:2] == ["step", "estimate"] and (out / "fig3.png").exists()
    median = np.median([float(row[3]) for row in rows])
    for line, row in zip(table, rows, strict=True):
        assert [float(cell) for cell in line.split(",")] == pytest.approx(
            [float(row[0]), float(row[3]), median], rel=1e-4)
    log.unlink()  # of a checkpoint that was moved
    (out / "fig3.png").unlink()
    sample.main(["--ckpt", str(ckpt)])
    assert not (out / "fig3.png").exists()
