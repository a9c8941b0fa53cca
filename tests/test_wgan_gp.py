"""wgan_gp/: the penalty, a critic that mixes no samples, Algorithm 1, the networks, the toys."""
import gc
import inspect
import math
import weakref
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import assert_resume_refused, load, n_parameters, watching
from torch import nn

from common import data

model, train, sample, toy = (load("wgan_gp", module) for module in (
    "model", "train", "sample", "toy"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8, "--size", 16, "--z-dim", 9, "--sample-every", 100, "--save-every", 100)
NETS = [(size, arch) for arch in ("dcgan", "resnet") for size in (16, 28, 32, 64)]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    return watching("wgan_gp", train, torch.optim.Adam, SMALL, tmp_path, monkeypatch)


# The penalty

class Linear(nn.Module):
    """x (n, c, h, w) -> <w, x> + b (n,): its gradient is w, wherever x_hat lies."""

    def __init__(self, w: torch.Tensor):
        super().__init__()
        self.w, self.b = nn.Parameter(w), nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.w * x).flatten(1).sum(1) + self.b


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])  # two-sided: below 1, too, there is a penalty
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (2,)])
def test_penalty_of_a_linear_critic(norm, shape):
    torch.manual_seed(0)
    w = torch.randn(shape)
    D = Linear(w * (norm / w.norm()))
    x, x_fake = torch.randn(2, 6, *shape)
    penalty = train.gradient_penalty(D, x, x_fake)
    assert penalty.shape == () and penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    penalty.backward()  # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    assert torch.allclose(D.w.grad, 2 * (norm - 1) * D.w.detach() / norm, atol=1e-4)
    assert D.b.grad is None or D.b.grad == 0


def test_penalty_is_the_mean_over_samples_not_a_norm_of_the_batch():
    """Where D(x) = |x|^2 / 2 and x = x_fake, a sample's gradient is the sample."""
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    penalty = train.gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, x, x)
    norms = x.flatten(1).norm(dim=1)
    assert penalty.item() == pytest.approx((norms - 1).square().mean().item())


@pytest.mark.parametrize("size, arch", [(28, "dcgan"), (16, "dcgan"), (16, "resnet")])
def test_penalty_of_a_batch_is_the_mean_of_single_ones(monkeypatch, size, arch):
    torch.manual_seed(0)
    D = model.Critic(size, 1, 8, arch)
    x, x_fake = torch.randn(2, 5, 1, size, size)
    eps = torch.rand(5, 1, 1, 1)
    monkeypatch.setattr(train.torch, "rand", lambda *shape, device: eps)
    together = train.gradient_penalty(D, x, x_fake).item()
    single = []
    for i in range(5):
        monkeypatch.setattr(train.torch, "rand", lambda *shape, device, i=i: eps[i:i + 1])
        single.append(train.gradient_penalty(D, x[i:i + 1], x_fake[i:i + 1]).item())
    assert np.std(single) > 1e-3 and together == pytest.approx(np.mean(single), rel=1e-4)


class Spy(nn.Module):
    """Keeps what it is asked about."""

    def __init__(self):
        super().__init__()
        self.w, self.x = nn.Parameter(torch.tensor(2.0)), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x.append(x)
        return self.w * x.flatten(1).sum(1)


def test_x_hat_lies_between_with_one_epsilon_a_sample():
    torch.manual_seed(0)
    D, G = Spy(), nn.Linear(1, 12)
    x = torch.ones(4000, 3, 2, 2)
    x_fake = G(torch.zeros(4000, 1)).view_as(x) * 0 - 1
    train.gradient_penalty(D, x, x_fake).backward()
    x_hat, = D.x
    eps = (x_hat.detach() + 1) / 2  # x is 1 and x_fake -1
    assert torch.allclose(eps, eps[:, :1, :1, :1].expand_as(eps))  # one a sample
    eps = eps[:, 0, 0, 0]
    assert len(eps.unique()) > 3990 and 0 <= eps.min() < 0.01 and 0.99 < eps.max() <= 1
    assert eps.mean().item() == pytest.approx(0.5, abs=0.02)
    assert eps.var().item() == pytest.approx(1 / 12, abs=0.005)
    assert x_hat.is_leaf and x_hat.requires_grad
    assert D.w.grad is not None and G.weight.grad is None  # the critic's business alone


