"""stylegan/: styles, noise, growth, the schedule, several processes as one, the figures."""
import argparse
import functools
import os
import signal
import socket
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    FEW,
    FORK,
    assert_resume_refused,
    load,
    main,
    n_parameters,
    tiny,
    watching,
)
from torch import nn

from common import data

model, train, sample = (load("stylegan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
# 8x8 in steps 1 and 2, of 16 images; 16x16, of 8, fades in in 3 and 4 and is there from 5 on
SMALL = ("--size", 16, "--batch-size", 8, "--fmap-max", 8, "--z-dim", 8, "--w-dim", 8,
         "--mapping-layers", 2, "--phase-kimg", 0.024, "--log-every", 100, "--sample-every", 100,
         "--save-every", 100)
SIZES, ALPHAS = (8, 8, 16, 16, 16, 16), (1, 1, 1 / 3, 2 / 3, 1, 1)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    return watching("stylegan", train, torch.optim.Adam, SMALL, tmp_path, monkeypatch)


def read(out) -> dict:
    return torch.load(out / "ckpt.pt", weights_only=True)


def small(config: str = "F", size: int = 16, **options) -> nn.Module:
    """A G whose every part matters: noise has weight, biases are not 0."""
    torch.manual_seed(0)
    options = dict(z_dim=6, w_dim=5, fmap_max=4, mapping_layers=2, config=config) | options
    G = model.Generator(size, 3, **options).requires_grad_(False)
    for name, p in G.named_parameters():
        if "noise" in name or "bias" in name or "const" in name:
            p.normal_()
    return G


# The networks: sizes

@pytest.mark.parametrize("size, g, d", [
    (1024, 26_219_627, 23_087_249), (512, 26_179_768, 23_080_225), (256, 26_086_229, 23_052_353),
    (128, 25_843_858, 22_941_313), (64, 25_137_935, 22_498_049), (32, 22_841_356, 20_726_785)])
def test_parameter_counts(size, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size)) == g
        assert n_parameters(model.Discriminator(size)) == d



def test_the_paper_s_networks_are_the_defaults():
    with torch.device("meta"):
        G = model.Generator()
        assert (G.size, n_parameters(G), n_parameters(G.mapping)) == (1024, 26_219_627, 2_101_248)
        assert n_parameters(model.Discriminator()) == 23_087_249


@pytest.mark.parametrize("size, width, w, g, d", [
    (32, 128, 128, 1_434_124, 1_298_689), (32, 64, 128, 525_068, 325_761),
    (64, 128, 256, 2_517_903, 1_594_369)])
def test_parameter_counts_of_small_networks(size, width, w, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, 3, w, w, fmap_max=width)) == g
        assert n_parameters(model.Discriminator(size, 3, fmap_max=width)) == d


def test_configurations_of_table_1():
    """B is ProGAN's G, of 23,079,115 parameters; each row adds or removes what it says."""
    with torch.device("meta"):
        b, c, d, e, f = (n_parameters(model.Generator(config=config)) for config in "BCDEF")
    layers = [512] * 10 + [256, 256, 128, 128, 64, 64, 32, 32, 16, 16]
    layers = layers[2:]  # two at 4, 8, 16, 32; then 256 and so on
    assert b == 23_079_115 and len(layers) == 18
    assert c - b == 2_101_248 + sum(513 * 2 * c for c in layers)  # mapping, an affine A a layer
    assert d - c == 512 * 16 - 512 * 512 * 16                     # a constant for a dense layer
    assert e - d == sum(layers) and f == e                        # B, one a feature map


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_at_every_size(size, channels):
    G, D = small(size=32), model.Discriminator(32, channels, fmap_max=4)
    G = model.Generator(32, channels, 6, 5, fmap_max=4, mapping_layers=2)
    for alpha in (0.5, 1.0):
        x = G(torch.randn(4, 6), size=size, alpha=alpha)
        assert x.shape == (4, channels, size, size) and D(x, alpha).shape == (4,)


# The networks: layers

