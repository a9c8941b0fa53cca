"""wgan_gp/: the penalty, a critic that mixes no samples, Algorithm 1, the networks, the toys."""
import inspect
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import load, n_parameters, tiny
from torch import nn

from common import data, images

model, train, sample, toy = (load("wgan_gp", module) for module in (
    "model", "train", "sample", "toy"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8, "--size", 16, "--z-dim", 9)
NETS = [(size, arch) for arch in ("dcgan", "resnet") for size in (16, 28, 32, 64)]


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


def test_penalty_stands_a_gradient_of_zero():
    """|g| has no derivative at 0; sqrt(sum of squares) would make NaN of it."""
    D = Linear(torch.zeros(3, 4, 4))
    penalty = train.gradient_penalty(D, *torch.randn(2, 5, 3, 4, 4))
    penalty.backward()
    assert penalty.item() == 1 and D.w.grad.isfinite().all()


# The losses

def test_losses():
    real, fake = torch.tensor([1.0, 2, 6]), torch.tensor([-1.0, 4, 0])
    assert train.d_loss(real, fake).item() == -2  # E[D(x_fake)] - E[D(x)] = 1 - 3
    assert train.g_loss(fake).item() == -1


# The networks

def test_the_papers_setting(tmp_path):
    bare, args = (train.parse_args([*flags, "--out", str(tmp_path)]) for flags in ([], ["--paper"]))
    assert (bare.lambda_gp, bare.n_critic) == (10, 5)  # Algorithm 1
    assert (bare.lr, bare.beta1, bare.beta2, bare.lr_decay) == (5e-4, 0, 0.9, False)
    assert (args.data, args.size, args.arch, args.width) == ("cifar10", 32, "resnet", 128)
    assert (args.lr, args.lr_decay, args.beta1, args.beta2) == (2e-4, True, 0, 0.9)
    assert (args.batch_size, args.z_dim, args.steps) == (64, 128, 100_000)


@pytest.mark.parametrize("size, channels, width, arch, g, d", [
    (28, 1, 64, "dcgan", 1_554_177, 1_030_145),    # gan_mnist.py
    (32, 3, 128, "dcgan", 5_179_907, 4_114_689),   # gan_cifar.py
    (32, 3, 64, "dcgan", 1_565_955, 1_033_345),    # the same, as its comment advises
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


def critic_by_hand(D, x, arch):
    """Its score of images, with its weights, in the order in which they are made."""
    w = iter(D.parameters())

    def conv(x, stride=1):
        weight = next(w)
        return F.conv2d(x, weight, next(w), stride, padding=weight.shape[-1] // 2)

    def halve(x):
        return sum(x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4

    if arch == "dcgan":
        while x.shape[-1] > 4:
            x = conv(x, 2)
            x = x.maximum(0.2 * x)
        return F.linear(x.flatten(1), next(w), next(w))[:, 0]
    x = halve(conv(x)) + halve(conv(conv(x).relu()))  # no ReLU on the image
    x = halve(conv(x)) + halve(conv(conv(x.relu()).relu()))
    for _ in range(2):
        x = x + conv(conv(x.relu()).relu())
    return F.linear(x.relu().mean((2, 3)), next(w), next(w))[:, 0]


def generator_by_hand(G, z, size, arch):
    w = iter(G.parameters())

    def conv(x):
        weight = next(w)
        return F.conv2d(x, weight, next(w), padding=weight.shape[-1] // 2)

    def norm(x):
        axes = [0, 2, 3][:x.dim() - 1]
        x = (x - x.mean(axes, True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
        return (x.transpose(1, -1) * next(w) + next(w)).transpose(1, -1)

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = F.linear(z, next(w), next(w))
    if arch == "dcgan":  # of 28x28 without batch norm
        x, *sides = ((x, 7, 14, 28) if size == 28 else (norm(x), 8, 16, 32))
        x = x.relu().view(len(z), -1, 4, 4)
        for side in sides:
            weight = next(w)  # 7x7 is the authors' 8x8 without its last row and column
            x = F.conv_transpose2d(x, weight, next(w), 2, 2, 1)[..., :side, :side]
            if side < size:
                x = (x if size == 28 else norm(x)).relu()
        return x.tanh()
    side = 7 if size == 28 else 4
    x = x.view(len(z), -1, side, side)
    while x.shape[-1] < size:  # twice the side before the first convolution: the authors' code
        x = conv(double(x)) + conv(norm(conv(double(norm(x).relu()))).relu())
    return conv(norm(x).relu()).tanh()


@pytest.mark.parametrize("size, arch", [(size, arch) for size, arch in NETS if 16 < size < 64])
def test_networks_by_hand(size, arch):
    torch.manual_seed(0)
    with float64():
        G, D = model.Generator(size, 3, 9, 4, arch), model.Critic(size, 3, 4, arch)
        z = torch.randn(5, 9)
        for p in (*G.parameters(), *D.parameters()):  # biases and gains, too
            nn.init.normal_(p, 0.1, 0.3)
        x = generator_by_hand(G, z, size, arch)
        assert torch.allclose(G(z), x, atol=1e-10) and x.std() > 0.01
        assert torch.allclose(D(x), critic_by_hand(D, x, arch), atol=1e-9)


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

@pytest.mark.parametrize("arch, flags", [
    ("dcgan", ()), ("dcgan", ("--n-critic", 1, "--lambda-gp", 3, "--beta1", 0.5, "--beta2", 0.99)),
    ("resnet", ("--n-critic", 2, "--lr-decay"))])
def test_three_steps_are_algorithm_1(tmp_path, arch, flags):
    """With a stop after the second, and another learning rate from there on."""
    given = dict(zip(flags[::2], flags[1::2], strict=False))
    n_critic, weight = given.get("--n-critic", 5), given.get("--lambda-gp", 10)
    betas = given.get("--beta1", 0), given.get("--beta2", 0.9)
    with float64():
        train.train(train.parse_args(tiny("wgan_gp", tmp_path, *SMALL, "--arch", arch, *flags,
                                          "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", "--lr=9e-4", f"--out={tmp_path}"]))

        batches, rows = data.load_images("digits", 16).batches(4, seed=0), []
        torch.manual_seed(0)
        torch.randn(64, 9)  # z_fixed
        G, D = model.Generator(16, 1, 9, 8, arch), model.Critic(16, 1, 8, arch)
        opt_g, opt_d = Adam(G.parameters(), *betas), Adam(D.parameters(), *betas)
        rates = [5e-4, 2.5e-4, 3e-4] if "--lr-decay" in flags else [5e-4, 5e-4, 9e-4]
        for step, lr in enumerate(rates, 1):
            torch.manual_seed(step)
            for _ in range(n_critic):
                x, x_fake = next(batches), G(torch.randn(4, 9)).detach()
                eps = torch.rand(4, 1, 1, 1)
                x_hat = (x_fake + eps * (x - x_fake)).requires_grad_()
                slopes, = torch.autograd.grad(list(D(x_hat)), x_hat, create_graph=True)
                norms = torch.stack([(slope ** 2).sum().sqrt() for slope in slopes])
                penalty = weight * ((norms - 1) ** 2).mean()
                estimate = sum(D(x)) / 4 - sum(D(x_fake)) / 4
                opt_d.step(penalty - estimate, lr)
            loss_g = -sum(D(G(torch.randn(4, 9)))) / 4
            opt_g.step(loss_g, lr)
            rows.append([v.item() for v in (penalty - estimate, loss_g, estimate, penalty)])
    assert_same_run(tmp_path, rows, 1e-9, G=G, D=D)
    assert (tmp_path / "log.csv").read_text().startswith("step,loss_d,loss_g,estimate,penalty\n")


def test_sampling_depends_on_no_neighbour():
    torch.manual_seed(0)
    G, z = model.Generator(16, 3, 10, 8, "dcgan"), train.sample_z(6, 10)
    G(z)
    together = train.sample(G, z)
    assert torch.allclose(together[2:3], train.sample(G, z[2:3]), atol=1e-6)
    assert G.training and all(m.training for m in G.modules())


# sample.py

def test_walk_keeps_to_the_length_of_z(tmp_path, monkeypatch):
    train.train(train.parse_args(tiny("wgan_gp", tmp_path, *SMALL, "--steps", 1)))
    grids, films = {}, {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: (x, options)}))
    monkeypatch.setattr(sample, "grid", lambda x, **options: x)
    monkeypatch.setattr(sample, "save_gif", lambda path, frames: films.update({path.name: frames}))
    path = tmp_path / "ckpt.pt"
    sample.main(["--ckpt", str(path), "--seed=3", "--frames=3"])
    x, options = grids["walk.png"]
    assert options["n_cols"] == 10
    torch.manual_seed(3)
    a, b = torch.randn(16, 9).unflatten(0, (8, 2)).unbind(1)
    G, _ = sample.load_generator(path)
    t = math.pi / 2 * 4 / 9
    for i, z in ((0, a), (9, b), (4, math.cos(t) * a + math.sin(t) * b)):
        assert torch.allclose(x[i::10], G(z), atol=1e-5)
    for x, z in zip(films["walk.gif"], (a, (a + b) / 2 ** 0.5, b), strict=True):
        assert torch.allclose(x, G(z), atol=1e-5)


def test_held_out(tmp_path, capsys):
    train.train(train.parse_args(tiny("wgan_gp", tmp_path, *SMALL, "--steps", 1)))
    path = tmp_path / "ckpt.pt"
    sample.main(["--ckpt", str(path), "--held-out", "digits", "--frames=2"])
    out = capsys.readouterr().out
    G, ckpt = sample.load_generator(path)
    D = model.Critic(16, 1, 8, "dcgan")
    D.load_state_dict(ckpt["D"])
    torch.manual_seed(0)
    fake = D(G(torch.randn(5000, 9))).mean()
    for split, name in (("train", "64 training"), ("test", "32 held-out")):
        estimate = D(data.load_images("digits", 16, split=split)[:]).mean() - fake
        assert f"{estimate.item():.3f} on {name} images" in out


def test_held_out_images_were_not_trained_on(tmp_path, capsys):
    for i in range(4):
        images.write_image(tmp_path / f"all/part/{i}.png", torch.full((1, 16, 16), i / 4))
    run = tmp_path / "run"
    flags = (*SMALL, "--data", tmp_path / "all", "--batch-size", 4, "--steps", 1)
    train.train(train.parse_args(tiny("wgan_gp", run, *flags)))
    for folder in (tmp_path / "all/part", tmp_path / "all", tmp_path):
        with pytest.raises(SystemExit):
            sample.main(["--ckpt", str(run / "ckpt.pt"), "--held-out", str(folder), "--frames=2"])
        assert f"--held-out {folder}: the run was trained on" in capsys.readouterr().err


# The toys

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