def test_real_and_fake_are_paired_by_index():
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    D = Spy()
    train.gradient_penalty(D, x, x.clone())
    assert torch.allclose(D.x[0].detach(), x)


def test_penalty_stands_a_gradient_of_zero():
    """|g| has no derivative at 0; sqrt(sum of squares) would make NaN of it."""
    D = Linear(torch.zeros(3, 4, 4))
    penalty = train.gradient_penalty(D, *torch.randn(2, 5, 3, 4, 4))
    penalty.backward()
    assert penalty.item() == 1 and D.w.grad.isfinite().all()


@pytest.mark.parametrize("arch", ["dcgan", "resnet"])
def test_penalty_reaches_the_critics_weights(arch):
    """As by finite differences in float64, through the second derivative."""
    torch.manual_seed(0)
    D = model.Critic(16, 1, 4, arch).double()
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64)  # x_hat = x: no chance in it
    train.gradient_penalty(D, x, x).backward()
    weights = [p for name, p in D.named_parameters() if name.endswith("weight")]
    assert all(p.grad.abs().max() > 0 for p in weights)
    for p in (weights[0], weights[-1]):
        index = p.grad.abs().flatten().argmax()
        old, values = p.data.view(-1)[index].item(), []
        for h in (1e-6, -1e-6):
            p.data.view(-1)[index] = old + h
            values.append(train.gradient_penalty(D, x, x).item())
        p.data.view(-1)[index] = old
        slope = (values[0] - values[1]) / 2e-6
        assert p.grad.flatten()[index].item() == pytest.approx(slope, rel=1e-3)


def test_penalty_leaves_nothing_behind():
    """A graph that waits for the garbage collector would be memory that grows."""
    D, seen = model.Critic(16, 1, 4, "dcgan"), []
    D.net[0].register_forward_hook(lambda m, x, y: seen.extend(map(weakref.ref, (x[0], y))))
    gc.disable()
    try:
        loss = train.gradient_penalty(D, *torch.randn(2, 3, 1, 16, 16))
        loss.backward()
        assert len(seen) == 2 and seen[0]() is not None
        del loss
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()


# The losses

def test_losses():
    real, fake = torch.tensor([1.0, 2, 6]), torch.tensor([-1.0, 4, 0])
    assert train.d_loss(real, fake).item() == -2  # E[D(x_fake)] - E[D(x)] = 1 - 3
    assert train.g_loss(fake).item() == -1


# The networks

def test_the_papers_setting(tmp_path):
    bare, args = (train.parse_args([*flags, "--out", str(tmp_path)]) for flags in ([], ["--paper"]))
    assert (bare.lambda_gp, bare.n_critic) == (10, 5)  # Algorithm 1
    assert (bare.lr, bare.beta1, bare.beta2, bare.lr_decay) == (1e-4, 0, 0.9, False)
    assert (args.data, args.size, args.arch, args.width) == ("cifar10", 32, "resnet", 128)
    assert (args.lr, args.lr_decay, args.beta1, args.beta2) == (2e-4, True, 0, 0.9)
    assert (args.batch_size, args.z_dim, args.steps) == (64, 128, 100_000)


@pytest.mark.parametrize("size, channels, width, arch, g, d", [
    (28, 1, 64, "dcgan", 1_554_177, 1_030_145),    # gan_mnist.py
    (32, 3, 64, "dcgan", 1_565_955, 1_033_345),    # gan_cifar.py, as its comment advises
    (32, 3, 128, "dcgan", 5_179_907, 4_114_689),   # gan_cifar.py
    (32, 3, 128, "resnet", 1_204_483, 1_053_825)])  # App. F
def test_parameter_counts(size, channels, width, arch, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, channels, 128, width, arch)) == g
        assert n_parameters(model.Critic(size, channels, width, arch)) == d
        if arch == "resnet":
            assert n_parameters(model.Generator()) == g and n_parameters(model.Critic()) == d


def test_parameter_counts_of_the_toys():
    assert (n_parameters(toy.mlp(2)), n_parameters(toy.mlp(1))) == (527_874, 527_361)


def sides(net, kind):
    """Height of the output of every layer of this kind, as they are passed."""
    seen = []
    for m in net.modules():
        if isinstance(m, kind):
            m.register_forward_hook(lambda m, x, y: seen.append(y.shape[-1]))
    return seen