def test_equalised_learning_rate():
    """Weights are stored with deviation 1 and used with He's; so a step of Adam is, too, of one
    relative size in all layers."""
    torch.manual_seed(0)
    for layer, fan_in, gain, m in ((model.Linear(400, 300), 400, 2 ** 0.5, 1),
                                   (model.Linear(400, 300, gain=1), 400, 1, 1),
                                   (model.Linear(400, 300, lr_mul=0.01), 400, 2 ** 0.5, 0.01),
                                   (model.Conv(40, 300), 360, 2 ** 0.5, 1),
                                   (model.Conv(40, 300, 1, gain=1), 40, 1, 1)):
        he = gain / fan_in ** 0.5
        assert layer.weight.std().item() == pytest.approx(1 / m, rel=0.02)
        assert (layer.bias == 0).all()
        with torch.no_grad():
            layer.bias.fill_(3)
        if layer.weight.ndim == 2:
            x = torch.randn(5, 400)
            y = F.linear(x, layer.weight * m * he, layer.bias * m)  # lr_mul is of biases, too
        else:
            x = torch.randn(5, 40, 3, 3)
            y = F.conv2d(x, layer.weight * he, layer.bias, padding="same")
        assert torch.allclose(layer(x), y, atol=1e-5)


def test_blur_is_the_binomial_filter_and_differentiable_twice():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    k = torch.tensor([1, 2, 1], dtype=torch.float64)
    k = (k[:, None] * k / 16).expand(3, 1, 3, 3)
    assert torch.allclose(model.Blur.apply(x), F.conv2d(x, k, padding=1, groups=3))
    assert torch.autograd.gradcheck(model.Blur.apply, x)
    assert torch.autograd.gradgradcheck(model.Blur.apply, x)


def test_adain_gives_a_map_the_mean_and_deviation_of_its_style():
    torch.manual_seed(0)
    x, y_s, y_b = torch.randn(3, 5, 7, 7) * 9 + 4, torch.rand(3, 5) + 0.5, torch.randn(3, 5)
    y = model.adain(x, y_s, y_b)
    assert torch.allclose(y.mean((2, 3)), y_b, atol=1e-5)
    assert torch.allclose(y.std((2, 3), unbiased=False), y_s, atol=1e-5)
    again = model.adain(x[1:2] * 3 - 8, y_s[1:2], y_b[1:2])  # and nothing else of the map is left
    assert torch.allclose(y[1:2], again, atol=1e-5)


def test_every_layer_of_g_leaves_with_its_style():
    G, seen = small(), []
    for i, layer in enumerate(G.epilogues):
        layer.register_forward_hook(lambda m, x, y, i=i: seen.append((i, m, x[1], y)))
    w = G.styles(torch.randn(3, 5))
    G.synthesis(w)
    assert [i for i, *_ in seen] == list(range(6))
    for _, m, w_i, y in seen:
        y_s, y_b = m.style(w_i).chunk(2, 1)
        assert torch.allclose(y.mean((2, 3)), y_b, atol=1e-4)
        assert torch.allclose(y.std((2, 3), unbiased=False), (1 + y_s).abs(), atol=1e-3)


def test_pixel_norm_is_of_features_not_of_places():
    x = model.pixel_norm(torch.randn(2, 7, 3, 3) * 5)
    assert torch.allclose(x.square().mean(1), torch.ones(2, 3, 3), atol=1e-5)
    z = torch.randn(4, 6)
    G = small("B")
    assert torch.allclose(G.mapping(z), model.pixel_norm(z)) and not list(G.mapping.parameters())
    mapping = small().mapping
    assert torch.allclose(mapping(z), mapping(7 * z), atol=1e-6)  # the length of z is no matter


@pytest.mark.parametrize("config, noisy, styled", [
    ("B", 0, 0), ("C", 0, 1), ("D", 0, 1), ("E", 1, 1), ("F", 1, 1)])
def test_what_matters_in_which_configuration(config, noisy, styled):
    G = small(config)
    w, w2 = G.mapping(torch.randn(2, 1, 6))
    one, again = (G.synthesis(G.styles(w), model.sample_noise(1, 16)) for _ in range(2))
    assert torch.equal(one, again) != noisy
    other = G.synthesis(G.styles(w, w2, 1))  # w in the first layer
    assert torch.equal(G.synthesis(G.styles(w)), other) != styled
    with pytest.raises(AttributeError):
        assert (G.const if config < "D" else G.dense).shape  # each has one kind of input


def test_noise():
    """A map for each layer, of N(0, 1); off it is, G a function; its weights start at 0."""
    maps = model.sample_noise(50, 32)
    assert [m.shape for m in maps] == [(50, 1, s, s) for s in (4, 4, 8, 8, 16, 16, 32, 32)]
    flat = torch.cat([m.flatten() for m in maps])
    assert flat.mean().abs() < 0.01 and flat.std().item() == pytest.approx(1, abs=0.01)
    G, z = small(), torch.randn(2, 6)
    assert torch.equal(G(z), G(z)) and torch.equal(G(z), G(z, noise=G.fixed_noise()))
    off = G(z, noise=[m * 0 for m in G.fixed_noise()])
    assert not torch.allclose(off, G(z), atol=0.01)
    for epilogue in G.epilogues:
        epilogue.noise.zero_()
    assert torch.equal(G(z), off)
    fresh = model.Generator(16, 3, 6, 5, fmap_max=4)
    assert all((e.noise == 0).all() for e in fresh.epilogues) and (fresh.const == 1).all()


