"""wgan/: Algorithm 1 with its clipping, the estimate, the three generators of Figs. 5 to 7."""
import numpy as np
import pytest
import torch
from conftest import (
    assert_no_neighbours,
    assert_normal_weights,
    assert_resume_refused,
    feature_maps,
    kinds,
    load,
    n_parameters,
    parser,
    watching,
)
from torch import nn

from common import data

model, train, sample = (load("wgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8, "--sample-every", 100, "--save-every", 100)
SIZES = parser("wgan")._option_string_actions["--size"].choices


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    return watching("wgan", train, torch.optim.RMSprop, SMALL, tmp_path, monkeypatch)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.arch, args.z_dim) == (64, 64, "dcgan", 100)
    assert (args.lr, args.clip, args.batch_size, args.n_critic) == (5e-5, 0.01, 64, 5)
    assert not args.authors_schedule
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
        x = sample.generate(G, {"args": {"z_dim": 10}}, 9)
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


@pytest.mark.parametrize("score", [-200.0, 0.0, 200.0])
def test_gradients_never_vanish(score):
    """Fig. 2: where D of a GAN saturates, the critic still tells G the way."""
    real, fake, made = (torch.full((4,), score, requires_grad=True) for _ in range(3))
    (train.d_loss(real, fake) + train.g_loss(made)).backward()
    for a, slope in ((real, -1), (fake, 1), (made, -1)):
        assert a.grad.tolist() == [slope / 4] * 4


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


def test_every_critic_update_is_clipped_and_every_parameter(watched):
    """RMSProp's first step, of ten times the rate 0.1, throws weights of every layer out of it."""
    watch = watched("--steps", 2, "--n-critic", 3, "--clip", 0.02, "--lr", 0.1)
    passes = watch.all("D")
    assert len(passes) == 2 * (3 * 2 + 1)
    assert max(w.abs().max() for w in passes[0].weights) > 0.9  # batch norm's gains, as drawn
    for e in passes[2:]:  # G's passes, too
        for w in e.weights:
            assert w.abs().max() <= 0.02
    for w in passes[2].weights:
        assert (w.abs() == torch.tensor(0.02)).any()
    last = [p.detach().abs().max() for p in watch.nets["D"].parameters()]
    assert max(last) <= 0.02
    averages = [m.running_var for m in watch.nets["D"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert max(v.max() for v in averages) > 0.02  # no parameters: not clipped
    assert max(p.abs().max() for p in watch.nets["G"].parameters()) > 0.5  # nor is G


# Algorithm 1

@pytest.mark.parametrize("flags, k", [((), 5), (("--n-critic", 1), 1), (("--n-critic", 2), 2)])
def test_algorithm_1(watched, flags, k):
    watch = watched("--steps", 2, *flags)
    once = " ".join(["G D D step(D)"] * k + ["G D step(G)"])
    assert watch.order() == f"{once} {once}"
    assert [e.fresh for e in watch.all("step")] == ([{"D"}] * k + [{"G"}]) * 2

    z = torch.stack([e.x for e in watch.all("G")])
    assert len(z.flatten(0, 1).unique(dim=0)) == len(z) * 4  # fresh noise each time, for G too
    seen, made = iter(watch.all("D")), iter(watch.all("G"))
    batches = data.load_images("digits", 16).batches(4, seed=0)
    for _ in range(2):
        for _ in range(k):
            # Two passes of one batch each: real and fake have their own statistics
            assert torch.equal(next(seen).x, next(batches))  # fresh data each time
            assert torch.equal(next(seen).x, next(made).y)
        assert torch.equal(next(seen).x, next(made).y)
    assert all(e.training for e in (*watch.all("D"), *watch.all("G")))


def test_g_learns_from_the_updated_critic(watched):
    watch = watched("--steps", 1, "--n-critic", 2)
    real, fake, real_2, fake_2, again = watch.all("D")
    for a, b in ((real, fake), (real_2, fake_2)):
        assert all(map(torch.equal, a.weights, b.weights))
    for a, b in ((fake, real_2), (fake_2, again)):
        assert not all(map(torch.equal, a.weights, b.weights))
    made = watch.all("G")
    assert all(torch.equal(*pair) for e in made for pair in zip(made[0].weights, e.weights,
                                                                strict=True))


def test_rmsprop(watched):
    for step in watched("--steps", 1).all("step"):
        assert (step.group["lr"], step.group["alpha"], step.group["eps"]) == (5e-5, 0.99, 1e-8)
        assert (step.group["momentum"], step.group["centered"]) == (0, False)
        assert step.group["weight_decay"] == 0


def test_log_has_the_estimate(watched, tmp_path):
    """E[f(x)] - E[f(G(z))] of the step's last critic update."""
    watch = watched("--steps", 2, "--n-critic", 2)
    head, *rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert head == "step,loss_g,estimate"
    for row, passes in zip(rows, zip(*[iter(watch.all("D"))] * 5, strict=True), strict=True):
        *_, real, fake, again = (e.y for e in passes)
        _, loss_g, estimate = map(float, row.split(","))
        assert loss_g == pytest.approx(-again.mean().item(), abs=1e-5)
        assert estimate == pytest.approx(real.mean().item() - fake.mean().item(), abs=1e-5)


@pytest.mark.parametrize("step, updates", [
    (1, 100), (2, 100), (25, 100), (26, 5), (500, 5), (501, 100), (502, 5), (1001, 100)])
def test_the_authors_schedule(step, updates):
    """100 where gen_iterations, counted from 0, is below 25 or divisible by 500."""
    assert train.critic_updates(step, 5, True) == updates
    assert train.critic_updates(step, 5, False) == 5


def test_the_authors_schedule_is_used(watched):
    watch = watched("--steps", 1, "--authors-schedule")
    assert [e.moved for e in watch.all("step")] == [{"D"}] * 100 + [{"G"}]


def test_resume_goes_on_in_the_stream(watched, monkeypatch):
    """With 2, 4, 6 updates in steps 1, 2, 3 the third one starts at batch 6."""
    monkeypatch.setattr(train, "critic_updates", lambda step, n, authors: n * step)
    watched("--steps", 2, "--n-critic", 2)
    watch = watched("--steps", 3, "--resume")
    batches = data.load_images("digits", 16).batches(4, seed=0, start=6)
    real = watch.all("D")[:-1:2]
    assert len(real) == 6 and all(torch.equal(e.x, next(batches)) for e in real)


@pytest.mark.parametrize("flags", [("--width", 9), ("--z-dim", 5), ("--size", 32),
                                   ("--data", "faces"), ("--arch", "mlp"), ("--arch", "nobn")])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


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
def test_figures(watched, tmp_path, monkeypatch, arch, sheet):
    watched("--steps", 3, "--n-critic", 1, "--arch", arch)
    log = tmp_path / "run" / "log.csv"
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    with open(log, "a") as f:
        f.write("4,9.0,9.0\n5,9.")  # later than the checkpoint, as a kill leaves it
    grids, curves = {}, {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: x}))
    monkeypatch.setattr(sample, "save_curves", lambda path, table:
                        curves.update({path.name: open(table).read().splitlines()}))
    ckpt = tmp_path / "run" / "ckpt.pt"
    sample.main(["--ckpt", str(ckpt), "--seed", "3"])
    assert grids.keys() == {"samples.png", sheet} and curves.keys() == {"fig3.png"}
    G, _ = sample.load_generator(ckpt)
    torch.manual_seed(3)
    z = torch.randn(256, 100)
    assert torch.allclose(grids[sheet], G(z).clamp(-1, 1), atol=1e-5)
    head, *table = curves["fig3.png"]
    assert head.split(",")[:2] == ["step", "estimate"] and len(table) == 3
    median = np.median([float(row[2]) for row in rows])
    for line, row in zip(table, rows, strict=True):
        assert [float(cell) for cell in line.split(",")] == pytest.approx(
            [float(row[0]), float(row[2]), median], rel=1e-4)
    log.unlink()  # of a checkpoint that was moved
    curves.clear()
    sample.main(["--ckpt", str(ckpt)])
    assert not curves