@pytest.mark.parametrize("size, arch", NETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, arch, channels):
    G, D = model.Generator(size, channels, 9, 2, arch), model.Critic(size, channels, 2, arch)
    up = sides(G, nn.ConvTranspose2d if arch == "dcgan" else model.Residual)
    down = sides(D, nn.Conv2d if arch == "dcgan" else model.Residual)
    x = G(torch.randn(3, 9))
    assert x.shape == (3, channels, size, size) and D(x).shape == (3,)
    if arch == "dcgan":
        steps = {16: [4, 8, 16], 28: [4, 7, 14, 28], 32: [4, 8, 16, 32], 64: [4, 8, 16, 32, 64]}
        assert up == steps[size][1:] and down == steps[size][-2::-1]
    else:  # G doubles up to the image; the critic halves twice and has two blocks more
        assert up[-1] == size and all(b == 2 * a for a, b in pairwise(up))
        assert down == [size // 2] + [size // 4] * 3
    assert D(x[:1]).shape == (1,)


@pytest.mark.parametrize("size", [0, 4, 12, 33, 48, 96])
def test_other_sizes_are_refused(size):
    for net in (model.Generator, model.Critic):
        with pytest.raises(ValueError, match="16, 28, 32, 64"):
            net(size)


def test_crop_of_the_mnist_net():
    """To 7x7: the authors' 8x8 without its last row and column."""
    torch.manual_seed(0)
    one, other = model.up(3, 2, 7), model.up(3, 2, 8)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(one(x), other(x)[:, :, :7, :7], atol=1e-6)


@pytest.mark.parametrize("size, arch", NETS)
def test_a_score_does_not_depend_on_the_other_samples(size, arch):
    torch.manual_seed(0)
    D = model.Critic(size, 3, 4, arch)
    x = torch.randn(4, 3, size, size)
    alone = torch.cat([D(part) for part in x.split(1)])
    assert torch.allclose(D(x), alone, atol=1e-5)
    assert torch.allclose(D(torch.cat([x[:1], 9 * x[1:]]))[0], alone[0], atol=1e-5)
    assert D.training
    assert not [m for m in D.modules() if "Norm" in type(m).__name__]


@pytest.mark.parametrize("size, arch, there", [
    (28, "dcgan", False), (32, "dcgan", True), (32, "resnet", True), (28, "resnet", True)])
def test_batch_norm_of_g(size, arch, there):
    G = model.Generator(size, 3, 9, 8, arch)
    assert any("Norm" in type(m).__name__ for m in G.modules()) == there


def test_residual_nets_follow_the_table():
    G, D = model.Generator(), model.Critic()
    blocks = [m for m in G.net if isinstance(m, model.Residual)]
    for block in blocks:  # twice the side before the first convolution: the authors' code
        assert [type(m) for m in block.net] == [nn.BatchNorm2d, nn.ReLU, nn.Upsample, nn.Conv2d,
                                                nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert len(blocks) == 3
    first, down, *flat = (m for m in D.net if isinstance(m, model.Residual))
    kinds = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.AvgPool2d]
    assert [type(m) for m in first.net] == kinds  # no ReLU on the image
    assert [type(m) for m in down.net] == [nn.ReLU, *kinds]
    assert len(flat) == 2 and all(isinstance(block.shortcut, nn.Identity) for block in flat)
    for m in D.modules():
        assert not isinstance(m, nn.LeakyReLU)


def test_shortcuts_are_the_authors_in_the_cheaper_order():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    conv, double = model.up_block(4).shortcut
    assert torch.allclose(double(conv(x)), conv(F.interpolate(x, scale_factor=2)), atol=1e-6)
    halve, conv = model.down_block(4).shortcut
    assert torch.allclose(conv(halve(x)), F.avg_pool2d(conv(x), 2), atol=1e-6)


@pytest.mark.parametrize("make, variance", [
    (lambda: nn.Linear(300, 500), 2 / 800),
    (lambda: nn.Conv2d(64, 32, 5, stride=2), 4 / (64 * 25 + 32 * 25 / 4)),
    (lambda: nn.ConvTranspose2d(64, 32, 5, stride=2), 4 / (64 * 25 / 4 + 32 * 25)),
    (lambda: nn.Conv2d(64, 32, 3), 4 / (96 * 9)),
    (lambda: nn.Conv2d(128, 64, 1), 2 / 192)])
def test_initialisation(make, variance):
    torch.manual_seed(0)
    layer = make()
    model.init_weights(layer)
    assert (layer.bias == 0).all()
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
    assert layer.weight.abs().max().item() == pytest.approx((3 * variance) ** 0.5, rel=0.01)


def test_initialisation_of_the_residual_nets_output():
    torch.manual_seed(0)
    last = model.Generator().net[-2]
    assert last.weight.var().item() == pytest.approx(2 / (131 * 9), rel=0.1)


def test_range_and_z():
    torch.manual_seed(0)
    for size, arch in ((28, "dcgan"), (16, "resnet")):
        G = model.Generator(size, 1, 9, 8, arch)
        nn.init.normal_(G.net[-2].weight, std=5)
        x = G(train.sample_z(9, 9))
        assert -1 <= x.min() < -0.9 and 0.9 < x.max() <= 1
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and z.abs().max() > 3.5
        assert z.mean().abs() < 0.02 and z.var().item() == pytest.approx(1, abs=0.03)


# Algorithm 1

@pytest.mark.parametrize("n_critic", [1, 3])
def test_algorithm_1(watched, n_critic):
    watch = watched("--steps", 2, "--n-critic", n_critic)
    once = " ".join(["D D D step(D)"] * n_critic + ["G D step(G)"])  # the critic's fakes: no_grad
    assert watch.order() == f"{once} {once}"
    assert [e.fresh for e in watch.all("step")] == ([{"D"}] * n_critic + [{"G"}]) * 2

    batches = data.load_images("digits", 16).batches(4, seed=0)
    seen, made = iter(watch.all("D")), iter(watch.all("G"))
    fakes = []
    for _ in range(2):
        for _ in range(n_critic):
            x, x_fake, x_hat = next(seen), next(seen), next(seen)
            assert torch.equal(x.x, next(batches))  # new data each time
            t = ((x_hat.x - x_fake.x) / (x.x - x_fake.x))[:, 0]
            assert t.std((1, 2)).max() < 0.01 and 0 <= t.min() and t.max() <= 1.001
            fakes.append(x_fake.x)
        of_g = next(seen)
        assert torch.equal(of_g.x, next(made).y)
        fakes.append(of_g.x)
    assert len(torch.cat(fakes).flatten(1).unique(dim=0)) == len(fakes) * 4  # new noise each time


def test_g_learns_from_the_updated_critic(watched):
    *critic, again = watched("--steps", 1, "--n-critic", 1).all("D")
    assert all(map(torch.equal, critic[0].weights, critic[-1].weights))
    assert not all(map(torch.equal, critic[-1].weights, again.weights))


def test_loss_is_eq_3(watched, tmp_path):
    losses = {}
    for weight in (0, 7):
        out = tmp_path / f"{weight}"
        watched("--steps", 1, "--n-critic", 1, "--lambda-gp", weight, "--out", out)
        head, row = (out / "log.csv").read_text().splitlines()
        assert head == "step,loss_d,loss_g,estimate,penalty"
        losses[weight] = [float(cell) for cell in row.split(",")[1:]]
    (plain, _, w, none), (full, _, same, penalty) = losses[0], losses[7]
    assert none == 0 and w == same and plain == -w
    assert penalty > 0 and full == pytest.approx(penalty - w, abs=2e-5)


@pytest.mark.parametrize("flags, lr, betas", [
    ((), 1e-4, (0.0, 0.9)), (("--lr", 1e-3, "--beta1", 0.5, "--beta2", 0.99), 1e-3, (0.5, 0.99))])
def test_adam(watched, flags, lr, betas):
    for step in watched("--steps", 1, *flags).all("step"):
        assert (step.group["lr"], step.group["betas"]) == (lr, betas)
        assert (step.group["weight_decay"], step.group["eps"]) == (0, 1e-8)


def test_lr_decay(watched):
    watch = watched("--steps", 4, "--n-critic", 1, "--lr-decay", "--lr", 4e-4)
    rates = [step.group["lr"] for step in watch.all("step")]
    assert rates == pytest.approx([4e-4, 4e-4, 3e-4, 3e-4, 2e-4, 2e-4, 1e-4, 1e-4])


@pytest.mark.parametrize("flags", [("--width", 9), ("--z-dim", 5), ("--size", 32),
                                   ("--arch", "resnet"), ("--data", "faces")])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1, "--n-critic", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def test_resnet_trains_and_resumes(watched, tmp_path):
    for name, cuts in (("a", [2]), ("b", [1, 2])):
        for i, steps in enumerate(cuts):
            watched("--arch", "resnet", "--n-critic", 2, "--steps", steps, "--out", tmp_path / name,
                    *["--resume"] * i)
    a, b = (torch.load(tmp_path / name / "ckpt.pt", weights_only=True) for name in "ab")
    for net in ("G", "D"):
        assert all(torch.equal(a[net][k], b[net][k]) for k in a[net])


def test_sampling_depends_on_no_neighbour():
    torch.manual_seed(0)
    G, z = model.Generator(16, 3, 10, 8, "dcgan"), train.sample_z(6, 10)
    G(z)
    together = train.sample(G, z)
    assert torch.allclose(together[2:3], train.sample(G, z[2:3]), atol=1e-6)
    assert G.training and all(m.training for m in G.modules())


# sample.py

def test_walk_keeps_to_the_length_of_z(watched, tmp_path, monkeypatch):
    watched("--steps", 1, "--n-critic", 1)
    grids = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: (x, options)}))
    path = tmp_path / "run" / "ckpt.pt"
    sample.main(["--ckpt", str(path), "--seed", "3"])
    x, options = grids["walk.png"]
    assert options["n_cols"] == 10
    torch.manual_seed(3)
    a, b = sample.sample_z(16, 9).unflatten(0, (8, 2)).unbind(1)
    G, _ = sample.load_generator(path)
    t = math.pi / 2 * 4 / 9
    for i, z in ((0, a), (9, b), (4, math.cos(t) * a + math.sin(t) * b)):
        assert torch.allclose(x[i::10], G(z), atol=1e-5)