def test_noise_lr_is_a_factor_of_the_learning_rate_alone():
    """Adam's first step changes any parameter by lr: with 0.1 the noise becomes a tenth as strong;
    the same strength is the same picture."""
    G, slow = small(), small(noise_lr=0.1)
    for one, other in zip(G.epilogues, slow.epilogues, strict=True):
        other.noise.copy_(one.noise * 10)
    z = torch.randn(2, 6)
    assert torch.allclose(G(z), slow(z), atol=1e-5)
    strength = []
    for e in (G.epilogues[0], slow.epilogues[0]):
        e.noise.zero_().requires_grad_()
        opt = torch.optim.Adam([e.noise], lr=0.01)
        y = e(torch.randn(2, 4, 4, 4), torch.randn(2, 5), torch.randn(2, 1, 4, 4))
        y[:, :, 0].sum().backward()
        opt.step()
        strength.append((e.noise_lr * e.noise).abs())
    assert torch.allclose(strength[0], 10 * strength[1], rtol=1e-3)


def test_noise_is_added_before_the_bias_with_a_weight_for_each_feature_map():
    e = small("E").epilogues[2]
    x, noise, w = torch.randn(3, 4, 8, 8), torch.randn(3, 1, 8, 8), torch.randn(3, 5)
    y = F.leaky_relu(x + torch.einsum("c,nohw->nchw", e.noise, noise)
                     + e.bias.view(1, -1, 1, 1), 0.2)
    y_s, y_b = e.style(w).split(4, 1)
    assert torch.allclose(e(x, w, noise), model.adain(y, y_s + 1, y_b), atol=1e-5)


# Styles: mixing and truncation

@pytest.mark.parametrize("crossover", range(7))
def test_mixing_changes_only_the_layers_after_the_crossover(crossover):
    G, seen = small(), {0: [], 1: []}
    w, w2 = torch.randn(2, 3, 5)
    for i in (0, 1):
        hooks = [e.register_forward_hook(lambda m, x, y, i=i: seen[i].append(y))
                 for e in G.epilogues]
        G.synthesis(G.styles(w, w2 if i else None, crossover))
        for hook in hooks:
            hook.remove()
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(*seen.values(), strict=True)]
    assert same == [i < crossover for i in range(6)]
    styles = G.styles(w, w2, crossover)
    assert (styles[:, :crossover] == w[:, None]).all()
    assert (styles[:, crossover:] == w2[:, None]).all()


def test_truncation():
    G = small()
    G.w_avg.normal_()
    z = torch.randn(5, 6)
    mean = G.synthesis(G.styles(G.w_avg[None]))
    assert torch.allclose(G(z, psi=0.0), mean.expand(5, -1, -1, -1), atol=1e-5)
    assert torch.equal(G(z, psi=1.0), G(z))
    w, half = G.mapping(z), G.styles(G.mapping(z), psi=0.5)
    assert torch.allclose(half, (0.5 * w + 0.5 * G.w_avg)[:, None].expand(-1, 6, -1), atol=1e-6)
    with torch.device("meta"):
        large = model.Generator(64, 3, 6, 5, fmap_max=4)
    large = large.to_empty(device="cpu")
    large.w_avg.normal_()
    styles = large.styles(w, psi=0.5)
    assert torch.equal(styles[:, 8:], w[:, None].expand(-1, 2, -1))  # from 64x64 on: untouched
    assert not torch.isclose(styles[:, :8], w[:, None]).all()


# Growth

