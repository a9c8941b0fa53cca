"""progan/: three layers, growth, whole steps against the algorithm, several processes as one."""
import argparse
import functools
import os

import pytest
import torch
import torch.nn.functional as F
from algorithm import assert_resumed, assert_same_run, assert_same_weights, join_two, start_two
from conftest import FORK, assert_resume_refused, caught, load, main, n_parameters, tiny
from torch import nn

from common import data

model, train, sample = (load("progan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
# 4x4 in step 1, of 16 images; 8x8, of 8, fades in in steps 2 and 3 and is there from 4 on
SMALL = ("--size", 8, "--batch-size", 8, "--fmap-max", 6, "--z-dim", 5, "--table", "authors",
         "--stddev-group", 4, "--phase-kimg", 0.015, "--log-every", 1, "--sample-every", 100,
         "--save-every", 100)
GROWTH = [(4, 1.0, 16), (8, 1 / 15, 8), (8, 9 / 15, 8), (8, 1.0, 8), (8, 1.0, 8)]


def go(out, *flags) -> dict:
    """A run's checkpoint."""
    train.train(train.parse_args(tiny("progan", out, *SMALL, *flags)))
    return torch.load(out / "ckpt.pt", weights_only=True)


def small(size: int = 16, config: str = "g") -> tuple[nn.Module, nn.Module]:
    """A G and a D whose every part matters: biases are not 0."""
    torch.manual_seed(0)
    G = model.Generator(size, 3, 5, fmap_max=6, config=config).requires_grad_(False)
    D = model.Discriminator(size, 3, fmap_max=6, config=config).requires_grad_(False)
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        if "bias" in name:
            p.normal_()
    return G, D


# The networks

@pytest.mark.parametrize("size, z_dim, base, most, g, d", [
    (1024, 512, 8192, 512, 23_079_115, 23_087_249), (512, 512, 8192, 512, 23_072_120, 23_080_225),
    (256, 512, 8192, 512, 23_044_309, 23_052_353), (128, 512, 8192, 512, 22_933_394, 22_941_313),
    (64, 512, 8192, 512, 22_490_383, 22_498_049), (32, 512, 8192, 512, 20_719_628, 20_726_785),
    (32, 128, 4096, 128, 1_296_908, 1_298_689),        # CIFAR-10
    (128, 512, 2048, 512, 13_629_810, 13_636_897),     # Table 1
    (32, 64, 8192, 64, 324_876, 325_761)])
def test_parameter_counts(size, z_dim, base, most, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, 3, z_dim, base, most)) == g
        assert n_parameters(model.Discriminator(size, 3, base, most)) == d


def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    with torch.device("meta"):
        G = model.Generator(args.size, 3, args.z_dim, args.fmap_base, args.fmap_max, args.config)
        D = model.Discriminator(args.size, 3, args.fmap_base, args.fmap_max, args.config,
                                args.stddev_group)
    assert (n_parameters(G), n_parameters(D)) == (23_079_115, 23_087_249)
    assert (args.batch_size, args.lr, args.kimg, args.phase_kimg) == (16, 1e-3, 19_000, 800)
    assert (args.lambda_gp, args.gamma, args.drift, args.ema) == (10, 1, 1e-3, 0.999)
    assert args.mirror and D.group == 16


def test_pixel_norm():
    x = torch.randn(3, 7, 4, 4) * 5
    y = model.pixel_norm(x)
    assert torch.allclose(y.square().mean(1), torch.ones(3, 4, 4), atol=1e-6)
    assert torch.allclose(F.normalize(x), F.normalize(y), atol=1e-6)  # and no other direction
    assert model.pixel_norm(x * 0).abs().max() == 0


def test_minibatch_stddev():
    x = torch.randn(8, 3, 4, 4)
    y = model.minibatch_stddev(x)
    assert torch.equal(y[:, :3], x) and y.shape == (8, 4, 4, 4)
    assert torch.allclose(y[:, 3], x.std(0, unbiased=False).mean(), atol=1e-6)  # the whole batch
    y = model.minibatch_stddev(x, 4)
    for i in range(2):  # groups of 4: i, i + 2, ...
        assert torch.allclose(y[i::2, 3], x[i::2].std(0, unbiased=False).mean(), atol=1e-6)
    alike = model.minibatch_stddev(x[:1].expand(8, -1, -1, -1))
    assert alike[:, 3].max() < 1.1e-4


@pytest.mark.parametrize("config", "fe")
def test_equalised_learning_rate(config):
    """Weights in use are He's either way; stored, they are N(0, 1) only if equalised, and so one
    step of Adam's changes each in proportion to its scale."""
    torch.manual_seed(0)
    nets = (model.Generator(32, 3, 200, fmap_max=64, config=config),
            model.Discriminator(32, 3, fmap_max=64, config=config))
    layers = [(name, m) for net in nets for name, m in net.named_modules() if hasattr(m, "scale")]
    for name, m in layers:
        gain = {"dense": 2 ** 0.5 / 4 if m.weight.shape[1] == 200 else 2 ** 0.5, "score": 1}.get(
            name, 1 if "to_rgb" in name else 2 ** 0.5)
        he = gain / m.weight[0].numel() ** 0.5
        assert m.scale == pytest.approx(he if config == "f" else 1)
        if m.weight.numel() > 10_000:
            assert m.weight.std().item() * m.scale == pytest.approx(he, rel=0.03)
        assert m.bias is None or not m.bias.any()
    assert len(layers) == 1 + 7 + 4 + 4 + 3 + 3 + 3 and not nets[0].bias.any()


def test_rows_of_table_1():
    """d lacks a feature of D; f and g differ from e by no parameter."""
    with torch.device("meta"):
        g, d = zip(*((n_parameters(model.Generator(config=c)), n_parameters(model.Discriminator(
            config=c))) for c in "defg"), strict=True)
    assert set(g) == {23_079_115} and d[1:] == (23_087_249,) * 3
    assert d[1] - d[0] == 9 * 512
    normed = [small(8, config)[0] for config in "fg"]
    z = torch.randn(4, 5)
    assert not torch.allclose(normed[0](3 * z), normed[0](z), atol=1e-2)
    assert torch.allclose(normed[1](3 * z), normed[1](z), atol=1e-4)  # z is normalised


def test_alpha_0_and_1():
    """A layer that comes in changes nothing at first, and then leaves the old way unused."""
    G, D = small()
    z = torch.randn(4, 5)
    for size in (8, 16):
        assert torch.allclose(G(z, size, 0.0), up(G(z, size // 2)), atol=1e-6)
        assert torch.allclose(G(z, size, 1 - 1e-7), G(z, size), atol=1e-5)
        half = G(z, size, 0.5)
        assert torch.allclose(half, (up(G(z, size // 2)) + G(z, size)) / 2, atol=1e-5)
        x = torch.randn(4, 3, size, size)
        assert torch.allclose(D(x, 0.0), D(F.avg_pool2d(x, 2)), atol=1e-5)
        assert torch.allclose(D(x, 1 - 1e-7), D(x), atol=1e-5)
        coarse = up(F.avg_pool2d(x, 2))
        assert torch.allclose(train.shrink(x, size, 0.0), coarse, atol=1e-6)
        assert torch.equal(train.shrink(x, size, 1.0), x)
        assert torch.allclose(train.shrink(up(x), size, 0.25), 0.75 * coarse + 0.25 * x, atol=1e-6)
    for layer in [*G.to_rgb[:-1], *D.from_rgb[:-1]]:
        nn.init.constant_(layer.weight, float("nan"))
    assert G(z).isfinite().all() and D(torch.randn(4, 3, 16, 16)).isfinite().all()


# Growth

def test_the_papers_schedule():
    args = train.parse_args(["--paper"])
    at = {kimg: train.schedule(1000 * kimg, args) for kimg in (
        0, 800, 1200, 1600, 2400, 2800, 9200, 10_000, 10_800, 12_400, 12_800, 19_000)}
    assert at == {
        0: (4, 1.0, 16), 800: (4, 1.0, 16), 1200: (8, 0.5, 16), 1600: (8, 1.0, 16),
        2400: (8, 1.0, 16), 2800: (16, 0.5, 16), 9200: (256, 0.5, 14), 10_000: (256, 1.0, 14),
        10_800: (512, 0.5, 6), 12_400: (1024, 0.5, 3), 12_800: (1024, 1.0, 3),
        19_000: (1024, 1.0, 3)}
    eight = train.parse_args(["--paper", "--table", "authors", "--batch-size", "32"])
    assert [train.images(s, eight) for s in (4, 8, 16, 32, 64, 128, 1024)] == [
        512, 256, 128, 64, 32, 32, 32]
    assert train.LR_FACTOR == {128: 1.5, 256: 2, 512: 3, 1024: 3}
    assert train.check_groups(args, 1) == 1  # images are read one by one: 16, 14, 6, 3
    eight.stddev_group = 4
    assert train.check_groups(eight, 8) == 32


@pytest.mark.parametrize("kimg, phase, steps", [
    (0.1, 0.0, 0), (0.07, 0.02, 0), (0.3, 0.02, 0), (0.3, 0.033, 0), (0.3, 0.02, 9),
    (0.1, 0.02, 90)])
@pytest.mark.parametrize("table", ["paper", "authors"])
def test_plan_is_the_schedule(kimg, phase, steps, table):
    args = argparse.Namespace(size=16, phase_kimg=phase, batch_size=4, kimg=kimg, steps=steps,
                              fmap_base=64, fmap_max=2, table=table)
    for first, shown in ((0, 0), (3, 48)):  # a run, and one that goes on
        plan, step, work = train.Plan(first, shown, args), first, 0
        while step < steps if steps else shown < 1000 * kimg:
            size, _, n = train.schedule(shown, args)
            step, shown = step + 1, shown + n
            work += n * sum(2 * s * s for s in (4, 8, 16) if s <= size)
            assert plan[step] == pytest.approx(work)
        assert plan.last == step


@pytest.mark.parametrize("table, rate", [("paper", 0.002), ("authors", 0.003)])
def test_learning_rate_by_size(tmp_path, table, rate):
    ckpt = go(tmp_path / "run", "--size", 128, "--batch-size", 4, "--fmap-max", 2,
              "--phase-kimg", 0, "--steps", 1, "--lr", 0.002, "--table", table)
    for opt in ("opt_g", "opt_d"):
        group, = ckpt[opt]["param_groups"]
        assert (group["lr"], group["eps"]) == (pytest.approx(rate), 1e-8)
        assert tuple(group["betas"]) == (0, 0.99)


@pytest.mark.parametrize("flags", [
    ("--batch-size", 6), ("--batch-size", 4, "--accumulate", 2),
    ("--table", "paper", "--size", 256, "--batch-size", 16)])
def test_parts_must_hold_whole_groups(tmp_path, capfd, flags):
    assert main("progan", *tiny("progan", tmp_path / "run", *SMALL, *flags)) == 2
    assert "groups of 4" in capfd.readouterr().err and not (tmp_path / "run").exists()


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64)
    assert train.d_loss(real, fake) == pytest.approx((sum(fake) / 50 - sum(real) / 50).item())
    assert train.g_loss(fake).item() == pytest.approx(-sum(fake).item() / 50)
    assert train.drift(real).item() == pytest.approx(sum(real ** 2).item() / 50)


@pytest.mark.parametrize("gamma", [1.0, 750.0])
def test_penalty(gamma):
    """Of a linear D it is known; of ours it is that of images blown up to the final size."""
    w, (x, x_fake) = torch.randn(3, 8, 8), torch.randn(2, 4, 3, 8, 8)
    u = torch.rand(4, 1, 1, 1)
    value = train.gradient_penalty(lambda x, alpha: (x * w).sum((1, 2, 3)), x, x_fake, u, 1.0,
                                   gamma, 8)
    assert value.item() == pytest.approx(((w.norm().item() - gamma) / gamma) ** 2, rel=1e-4)
    _, D = small(8)
    value = train.gradient_penalty(D, x, x_fake, u, 0.5, gamma, 32)
    large = up(up(x * (1 - u) + x_fake * u)).requires_grad_()
    grad, = torch.autograd.grad(D(F.avg_pool2d(large, 4), 0.5).sum(), large)
    norms = grad.square().sum((1, 2, 3)).sqrt()
    assert value.item() == pytest.approx(((norms - gamma) ** 2 / gamma ** 2).mean().item(),
                                         rel=1e-4)


# Whole steps, written out again

def up(x):
    return F.interpolate(x, scale_factor=2)


def lrelu(x):
    return F.leaky_relu(x, 0.2)


def layer(p, name, x, gain=2 ** 0.5, equalised=True):
    w, b = p[f"{name}.weight"], p.get(f"{name}.bias")
    w = w * gain / w[0].numel() ** 0.5 if equalised else w
    return F.conv2d(x, w, b, padding="same") if w.dim() == 4 else F.linear(x, w, b)


def plain_g(p, z, size, alpha, config):
    def norm(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt() if config == "g" else x

    at = functools.partial(layer, p, equalised=config != "d")
    x = at("dense", norm(z), 2 ** 0.5 / 4).view(len(z), -1, 4, 4)
    x = norm(lrelu(x + p["bias"]))
    x = norm(lrelu(at("convs.0", x)))
    old = at("to_rgb.0", x, 1)
    if size == 4:
        return old
    x = norm(lrelu(at("convs.1", up(x))))
    x = norm(lrelu(at("convs.2", x)))
    return (1 - alpha) * up(old) + alpha * at("to_rgb.1", x, 1)


def plain_d(p, x, alpha, config):
    at = functools.partial(layer, p, equalised=config != "d")
    if x.shape[-1] == 4:
        h = lrelu(at("from_rgb.0", x))
    else:
        h = lrelu(at("convs.0", lrelu(at("from_rgb.1", x))))
        h = F.avg_pool2d(lrelu(at("downs.0", h)), 2)
        h = alpha * h + (1 - alpha) * lrelu(at("from_rgb.0", F.avg_pool2d(x, 2)))
    if config == "g":
        groups = h.view(4, -1, *h.shape[1:])  # samples i, i + m, i + 2m, i + 3m
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        h = torch.cat([h, deviation.repeat(4).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], 1)
    h = lrelu(at("dense", lrelu(at("conv", h)).flatten(1)))
    return at("score", h, 1)[:, 0]


@pytest.mark.parametrize("config", "gd")
def test_steps(sharp, tmp_path, config):
    """4x4; 8x8, fading in, twice; and there, twice: new phases in steps 2 and 4."""
    go(tmp_path / "run", "--steps", 5, "--lambda-gp", 3, "--gamma", 2, "--drift", 0.1, "--ema", 0.8,
       "--mirror", "--lr", 0.02, "--config", config)
    torch.manual_seed(0)
    torch.randn(64, 5)  # the run's fixed z
    G = model.Generator(8, 3, 5, 256, 6, config)
    D = model.Discriminator(8, 3, 256, 6, config, 4)
    (g, d), rows = (dict(net.named_parameters()) for net in (G, D)), []
    ema = {name: p.detach().clone() for name, p in g.items()}
    batches, last = data.load_images("faces", 8).batches(8, seed=0), None
    for step, (size, alpha, n) in enumerate(GROWTH, 1):
        torch.manual_seed(step)
        if (size, alpha < 1) != last:
            adam_g, adam_d = (torch.optim.Adam(p.values(), lr=0.02, betas=(0.0, 0.99))
                              for p in (g, d))
        last = size, alpha < 1
        x = F.avg_pool2d(torch.cat([next(batches) for _ in range(n // 8)]), 8 // size)
        x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
        if alpha < 1:
            x = alpha * x + (1 - alpha) * up(F.avg_pool2d(x, 2))

        x_fake = plain_g(g, torch.randn(n, 5), size, alpha, config).detach()
        u = torch.rand(n, 1, 1, 1)
        x_hat = ((1 - u) * x + u * x_fake).requires_grad_()
        real, fake = plain_d(d, x, alpha, config), plain_d(d, x_fake, alpha, config)
        grad, = torch.autograd.grad(plain_d(d, x_hat, alpha, config).sum(), x_hat,
                                    create_graph=True)
        norm = grad.square().sum((1, 2, 3)).sqrt() * size / 8
        penalty = 3 * ((norm - 2) ** 2 / 4).mean()
        estimate = real.mean() - fake.mean()
        loss_d = penalty - estimate + 0.1 * (real ** 2).mean()
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()

        loss_g = -plain_d(d, plain_g(g, torch.randn(n, 5), size, alpha, config), alpha,
                          config).mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        ema = {name: 0.8 * p + 0.2 * g[name].detach() for name, p in ema.items()}
        rows.append([v.item() for v in (loss_d, loss_g, estimate, penalty)])
    G_ema = model.Generator(8, 3, 5, 256, 6, config)
    G_ema.load_state_dict(ema)
    assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D, G_ema=G_ema)


@pytest.mark.parametrize("stop", [1, 2, 4])  # before, in and after a fade
def test_resume_is_exact_wherever_growth_stands(tmp_path, stop):
    again = assert_resumed(go, tmp_path, 5, stop)
    assert (again["shown"], again["size"], again["alpha"]) == (48, 8, 1.0)


@pytest.mark.parametrize("flags", [("--fmap-max", 7), ("--z-dim", 6), ("--size", 16),
                                   ("--config", "f"), ("--data", "digits")])
def test_resume_refuses_another_network(tmp_path, capfd, flags):
    go(tmp_path / "run", "--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def test_resume_refuses_to_shrink(tmp_path, capfd):
    go(tmp_path / "run", "--steps", 2)
    with pytest.raises(SystemExit):
        go(tmp_path / "run", "--steps", 5, "--resume", "--phase-kimg", 1)
    assert "--phase-kimg 1.0: would shrink" in capfd.readouterr().err


# Parts of a batch, and several processes

def test_accumulated_parts_are_the_whole_batch(sharp, tmp_path):
    flags = ("--steps", 5, "--lr", 0.02, "--mirror")
    assert_same_weights(go(tmp_path / "a", *flags), go(tmp_path / "b", *flags, "--accumulate", 2))


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(sharp, tmp_path):
    """Growing, in the middle of a fade, with mirrored images, stddev, the penalty's u."""
    flags = ("--steps", 5, "--lr", 0.02, "--mirror")
    two = start_two("progan", *tiny("progan", tmp_path / "two", *SMALL, *flags), eps=0.01)
    one = go(tmp_path / "one", *flags)
    join_two(two)
    assert_same_weights(one, torch.load(tmp_path / "two/ckpt.pt", weights_only=True))


# sample.py

def test_figures(tmp_path, monkeypatch, capfd):
    """In the middle of a fade."""
    go(tmp_path / "run", "--size", 16, "--phase-kimg", 0.02, "--steps", 4, "--lr", 0.05)
    grids, path = caught(monkeypatch, sample), tmp_path / "run" / "ckpt.pt"
    sample.main(["--ckpt", str(path), "--seed", "4", "--frames", "12", "--nearest", "--swd", "9"])
    G, ckpt = sample.load_generator(path)
    size, alpha = ckpt["size"], ckpt["alpha"]
    assert 0 < alpha < 1
    torch.testing.assert_close(G.state_dict(), ckpt["G_ema"], rtol=0, atol=0)
    assert torch.allclose(grids["samples.png"].flatten(0, 1),
                          train.sample(G, ckpt["z_fixed"], size, alpha), atol=1e-5)
    torch.manual_seed(4)
    z = sample.sample_z(2, 5)
    for row, s in zip(grids["growth.png"], [s for s in (8, 16) if s <= size], strict=True):
        for column in range(6):
            x = G(z[column // 3:][:1], s, column % 3 / 2)
            assert torch.allclose(row[column], F.interpolate(x, scale_factor=16 // s)[0], atol=1e-5)
    assert len(grids["walk.gif"]) == 12
    x = data.load_images("faces", 16)[:]
    for one, *near in grids["nearest.png"]:
        closest = (x - one).square().sum((1, 2, 3)).argsort()[:5]
        assert torch.equal(torch.stack(near), x[closest])
    assert "9 samples to 9 images: 16x16" in capfd.readouterr().out


def test_low_pass():
    """The filter's own weights, around a circle; each z of mean square 1; slower."""
    torch.manual_seed(0)
    z = torch.randn(40, 3, 4, dtype=torch.float64)
    t = torch.arange(40)
    away = torch.minimum(t, 40 - t).double()
    weights = torch.exp(-away ** 2 / (2 * 3.0 ** 2))
    plain = torch.stack([(weights.roll(i)[:, None, None] * z).sum(0) for i in range(40)])
    y = sample.low_pass(z, 3.0)
    assert torch.allclose(y, plain / plain.square().mean(2, keepdim=True).sqrt(), atol=1e-3)
    assert torch.allclose(y.square().mean(2), torch.ones(40, 3).double())
    assert (y - y.roll(1, 0)).square().mean() < 0.1  # of the noise it is 2


def test_pyramid():
    """It adds up to the picture; a flat one has nothing but its last level."""
    x = torch.randn(2, 3, 64, 64, dtype=torch.float32)
    levels = sample.pyramid(x)
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    y = levels[-1]
    for level in levels[-2::-1]:
        spread = torch.zeros_like(level)
        spread[..., ::2, ::2] = y
        y = level + 4 * sample.smooth(spread)
    assert torch.allclose(y, x, atol=1e-5)
    *details, last = sample.pyramid(torch.full((1, 1, 64, 64), 0.5))
    assert max(level.abs().max() for level in details) < 1e-6 and (last - 0.5).abs().max() < 1e-6


def test_descriptors():
    """Windows of 7x7, of a ramp; with mean 0 and deviation 1 in each channel."""
    ramp = torch.arange(256.0).view(1, 1, 16, 16) / 127.5 - 1
    d = sample.descriptors([ramp.expand(3, 2, -1, -1)], seed=0)[16]
    assert d.shape == (3 * 128, 2 * 49)
    d = d.view(-1, 2, 7, 7)
    assert d.mean((0, 2, 3)).abs().max() < 1e-5
    assert (d.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    across, down = d.diff(dim=3), d.diff(dim=2)
    assert across.std() < 1e-5 and (down / across[:, :, :6, :1] - 16).abs().max() < 1e-2
    assert len(d[:, 0, 0, 0].unique()) > 90  # of 100 places


def test_sliced_wasserstein():
    """0 of a set and itself, in any order; of a set moved by v, the mean |v d| over directions."""
    torch.manual_seed(0)
    a = torch.randn(200, 5)
    assert sample.sliced_wasserstein(a, a[torch.randperm(200)], 0) < 1e-6
    mean = F.normalize(torch.randn(100_000, 5)).mul(torch.tensor([3.0, 0, 0, 0, 4])).sum(1)
    moved = sample.sliced_wasserstein(a, a + torch.tensor([3.0, 0, 0, 0, 4]), 0)
    assert moved == pytest.approx(mean.abs().mean().item(), rel=0.05)


def test_swd_of_real_images():
    """0 of a set and itself; of two halves far less than of one and the other with noise."""
    x = data.load_images("faces", 32)[:]
    a, b = x[::2], x[1::2]
    assert sample.swd([a], [a], 0) == "32x32 0.00, 16x16 0.00, mean 0.00"
    near, far = (float(sample.swd([a], [y], 0).split()[-1]) for y in (
        b, b + torch.randn_like(b)))
    assert 0 < near < far / 2


def theirs(p: dict, z: torch.Tensor, c: list[int], rgb: str) -> torch.Tensor:
    """gandissect's generator: every block normalises first, and scales after its convolution."""
    x = z[:, :, None, None]

    def block(x, name, kernel, padding, gain):
        x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
        if kernel == 3 and int(name[5:]) % 2 == 1:
            x = up(x)
        w = p[f"{name}.conv.weight"]
        x = F.conv2d(x, w, padding=padding) * gain / kernel / w.shape[1] ** 0.5
        return x + p[f"{name}.wscale.b"].view(1, -1, 1, 1)

    for i in range(2 * len(c)):
        x = lrelu(block(x, f"layer{i + 1}", *((3, 1) if i else (4, 3)), 2 ** 0.5))
    return block(x, rgb, 1, 0, 1)


@pytest.mark.parametrize("kind", ["new", "old", "nested"])
def test_official(tmp_path, monkeypatch, capfd, kind):
    """A state dict built to gandissect's names: the same pictures by both."""
    torch.manual_seed(0)
    c, p, rgb = [6, 6, 4, 2], {}, "output_32x32"
    shapes = [(6, 7, 4, 4)] + [(c[(i + 1) // 2], c[i // 2], 3, 3) for i in range(7)]
    names = [f"layer{i + 1}" for i in range(8)] + [rgb]
    for name, shape in zip(names, [*shapes, (3, 2, 1, 1)], strict=True):
        p |= {f"{name}.conv.weight": torch.randn(shape), f"{name}.wscale.b": torch.randn(shape[0])}
    saved = {"state_dict": p} if kind == "nested" else p
    if kind == "old":
        old = dict(zip(names, [*(f"features.{i}" for i in range(8)), "output"], strict=True))
        saved = {f"{old[k.split('.')[0]]}.{k.partition('.')[2]}": v for k, v in p.items()}
    torch.save(saved, tmp_path / "karras.pth")
    G, ckpt = sample.load_generator(tmp_path / "karras.pth")
    z = torch.randn(5, 7)
    assert torch.allclose(G(z), theirs(p, z, c, rgb), atol=1e-4)
    monkeypatch.chdir(tmp_path)
    flags = ("--official", "karras.pth", "--frames", 2)
    assert main("progan", *flags, "--out", "out", script="sample.py") == 0
    assert sorted(os.listdir("out")) == ["samples.png", "walk.gif"]
    assert main("progan", *flags, "--nearest", script="sample.py") == 2
    assert "--data" in capfd.readouterr().err
    saved.pop(next(iter(saved)))
    torch.save(saved, "broken.pth")
    assert main("progan", "--official", "broken.pth", script="sample.py") == 2