def test_held_out(watched, tmp_path, capsys):
    watched("--steps", 1, "--n-critic", 1)
    path = tmp_path / "run" / "ckpt.pt"
    sample.main(["--ckpt", str(path), "--held-out", "digits"])
    out = capsys.readouterr().out
    G, ckpt = sample.load_generator(path)
    D = model.Critic(16, 1, 8, "dcgan")
    D.load_state_dict(ckpt["D"])
    fake = D(sample.generate(G, ckpt, 5000)).mean()
    for split, name in (("train", "64 training"), ("test", "32 held-out")):
        estimate = D(data.load_images("digits", 16, split=split)[:]).mean() - fake
        assert f"{estimate.item():.3f} on {name} images" in out


# The toys

@pytest.mark.parametrize("name", ["gaussians8", "gaussians25", "swissroll"])
def test_train_points_to_the_toys(name, tmp_path, capfd):
    with pytest.raises(SystemExit):
        train.train(train.parse_args(["--data", name, "--out", str(tmp_path / "run")]))
    assert "toy.py" in capfd.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["d_loss", "g_loss", "gradient_penalty"])
def test_the_toys_have_the_same_losses(name):
    """Written out again, so that toy.py runs without train.py."""
    assert inspect.getsource(getattr(toy, name)) == inspect.getsource(getattr(train, name))