@pytest.mark.parametrize("size", [8, 16])
def test_alpha_of_g(size):
    G, z = small(), torch.randn(3, 6)
    small_one = G(z, size=size // 2)
    new = G(z, size=size)
    assert torch.allclose(G(z, size=size, alpha=0.0), model.up(small_one), atol=1e-6)
    between = G(z, size=size, alpha=0.25)
    assert torch.allclose(between, 0.75 * model.up(small_one) + 0.25 * new, atol=1e-5)
    for old in list(G.to_rgb)[:-1]:
        old.weight.fill_(float("nan"))
    assert torch.equal(G(z), G(z, alpha=1.0)) and G(z).isfinite().all()  # the new layers alone


@pytest.mark.parametrize("size", [8, 16])
def test_alpha_of_d(size):
    torch.manual_seed(0)
    D, x = model.Discriminator(16, 3, fmap_max=4), torch.randn(4, 3, size, size)
    assert torch.allclose(D(x, 0.0), D(F.avg_pool2d(x, 2)), atol=1e-6)
    assert not torch.allclose(D(x, 0.5), D(x, 1.0), atol=1e-4)
    assert torch.allclose(D(x, 1 - 1e-6), D(x), atol=1e-4)  # no jump at the end
    with torch.no_grad():
        for old in list(D.from_rgb)[:size.bit_length() - 3]:
            old.weight.fill_(float("nan"))
    assert D(x).isfinite().all()


def test_reals_fade_as_fakes_do():
    x = torch.randn(2, 3, 32, 32)
    small_x = train.shrink(x, 8, 1.0)
    assert torch.allclose(small_x[0, 1, 2, 3], x[0, 1, 8:12, 12:16].mean(), atol=1e-6)
    assert torch.allclose(train.shrink(x, 16, 0.0), model.up(small_x), atol=1e-6)
    faded = train.shrink(x, 16, 0.25)
    expected = 0.25 * F.avg_pool2d(x, 2) + 0.75 * model.up(small_x)
    assert torch.allclose(faded, expected, atol=1e-6)


def test_the_papers_schedule():
    args = train.parse_args(["--paper"])
    at = {kimg: train.schedule(1000 * kimg, args) for kimg in (
        0, 600, 900, 1200, 1800, 2100, 4200, 5700, 8100, 8400, 25_000)}
    assert at == {
        0: (8, 1.0, 256), 600: (8, 1.0, 256), 900: (16, 0.5, 128), 1200: (16, 1.0, 128),
        1800: (16, 1.0, 128), 2100: (32, 0.5, 64), 4200: (64, 1.0, 32), 5700: (256, 0.5, 32),
        8100: (1024, 0.5, 32), 8400: (1024, 1.0, 32), 25_000: (1024, 1.0, 32)}
    assert train.schedule(600_001, args) == (16, pytest.approx(0, abs=1e-5), 128)
    assert (args.kimg, args.gamma, args.lr) == (25_000, 10, 1e-3)
    assert (args.mixing, args.ema_kimg, args.mapping_layers, args.noise_lr) == (0.9, 10, 8, 1)
    rates = [1e-3 * train.LR_FACTOR.get(size, 1) for size in (8, 64, 128, 256, 512, 1024)]
    assert rates == pytest.approx([1e-3, 1e-3, 1.5e-3, 2e-3, 3e-3, 3e-3])


def test_schedule_without_growth_and_its_steps():
    args = argparse.Namespace(size=32, phase_kimg=0.0, batch_size=4, kimg=0.1)
    assert train.schedule(0, args) == train.schedule(10**9, args) == (32, 1.0, 4)
    assert train.count_steps(0, args) == 25 and train.count_steps(90, args) == 3
    args.phase_kimg = 0.032
    assert train.count_steps(0, args) == 3 + 7  # batches of 16 at 8x8, of 8 at 16x16


# Minibatch stddev

def test_minibatch_stddev():
    x = torch.randn(8, 3, 4, 4)
    y = model.minibatch_stddev(x)
    assert torch.equal(y[:, :3], x) and y.shape == (8, 4, 4, 4)
    for i in range(2):
        expected = x[i::2].std(0, unbiased=False).mean()  # groups of 4: i, i + 2, ...
        assert torch.allclose(y[i::2, 3], expected, atol=1e-6)
    assert not torch.isclose(y[0, 3, 0, 0], y[1, 3, 0, 0])
    same = model.minibatch_stddev(x[:1].expand(4, -1, -1, -1))
    assert same[:, 3].abs().max() < 2e-4
    assert model.minibatch_stddev(x[:2])[:, 3].std() < 1e-6  # a batch below 4 is one group


@pytest.mark.parametrize("shares", [2, 3])
def test_shares_of_a_batch_have_its_groups(shares):
    x = torch.randn(4 * shares * 2, 3, 4, 4)
    whole = model.minibatch_stddev(x)
    for i in range(shares):
        assert torch.allclose(model.minibatch_stddev(x[i::shares]), whole[i::shares], atol=1e-6)


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    critic = fake.mean() - real.mean() + 0.001 * (real ** 2).mean()
    assert train.d_loss(real, fake, "wgan-gp").item() == pytest.approx(critic.item())
    assert train.g_loss(fake, "wgan-gp").item() == pytest.approx(-fake.mean().item())


@pytest.mark.parametrize("norm", [0.5, 1.0, 3.0])
def test_penalties_of_a_linear_d(norm):
    """D(x) = <w, x>: R1 is |w|^2, a sum over pixels; WGAN-GP's is (|w| - 1)^2. Both train w."""
    w = torch.randn(3, 4, 4)
    w = nn.Parameter(w * (norm / w.norm()))
    x, x_fake = torch.randn(2, 6, 3, 4, 4)
    x.requires_grad_()

    def D(x, alpha):
        assert alpha == 0.5
        return (w * x).flatten(1).sum(1)

    penalty = train.r1(D(x, 0.5), x)
    assert penalty.item() == pytest.approx(norm ** 2, rel=1e-5)
    penalty.backward()
    assert torch.allclose(w.grad, 2 * w.detach(), atol=1e-5)
    penalty = train.gradient_penalty(D, x, x_fake, torch.rand(6, 1, 1, 1), 0.5)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)