def test_gaussians():
    torch.manual_seed(0)
    x = toy.points("gaussians8", 4000)
    assert x.norm(dim=1).mean().item() == pytest.approx(2 ** 0.5, abs=0.01)
    turns = torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)
    assert (turns - turns.round()).abs().max() < 0.1
    assert (turns.round().long() % 8).bincount().min() > 400
    x = toy.points("gaussians25", 4000) * 2 ** 0.5  # on the whole numbers from -2 to 2
    assert (x - x.round()).std().item() == pytest.approx(0.05 / 2, rel=0.1)
    assert len(x.round().unique(dim=0)) == 25 and x.round().abs().max() == 2


def test_swiss_roll():
    torch.manual_seed(0)
    x = 7.5 * toy.points("swissroll", 4000)
    r, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    assert r.min() < 5.5 and 13.5 < r.max() < 15.5  # t from 1.5 pi to 4.5 pi
    off = (r - angle) / (2 * math.pi)
    assert ((off - off.round()) * 2 * math.pi).abs().mean() < 0.3  # r = t


@pytest.mark.parametrize("hidden, width, d_out", [(3, 512, 1), (11, 128, 2)])
def test_toy_networks(hidden, width, d_out):
    torch.manual_seed(0)
    net = toy.mlp(d_out, hidden, width)
    assert [type(m) for m in net] == [nn.Linear, nn.ReLU] * hidden + [nn.Linear]
    shapes = [(width, 2), *[(width, width)] * (hidden - 1), (d_out, width)]
    for layer, (d, d_in) in zip(net[::2], shapes, strict=True):
        edge = (6 / (d_in + d if layer is net[-1] else d_in)) ** 0.5  # Glorot's, or He's
        assert layer.weight.shape == (d, d_in) and (layer.bias == 0).all()
        assert 0.93 * edge < layer.weight.abs().max() <= edge
        assert layer.weight.std().item() == pytest.approx(edge / 3 ** 0.5, rel=0.12)


@pytest.mark.parametrize("train_g", [False, True])
@pytest.mark.parametrize("clip", [0.05, None])
def test_a_toys_updates(monkeypatch, clip, train_g):
    """Two steps, written out again in float64: three updates of D by fresh points, then G's one."""
    torch.set_default_dtype(torch.float64)
    try:
        args = SimpleNamespace(seed=3, hidden=2, width=6, steps=2, n_critic=3, batch_size=5,
                               lambda_gp=0.1, train_g=train_g)
        D, x_shown, fakes_shown = toy.learn("swissroll", clip, args)
        torch.manual_seed(3)
        G, by_hand = toy.mlp(2, 2, 6), toy.mlp(1, 2, 6)
        states = {p: [0, 0] for net in (G, by_hand) for p in net.parameters()}

        def update(net, loss, t):
            for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())),
                            strict=True):
                m = states[p]
                if clip:  # RMSProp as torch has it, 5e-5 [WGAN]
                    m[1] = 0.99 * m[1] + 0.01 * g ** 2
                    p.data -= 5e-5 * g / (m[1].sqrt() + 1e-8)
                else:  # Adam 1e-4, 0 and 0.9 [Alg. 1]
                    m[1] = 0.9 * m[1] + 0.1 * g ** 2
                    p.data -= 1e-4 * g / ((m[1] / (1 - 0.9 ** t)).sqrt() + 1e-8)

        def fakes(x):
            return G(torch.randn_like(x)) if train_g else x + torch.randn_like(x)

        for t in range(1, 7):
            x = toy.points("swissroll", 5)
            x_fake = fakes(x).detach()
            loss = (by_hand(x_fake) - by_hand(x)).mean()
            if not clip:
                eps = torch.rand(5, 1)
                x_hat = (eps * x + (1 - eps) * x_fake).requires_grad_()
                slope, = torch.autograd.grad(by_hand(x_hat).sum(), x_hat, create_graph=True)
                loss = loss + 0.1 * (((slope ** 2).sum(1).sqrt() - 1) ** 2).mean()
            update(by_hand, loss, t)
            if clip:
                for p in by_hand.parameters():
                    p.data = p.data.clip(-0.05, 0.05)
            if train_g and t % 3 == 0:
                update(G, -by_hand(fakes(x)).mean(), t // 3)
        for p, q in zip(D.parameters(), by_hand.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-9)
        x = toy.points("swissroll", 500)
        assert torch.equal(x_shown, x)
        assert torch.allclose(fakes_shown, fakes(x), rtol=0, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradient_norms():
    """Of a critic whose every layer doubles: 2^(layers above) times that by the scores, +-1/n."""
    D = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1),
                      nn.Flatten(0))
    with torch.no_grad():
        for p in D.parameters():
            p.fill_(2 if p.dim() == 2 else 0)
    x, x_fake = torch.rand(2, 4, 1) + 1
    assert toy.gradient_norms(D, x, x_fake) == pytest.approx(
        [8 ** 0.5 / 4 * factor for factor in (8, 4, 2, 1)])
    with torch.no_grad():
        D[0].weight.fill_(1e-30)
    assert toy.gradient_norms(D, x, x_fake)[0] == pytest.approx(4e-30 * 8 ** 0.5 / 4, 1e-6, 0)
    assert toy.weights(D).tolist() == pytest.approx([1e-30, 2, 2], 1e-6, 0)