def test_wgan_gp_asks_between_x_and_x_fake():
    seen = []

    def D(x, alpha):
        seen.append(x)
        return x.flatten(1).sum(1)

    eps = torch.rand(5, 1, 1, 1)
    train.gradient_penalty(D, torch.zeros(5, 3, 4, 4), torch.ones(5, 3, 4, 4), eps, 1.0)
    assert torch.allclose(seen[0], eps.expand(-1, 3, 4, 4))


# What is drawn, tracked and averaged

@pytest.mark.parametrize("config, mixing", [("F", 0.9), ("F", 0.0), ("F", 1.0), ("E", 0.9)])
def test_crossovers(config, mixing):
    args = argparse.Namespace(z_dim=2, mixing=mixing, config=config)
    torch.manual_seed(0)
    drawn = [train.draw(1, 16, args, None, slice(None))[2] for _ in range(1000)]
    mixed = [crossover for crossover in drawn if crossover < 6]
    assert set(mixed) == ({1, 2, 3, 4, 5} if config == "F" and mixing else set())  # never 0
    share = mixing if config == "F" else 0
    assert len(mixed) / 1000 == pytest.approx(share, abs=0.04 * (0 < share < 1))


def test_processes_draw_the_rows_of_one():
    args = argparse.Namespace(z_dim=3, mixing=0.9, config="F")
    drawn = []
    for mine in (slice(None), slice(0, None, 2), slice(1, None, 2)):
        torch.manual_seed(5)
        drawn.append(train.draw(6, 8, args, None, mine))
    whole, *shares = drawn
    for rank, share in enumerate(shares):
        for a, b in zip([*whole[:2], *whole[3]], [*share[:2], *share[3]], strict=True):
            assert torch.equal(a[rank::2], b)
        assert whole[2] == share[2]
    assert not torch.equal(whole[0], whole[1])


def test_w_avg_and_ema():
    G = small()
    G.w_avg.fill_(1)
    z = torch.randn(7, 6)
    train.track_w(G, z, 1)
    assert torch.allclose(G.w_avg, 0.995 + 0.005 * G.mapping(z).mean(0), atol=1e-6)
    G_ema = small()
    for p, p_ema in zip(G.parameters(), G_ema.parameters(), strict=True):
        p.fill_(1)
        p_ema.fill_(0)
    for _ in range(100):  # half-life: 10,000 images in batches of 100
        train.update_ema(G_ema, G, 0.5 ** (100 / 10_000))
    assert all(torch.allclose(p, torch.tensor(0.5), atol=1e-5) for p in G_ema.parameters())
    assert torch.equal(G_ema.w_avg, G.w_avg)


# A step

def test_a_step(watched):
    watch = watched("--steps", 6, "--seed", 3)
    assert watch.order() == " ".join(["D D step(D) G D step(G)"] * 6)
    assert [e.fresh for e in watch.all("step")] == [{"D"}, {"G"}] * 6
    images = data.load_images("faces", 16).batches(8, seed=3)
    for real, fake, again, size, alpha in zip(
            *[iter(watch.all("D"))] * 3, SIZES, ALPHAS, strict=True):
        units = torch.cat([next(images) for _ in range(16 // size)])  # one stream for all sizes
        assert torch.equal(real.x, train.shrink(units, size, alpha))
        assert real.x.shape == fake.x.shape == again.x.shape
        assert all(map(torch.equal, real.weights, fake.weights))
        assert not all(map(torch.equal, fake.weights, again.weights))
        assert not torch.equal(fake.x, again.x)  # G's update is on new noise


def test_status_line_tells_the_phase(watched, capsys):
    watched("--steps", 6, "--log-every", 1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    phases = ["8 px stable"] * 2 + ["16 px fading in 0.33", "16 px fading in 0.67"]
    for line, kimg, phase in zip(lines, ("0.0", "0.0", "0.0", "0.0", "0.1", "0.1"),
                                 phases + ["16 px stable"] * 2, strict=True):
        assert f"  {kimg} kimg  {phase}  loss_d" in line


def test_mirror(watched, tmp_path):
    plain = watched("--steps", 1).all("D")[0].x
    flipped = watched("--steps", 1, "--mirror", "--out", tmp_path / "b").all("D")[0].x
    same, turned = ([torch.allclose(a, b, atol=1e-5) for a, b in zip(x, flipped, strict=True)]
                    for x in (plain, plain.flip(3)))
    assert all(a != b for a, b in zip(same, turned, strict=True)) and 2 < sum(turned) < 14


def test_ema_of_a_step_and_adams_settings(watched, tmp_path):
    watch = watched("--steps", 1, "--ema-kimg", 0.016, "--lr", 0.01)  # 16 images: half
    ckpt = read(tmp_path / "run")
    torch.manual_seed(0)
    train.sample_z(64, 8)
    first = model.Generator(16, 3, 8, 8, 512, 8, 2).state_dict()
    for name in ("const", "convs.2.weight", "mapping.layers.1.weight"):
        half = (first[name] + ckpt["G"][name]) / 2
        assert torch.allclose(ckpt["G_ema"][name], half, atol=1e-6)
    assert torch.equal(ckpt["G_ema"]["w_avg"], ckpt["G"]["w_avg"]) and ckpt["G"]["w_avg"].any()
    for step in watch.all("step"):
        assert (step.group["lr"], step.group["betas"], step.group["eps"]) == (
            0.01, (0.0, 0.99), 1e-8)


@pytest.mark.parametrize("steps, since", [(2, 2), (3, 1), (4, 2), (5, 1)])
def test_adam_starts_anew_with_each_phase(watched, tmp_path, steps, since):
    watched("--steps", steps)
    for opt in ("opt_d", "opt_g"):
        state = read(tmp_path / "run")[opt]["state"]
        assert state and {int(s["step"]) for s in state.values()} == {since}


@pytest.mark.parametrize("stop", [2, 3, 4, 5])  # before and after a reset, twice
def test_resume_is_exact_wherever_growth_stands(watched, tmp_path, stop):
    watched("--steps", 6)
    whole = read(tmp_path / "run")
    out = ("--out", tmp_path / "again")
    watched("--steps", stop, *out)
    torch.manual_seed(12345)
    watched("--steps", 6, *out, "--resume")
    again = read(tmp_path / "again")
    assert (whole["shown"], whole["size"], whole["alpha"]) == (
        again["shown"], again["size"], again["alpha"]) == (64, 16, 1.0)
    for name in ("G", "D", "G_ema"):
        assert all(map(torch.equal, whole[name].values(), again[name].values()))
    for opt in ("opt_g", "opt_d"):
        for i, state in whole[opt]["state"].items():
            assert all(torch.equal(state[k], again[opt]["state"][i][k]) for k in state)


@pytest.mark.parametrize("flags", [("--fmap-max", 9), ("--z-dim", 5), ("--w-dim", 5),
                                   ("--size", 32), ("--config", "D"), ("--data", "digits"),
                                   ("--noise-lr", 1)])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


@pytest.mark.parametrize("flags", [("--batch-size", 6), ("--batch-size", 4, "--accumulate", 2)])
def test_batches_must_hold_groups_of_4(tmp_path, capfd, flags):
    assert main("stylegan", *tiny("stylegan", tmp_path / "run", *SMALL, *flags)) == 2
    assert "groups of 4" in capfd.readouterr().err and not (tmp_path / "run").exists()


# Parts of a batch, and several processes

def sharpen(setattr_) -> None:
    """Rounding is not to matter: float64; and of a gradient that is rounding alone, as that of a
    bias before AdaIN, Adam's step is a toss of the coin, which a larger eps makes small."""
    shrink = train.shrink
    setattr_(train, "shrink", lambda *args: shrink(*args).double())
    setattr_(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=0.01))
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def sharp(monkeypatch):
    sharpen(monkeypatch.setattr)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same_weights(a: dict, b: dict) -> None:
    for name in ("G", "D", "G_ema"):
        for key, p in a[name].items():
            assert torch.allclose(p, b[name][key], atol=1e-7), (name, key)


@pytest.mark.parametrize("loss", ["logistic", "wgan-gp"])
def test_accumulated_parts_are_the_whole_batch(sharp, tmp_path, loss):
    for out, parts in (("a", 1), ("b", 2)):
        flags = tiny("stylegan", tmp_path / out, *SMALL, "--steps", 6, "--accumulate", parts,
                     "--loss", loss, "--lr", 0.02, "--mirror")
        train.train(train.parse_args(flags))
    a, b = read(tmp_path / "a"), read(tmp_path / "b")
    assert_same_weights(a, b)
    start = model.Generator(16, 3, 8, 8, 512, 8, 2).state_dict()
    assert not torch.allclose(a["G"]["const"], start["const"], atol=1e-3)  # it did learn


def one_of_two(rank: int, port: int, *flags: str) -> None:
    """What torchrun starts."""
    os.environ.update(WORLD_SIZE="2", RANK=f"{rank}", LOCAL_RANK=f"{rank}",
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}")
    torch.set_num_threads(1)
    data.N_BUILTIN.update(FEW)
    sharpen(setattr)
    with open(os.devnull, "w") as sys.stdout:
        train.train(train.parse_args(list(flags)))


def start_two(*flags) -> list:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    two = [FORK.Process(target=one_of_two, args=(rank, port, *flags)) for rank in range(2)]
    for process in two:
        process.start()
    return two


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(sharp, tmp_path):
    """Growing, in the middle of a fade, with mixing, noise, mirrored images and stddev."""
    flags = (*SMALL, "--steps", 6, "--lr", 0.02, "--mirror")
    two = start_two(*tiny("stylegan", tmp_path / "two", *flags))
    train.train(train.parse_args(tiny("stylegan", tmp_path / "one", *flags)))
    for process in two:
        process.join(120)
    assert [process.exitcode for process in two] == [0, 0]
    assert_same_weights(read(tmp_path / "one"), read(tmp_path / "two"))
    assert (tmp_path / "two/samples/000006.png").exists()


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path):
    out = tmp_path / "run"
    two = start_two(*tiny("stylegan", out, *SMALL, "--steps", 10**6, "--save-every", 1))
    began = time.monotonic()
    while time.monotonic() < began + 60 and not ((out / "ckpt.pt").exists() and read(out)["step"]):
        time.sleep(0.05)
    os.kill(two[1].pid, signal.SIGTERM)  # not to the one that writes
    for process in two:
        process.join(60)
    assert [process.exitcode for process in two] == [128 + signal.SIGTERM] * 2
    ckpt = read(out)
    assert ckpt["step"] < 10**6
    steps = {int(s["step"]) for s in ckpt["opt_d"]["state"].values()}
    assert steps and max(steps) <= ckpt["step"]


# sample.py

@pytest.fixture
def figures(watched, tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, its G and its checkpoint."""
    def draw(*flags, run=()):
        watched("--steps", 3, "--lr", 0.05, *run)
        grids = {}
        monkeypatch.setattr(sample, "save_grid", lambda path, x, n_cols, **options:
                            grids.update({path.name: x.unflatten(0, (-1, n_cols))}))
        monkeypatch.setattr(sample, "save_gif", lambda path, frames, **options:
                            grids.update({path.name: frames}))
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *map(str, flags)])
        return grids, *sample.load_generator(tmp_path / "run" / "ckpt.pt")
    return draw


def test_figures(figures):
    grids, G, ckpt = figures("--seed", 4)
    assert ckpt["size"] == 16 and ckpt["alpha"] == pytest.approx(1 / 3)  # in the middle of a fade
    torch.manual_seed(4)
    w = G.mapping(sample.sample_z(64, 8))

    def x(psi):
        return sample.paint(G, ckpt, G.styles(w, psi=psi))

    z = ckpt["z_fixed"]
    last = train.sample(G, z, 16, ckpt["alpha"])
    assert torch.allclose(grids["samples.png"].flatten(0, 1), last, atol=1e-5)
    assert torch.allclose(grids["fig3.png"][0, 1:], x(0.7)[6:11], atol=1e-5)
    assert torch.allclose(grids["fig3.png"][1:, 0], x(0.7)[:6], atol=1e-5)
    for column, psi in enumerate((1, 0.7, 0.5, 0, -0.5, -1)):
        assert torch.allclose(grids["fig8.png"][:, column], x(psi)[:6], atol=1e-5)
    assert grids["fig8.png"][:, 3].std(0).max() < 1e-5 < grids["fig8.png"][:, 0].std(0).max()
    assert torch.allclose(grids["fig5.png"][:, 0], x(0.7)[:4], atol=1e-5)
    assert len(grids["interpolation.gif"]) == 60


def test_mixed_styles():
    """Layers as marks: of the 10 of 64x64 four are coarse, four middle, two fine [Fig. 3]."""
    w_a, w_b = torch.zeros(6, 10, 1), torch.ones(5, 10, 1)
    marks = sample.mixed(w_a, w_b)[..., 0]
    coarse, middle, fine = [1.] * 4 + [0.] * 6, [0.] * 4 + [1.] * 4 + [0.] * 2, [0.] * 8 + [1.] * 2
    assert marks[:, 2].tolist() == [coarse] * 3 + [middle] * 2 + [fine] and not w_a.any()
    assert sample.bands(18) == (4, 8) and sample.bands(8) == (4, 6)


def test_noise_figures():
    G, ckpt = small(), {"size": 16, "alpha": 1.0}
    w = G.styles(torch.randn(2, 5))
    x = sample.stochastic(G, ckpt, w, 50).unflatten(0, (2, 6))
    assert torch.allclose(x[:, 0], G.synthesis(w), atol=1e-5)
    assert not torch.allclose(x[:, 1], x[:, 2], atol=1e-3) and x[:, 5].max() > -1
    x = sample.noise_ablation(G, ckpt, w).unflatten(0, (2, 4))
    off = [m * 0 for m in G.fixed_noise()]
    assert torch.allclose(x[:, 1], G.synthesis(w, off), atol=1e-5)
    assert torch.allclose(x[:, 2], G.synthesis(w, off[:4] + G.fixed_noise()[4:]), atol=1e-5)
    assert torch.allclose(x[:, 3], G.synthesis(w, G.fixed_noise()[:4] + off[4:]), atol=1e-5)
    for epilogue in G.epilogues:
        epilogue.noise.zero_()
    x = sample.stochastic(G, ckpt, w, 50).unflatten(0, (2, 6))
    assert (x[:, 5] < -0.99).all()  # black: noise changes nothing


def test_figures_of_a_generator_without_noise(figures):
    grids, *_ = figures(run=("--config", "C"))
    assert "fig3.png" in grids and "fig4.png" not in grids


def test_slerp():
    a, b = torch.randn(2, 4, 6, dtype=torch.float64)
    for t, end in ((0.0, a), (1.0, b)):
        point = sample.slerp(a, b, torch.tensor([[t]], dtype=torch.float64))
        assert torch.allclose(point, F.normalize(end))
    half = sample.slerp(a, b, torch.full((4, 1), 0.5, dtype=torch.float64))
    assert torch.allclose(half, F.normalize(F.normalize(a) + F.normalize(b)))


@pytest.mark.parametrize("space", "zw")
def test_path_length_is_that_of_a_derivative(space):
    """So it does not depend on eps; and an affine G has the same everywhere on a straight path."""
    G, ckpt, lengths = small(), {"size": 16, "alpha": 1.0, "args": {"z_dim": 6}}, []
    for eps in (1e-4, 1e-5):
        torch.manual_seed(0)
        lengths.append(sample.path_length(G, ckpt, 4, space, True, eps))
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-2) and lengths[0] > 0
    G.synthesis = lambda w, *args: w[:, 0, :3, None, None].expand(-1, -1, 16, 16)
    torch.manual_seed(0)
    z = torch.cat([(sample.sample_z(2, 6), torch.rand(1, 1))[0] for _ in range(4)])
    w = G.mapping(z)[:, :3].unflatten(0, (4, 2))
    torch.manual_seed(0)
    if space == "w":
        expected = (w[:, 0] - w[:, 1]).square().mean().item()
        assert sample.path_length(G, ckpt, 4, "w", True) == pytest.approx(expected, rel=1e-4)


def test_psi_of_single_files():
    G, ckpt = small(), {"size": 16, "alpha": 1.0, "args": {"z_dim": 6}}
    mean = sample.generate(G, ckpt, 3, psi=0.0)
    assert mean.shape == (3, 3, 16, 16)
    whole = sample.generate(G, ckpt, 3)
    assert torch.equal(whole, sample.generate(G, ckpt, 3, 0, 1.0))
    for epilogue in G.epilogues:
        epilogue.noise.zero_()
    assert sample.generate(G, ckpt, 3, psi=0.0).std(0).max() < 1e-5