def test_plot_of_norms():
    """A curve from 1e-10 to 1 rises by ten decades, one of 1e3 is flat; each in its colour."""
    image = toy.plot_norms({"a": [1e-10, 1e-5, 1.0], "b": [1e3, 1e3, 1e3]})
    a = np.asarray(image).astype(int)
    rows = []
    for colour in toy.COLOURS[:2]:
        near = np.abs(a - [int(colour[i:i + 2], 16) for i in (1, 3, 5)]).sum(2) < 30
        near[:30] = False  # the legend
        y, x = np.nonzero(near)
        rows.append([int(y[np.abs(x - at) < 2].mean()) for at in (52, 277, 502)])
    rising, flat = rows
    decade = (rising[0] - rising[2]) / 10
    assert decade > 10 and max(flat) - min(flat) < 3
    assert rising[0] - rising[1] == pytest.approx(5 * decade, abs=4)
    assert rising[2] - flat[2] == pytest.approx(3 * decade, abs=4)


def test_plot_of_weights():
    """Twice as many at the left end as in the middle, none elsewhere."""
    w = torch.cat([torch.full((20,), -0.0199), torch.full((10,), 1e-4)])
    a = np.asarray(toy.plot_weights(w, "", 0.02)).astype(int)[24:-21]
    blue = (np.abs(a - [0x00, 0x72, 0xb2]).sum(2) < 30).sum(0)  # heights of the columns
    assert blue[1] == pytest.approx(len(a), abs=2) and blue[127] == pytest.approx(len(a) / 2, abs=2)
    assert (blue[8:120] <= 1).all() and (blue[134:] <= 1).all()


def test_figure_1b(tmp_path, monkeypatch, capsys):
    runs, shown = [], []
    learn, plot = toy.learn, toy.plot_weights
    monkeypatch.setattr(toy, "learn", lambda data, clip, args: runs.append(
        (data, clip, args.train_g, args.hidden)) or learn(data, clip, args))
    monkeypatch.setattr(toy, "plot_weights", lambda w, text, edge: shown.append(
        (w.abs().max().item() <= 0.01, text)) or plot(w, text, edge))
    monkeypatch.setattr(toy, "plot_norms", lambda norms, plot=toy.plot_norms: shown.append(
        norms) or plot(norms))
    monkeypatch.chdir(tmp_path)
    toy.main(["--deep", "--steps", "1", "--n-critic", "2", "--batch-size", "4"])
    assert runs == [("swissroll", clip, True, 11) for clip in (0.001, 0.01, 0.1, None)]
    assert shown[:2] == [(True, "clip 0.01"), (False, "gradient penalty")]
    assert [len(values) for values in shown[2].values()] == [13] * 4  # input, eleven, score
    assert shown[2]["clip 0.001"][0] < 1e-20 < 1e-18 < shown[2]["clip 0.01"][0] < 1e-10
    assert 1e-3 < shown[2]["gradient penalty"][0] < 10
    assert (tmp_path / "runs/wgan_gp/fig1b.png").is_file()
    assert "clip 0.1: gradient norms" in capsys.readouterr().out


def test_toy_draws_both_rows(tmp_path, monkeypatch):
    clipped, penalised = [], []
    right = toy.gradient_penalty
    monkeypatch.setattr(toy, "gradient_penalty",
                        lambda D, *x: penalised.append(D) or right(D, *x))
    monkeypatch.setattr(toy, "panel", lambda D, *x, right=toy.panel:
                        clipped.append(max(p.abs().max().item() for p in D.parameters()))
                        or right(D, *x, side=40))
    monkeypatch.chdir(tmp_path)
    toy.main(["--steps", "2", "--batch-size", "8", "--data", "gaussians8", "swissroll"])
    assert (tmp_path / "runs/wgan_gp/fig1a.png").is_file()
    assert [value <= 0.01 for value in clipped] == [True, True, False, False]
    assert len(penalised) == 2 * 2 * 5


def test_panel():
    """Of D(x, y) = x, level sets stand upright and yellow is on the right; up is up."""
    dot = torch.tensor([[1.0, 1.5]])
    panel = toy.panel(lambda p: p[:, 0], dot, -dot, side=100)
    a = np.asarray(panel).astype(int)
    assert a.shape == (100, 100, 3)
    assert a[50, 98, 0] - a[50, 98, 2] > 20 > -20 > a[50, 1, 0] - a[50, 1, 2]
    assert (a[2] == a[97]).all()
    x, y = (round((v / toy.EDGE + 1) * 50) for v in (1.0, -1.5))
    orange, green = a[y, x], a[100 - y, 100 - x]
    assert orange[0] > 200 and orange[2] < 60 and green[1] > 120 > green[0]
