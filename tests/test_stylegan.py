"""stylegan/: styles, noise, growth, whole steps against the algorithm, several processes as one."""
import argparse
import math
import os
import signal
import time

import pytest
import torch
import torch.nn.functional as F
from algorithm import (
    assert_resumed,
    assert_same_run,
    assert_same_weights,
    float64,
    join_two,
    start_two,
)
from conftest import (
    FORK,
    assert_exported,
    assert_resume_refused,
    caught,
    load,
    main,
    n_parameters,
    tiny,
)
from torch import nn

from common import data

model, train, sample = (load("stylegan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
# 8x8 in step 1, of 16 images; 16x16, of 8, fades in in steps 2 and 3 and is there from 4 on
SMALL = ("--size", 16, "--batch-size", 8, "--fmap-max", 8, "--z-dim", 8, "--w-dim", 8,
         "--phase-kimg", 0.015, "--log-every", 1, "--sample-every", 100, "--save-every", 100)


def go(out, *flags) -> dict:
    """A run's checkpoint."""
    train.train(train.parse_args(tiny("stylegan", out, *SMALL, *flags)))
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
        assert n_parameters(model.Generator().mapping) == 2_101_248
    layers = [512] * 8 + [256, 256, 128, 128, 64, 64, 32, 32, 16, 16]
    assert b == 23_079_115
    assert c - b == 2_101_248 + sum(513 * 2 * c for c in layers)  # mapping, an affine A a layer
    assert d - c == 512 * 16 - 512 * 512 * 16                     # a constant for a dense layer
    assert e - d == sum(layers) and f == e                        # B, one a feature map


def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    with torch.device("meta"):
        G = model.Generator(args.size, 3, args.z_dim, args.w_dim, args.fmap_base, args.fmap_max,
                            args.mapping_layers, args.config, args.noise_lr)
        D = model.Discriminator(args.size, 3, args.fmap_base, args.fmap_max)
        ours = [net.state_dict() for net in (G, D)]
        theirs = [net.state_dict() for net in (model.Generator(), model.Discriminator())]
    assert [{k: v.shape for k, v in net.items()} for net in ours] == [
        {k: v.shape for k, v in net.items()} for net in theirs]
    assert (args.z_dim, args.noise_lr, G.epilogues[0].noise_lr) == (512, 1, 1)
    assert (args.kimg, args.phase_kimg, args.batch_size, args.lr) == (25_000, 600, 32, 1e-3)
    assert (args.gamma, args.mixing, args.ema_kimg) == (10, 0.9, 10)
    assert args.mirror and args.r1_at_size


# The networks: layers

def test_weights_at_the_start():
    """N(0, 1) over lr_mul; biases and noise 0, the constant 1, noise maps N(0, 1). [App. C]"""
    torch.manual_seed(0)
    G, D = model.Generator(32, 3, 256, 256, fmap_max=64), model.Discriminator(32, 3, fmap_max=64)
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        if p.numel() > 10_000:
            assert p.std().item() == pytest.approx(100 if "mapping" in name else 1, rel=0.02)
        elif "bias" in name or "noise" in name:
            assert (p == 0).all()
    assert (G.const == 1).all() and (G.w_avg == 0).all()
    maps = model.sample_noise(50, 32)
    assert [m.shape for m in maps] == [(50, 1, s, s) for s in (4, 4, 8, 8, 16, 16, 32, 32)]
    flat = torch.cat([m.flatten() for m in maps])
    assert flat.mean().abs() < 0.01 and flat.std().item() == pytest.approx(1, abs=0.01)


def test_fused_sampling_is_the_unfused(monkeypatch):
    """Pictures, D's logits and their gradients, R1's too."""
    torch.manual_seed(0)
    with float64():
        G, D = small(size=16).requires_grad_(), model.Discriminator(16, 3, fmap_max=4)
        z, both = torch.randn(4, 6), []
        for size in (10**9, 8):
            monkeypatch.setattr(model, "FUSED", size)
            x = G(z)
            r1 = train.r1(D(x), x)
            loss = D(x).sum() + r1
            both.append([x, D(x), r1, *torch.autograd.grad(loss, [*G.convs.parameters(),
                                                                  *D.downs.parameters()])])
    torch.testing.assert_close(*both, rtol=1e-10, atol=1e-12)


def test_sampling_is_fused_from_128_on(monkeypatch):
    seen = []
    for where, name in ((model, "up"), (F, "avg_pool2d")):
        right = getattr(where, name)
        monkeypatch.setattr(where, name, lambda x, *args, right=right: seen.append(
            x.shape[-1]) or right(x, *args))
    with torch.device("meta"):
        x = model.Generator(256, 3, 6, 5, fmap_max=2)(torch.empty(4, 6))
        model.Discriminator(256, 3, fmap_max=2)(x)
    assert seen == [4, 8, 16, 32, 64, 32, 16, 8]


def test_blur_has_a_second_derivative():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    blur = model.Blur().double()
    assert torch.autograd.gradcheck(blur, x) and torch.autograd.gradgradcheck(blur, x)


@pytest.mark.parametrize("config, noisy, styled", [
    ("B", 0, 0), ("C", 0, 1), ("D", 0, 1), ("E", 1, 1), ("F", 1, 1)])
def test_what_matters_in_which_configuration(config, noisy, styled):
    G = small(config)
    w, w2 = G.mapping(torch.randn(2, 1, 6))
    one, again = (G.synthesis(G.styles(w), model.sample_noise(1, 16)) for _ in range(2))
    assert torch.equal(one, again) != noisy
    assert torch.equal(G.synthesis(G.styles(w)), G.synthesis(G.styles(w)))  # its own noise is fixed
    other = G.synthesis(G.styles(w, w2, 1))  # w in the first layer
    assert torch.equal(G.synthesis(G.styles(w)), other) != styled
    with pytest.raises(AttributeError):
        assert (G.const if config < "D" else G.dense).shape  # each has one kind of input


def test_config_b_by_hand():
    """ProGAN's G, with blur: dense, pixel norm after every layer."""
    G, z = small("B", 8), torch.randn(4, 6)

    def norm(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def layer(x, i):
        return norm(F.leaky_relu(x + G.epilogues[i].bias.view(1, -1, 1, 1), 0.2))

    p = dict(G.named_parameters())
    x = F.linear(norm(z), p["dense.weight"]) * 2 ** 0.5 / 4 / 6 ** 0.5
    x = layer(conv(p, "convs.0", layer(x.view(4, 4, 4, 4), 0)), 1)
    x = layer(blur(conv(p, "convs.1", up(x))), 2)
    x = conv(p, "to_rgb.1", layer(conv(p, "convs.2", x), 3), 1)
    assert torch.allclose(G(z), x, atol=1e-5)


def test_truncation():
    G = small()
    G.w_avg.normal_()
    z = torch.randn(5, 6)
    mean = G.synthesis(G.styles(G.w_avg[None]))
    assert torch.allclose(G(z, psi=0.0), mean.expand(5, -1, -1, -1), atol=1e-5)
    assert torch.equal(G(z, psi=1.0), G(z))
    G, w = small(size=64), torch.randn(3, 5)
    G.w_avg.normal_()
    styles = G.styles(w, psi=0.5)
    assert torch.equal(styles[:, 8:], w[:, None].expand(-1, 2, -1))  # from 64x64 on: untouched
    half = (0.5 * w + 0.5 * G.w_avg)[:, None]
    assert torch.allclose(styles[:, :8], half.expand(-1, 8, -1), atol=1e-6)
    assert torch.allclose(G.styles(w, psi=0.5, truncated=10), half.expand(-1, 10, -1), atol=1e-6)


def test_at_the_full_size_old_layers_have_no_part():
    G, D = small(), model.Discriminator(16, 3, fmap_max=4)
    x = G(torch.randn(4, 6))
    for layer in [*G.to_rgb[:-1], *D.from_rgb[:-1]]:
        nn.init.constant_(layer.weight, float("nan"))
    assert torch.equal(G(torch.randn(4, 6)).isfinite(), x.isfinite()) and D(x).isfinite().all()


def test_minibatch_stddev():
    x = torch.randn(8, 3, 4, 4)
    y = model.minibatch_stddev(x)
    assert torch.equal(y[:, :3], x) and y.shape == (8, 4, 4, 4)
    for i in range(2):
        expected = x[i::2].std(0, unbiased=False).mean()  # groups of 4: i, i + 2, ...
        assert torch.allclose(y[i::2, 3], expected, atol=1e-6)
    assert model.minibatch_stddev(x[:2])[:, 3].std() < 1e-6  # a batch below 4 is one group


@pytest.mark.parametrize("config", "BF")
def test_g_is_exported_for_any_batch(config):
    assert_exported(small(config).eval(), torch.randn(5, 6))


# Growth

def test_the_papers_schedule():
    args = train.parse_args(["--paper"])
    at = {kimg: train.schedule(1000 * kimg, args) for kimg in (
        0, 600, 900, 1200, 1800, 2100, 4200, 5700, 8100, 8400, 25_000)}
    assert at == {
        0: (8, 1.0, 256), 600: (8, 1.0, 256), 900: (16, 0.5, 128), 1200: (16, 1.0, 128),
        1800: (16, 1.0, 128), 2100: (32, 0.5, 64), 4200: (64, 1.0, 32), 5700: (256, 0.5, 32),
        8100: (1024, 0.5, 32), 8400: (1024, 1.0, 32), 25_000: (1024, 1.0, 32)}
    assert train.schedule(600_001, args) == (16, pytest.approx(0, abs=1e-5), 128)
    assert train.LR_FACTOR == {128: 1.5, 256: 2, 512: 3, 1024: 3}


@pytest.mark.parametrize("kimg, phase, steps", [
    (0.1, 0.0, 0), (0.07, 0.02, 0), (0.3, 0.02, 0), (0.3, 0.033, 0), (0.3, 0.02, 9),
    (0.1, 0.02, 90)])
def test_plan_is_the_schedule(kimg, phase, steps):
    args = argparse.Namespace(size=32, phase_kimg=phase, batch_size=4, kimg=kimg, steps=steps,
                              fmap_base=64, fmap_max=2)
    for first, shown in ((0, 0), (3, 48)):  # a run, and one that goes on
        plan, step, work = train.Plan(first, shown, args), first, 0
        while step < steps if steps else shown < 1000 * kimg:
            size, _, n = train.schedule(shown, args)
            step, shown = step + 1, shown + n
            work += n * sum(2 * s * s for s in (8, 16, 32) if s <= size)
            assert plan[step] == pytest.approx(work)
        assert plan.last == step
    args.kimg, args.steps = 25e6, 0
    assert train.Plan(0, 0, args).last > 6e9  # at once


def test_learning_rate_grows_from_128_on(tmp_path):
    ckpt = go(tmp_path / "run", "--size", 128, "--batch-size", 4, "--fmap-max", 2,
              "--phase-kimg", 0, "--steps", 1, "--lr", 0.002)
    for opt in ("opt_g", "opt_d"):
        group, = ckpt[opt]["param_groups"]
        assert (group["lr"], group["eps"]) == (pytest.approx(0.003), 1e-8)
        assert tuple(group["betas"]) == (0, 0.99)


def test_mixed_batches():
    """90 % of them, from a layer on that is never the first; only with config F."""
    for config, mixing in (("F", 0.9), ("F", 0), ("F", 1), ("E", 0.9)):
        args = argparse.Namespace(z_dim=2, mixing=mixing, config=config)
        torch.manual_seed(0)
        drawn = [train.draw(1, 16, args, None, [slice(1)])[1][0][2] for _ in range(500)]
        mixed, share = [i for i in drawn if i < 6], mixing if config == "F" else 0
        assert set(mixed) == ({1, 2, 3, 4, 5} if share else set())
        assert len(mixed) / 500 == pytest.approx(share, abs=0.04 * (0 < share < 1))


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())


# Whole steps, written out again

def up(x):
    return F.interpolate(x, scale_factor=2)


def blur(x):
    k = torch.tensor([1.0, 2, 1])
    return F.conv2d(x, (k[:, None] * k / 16).expand(x.shape[1], 1, 3, 3), padding=1,
                    groups=x.shape[1])


def conv(p, name, x, gain=2 ** 0.5):
    w = p[f"{name}.weight"]
    return F.conv2d(x, w * gain / w[0].numel() ** 0.5, p.get(f"{name}.bias"), padding="same")


def linear(p, name, x, gain=2 ** 0.5, lr_mul=1.0):
    w, b = p[f"{name}.weight"], p[f"{name}.bias"]
    return F.linear(x, w * lr_mul * gain / w.shape[1] ** 0.5, b * lr_mul)


def plain_mapping(p, z):
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        w = F.leaky_relu(linear(p, f"mapping.layers.{i}", w, lr_mul=0.01), 0.2)
    return w


def plain_g(p, z, z2, crossover, noise, size, alpha, noise_lr):
    w, w2 = plain_mapping(p, z), plain_mapping(p, z2)

    def layer(x, i):
        strength, bias = (p[f"epilogues.{i}.{name}"][:, None, None] for name in ("noise", "bias"))
        x = F.leaky_relu(x + noise_lr * strength * noise[i] + bias, 0.2)
        y = linear(p, f"epilogues.{i}.style", w if i < crossover else w2, 1)[..., None, None]
        c = x.shape[1]
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        return (y[:, :c] + 1) * (x - mean) / (var + 1e-8).sqrt() + y[:, c:]  # Eq. 1

    x = layer(p["const"].expand(len(z), -1, -1, -1), 0)
    x = layer(conv(p, "convs.0", x), 1)
    rgb = [conv(p, "to_rgb.0", x, 1)]
    for k in range(1, int(math.log2(size)) - 1):
        x = layer(blur(conv(p, f"convs.{2 * k - 1}", up(x))), 2 * k)
        x = layer(conv(p, f"convs.{2 * k}", x), 2 * k + 1)
        rgb.append(conv(p, f"to_rgb.{k}", x, 1))
    return (1 - alpha) * up(rgb[-2]) + alpha * rgb[-1]


def plain_d(p, x, alpha):
    k, lrelu = int(math.log2(x.shape[-1])) - 2, nn.LeakyReLU(0.2)
    h = lrelu(conv(p, f"from_rgb.{k}", x))
    for i in reversed(range(k)):
        h = blur(lrelu(conv(p, f"convs.{i}", h)))
        h = lrelu(F.avg_pool2d(conv(p, f"downs.{i}", h), 2))
        if i == k - 1:
            h = alpha * h + (1 - alpha) * lrelu(conv(p, f"from_rgb.{i}", F.avg_pool2d(x, 2)))
    groups = h.view(4, -1, *h.shape[1:])  # samples i, i + m, i + 2m, i + 3m
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    h = torch.cat([h, deviation.repeat(4).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], 1)
    h = lrelu(linear(p, "dense", lrelu(conv(p, "conv", h)).flatten(1)))
    return linear(p, "logit", h, 1)[:, 0]


def plain_draw(n, size):
    z, z2 = torch.randn(n, 8), torch.randn(n, 8)
    noise = [torch.randn(n, 1, side, side) for side in (4, 4, 8, 8, 16, 16)[:2 * int(size / 8) + 2]]
    layers = len(noise)
    mixed = torch.rand(()) < 0.9
    return z, z2, int(torch.randint(1, layers, ())) if mixed else layers, noise


@pytest.mark.parametrize("at_size", [False, True])
def test_steps(sharp, tmp_path, at_size):
    """8x8; 16x16, fading in, twice; and there, twice: new phases in steps 2 and 4. at_size: as in
    the authors' code D shrinks reals that were blown up, and R1 is by the pixels of those."""
    steps = [(8, 1.0, 16), (16, 1 / 15, 8), (16, 9 / 15, 8), (16, 1.0, 8), (16, 1.0, 8)]
    go(tmp_path / "run", "--steps", 5, "--gamma", 6, "--ema-kimg", 0.02, "--mirror", "--lr", 0.02,
       *["--r1-at-size"] * at_size)
    torch.manual_seed(0)
    torch.randn(64, 8)  # the run's fixed z
    G, D = model.Generator(16, 3, 8, 8, 512, 8, 2, "F", 0.1), model.Discriminator(16, 3, 512, 8)
    (g, d), rows, w_avg = (dict(net.named_parameters()) for net in (G, D)), [], torch.zeros(8)
    ema = {name: p.detach().clone() for name, p in g.items()}
    batches, last = data.load_images("faces", 16).batches(8, seed=0), None
    for step, (size, alpha, n) in enumerate(steps, 1):
        torch.manual_seed(step)
        if (size, alpha < 1) != last:
            adam_g, adam_d = (torch.optim.Adam(p.values(), lr=0.02, betas=(0.0, 0.99))
                              for p in (g, d))
        last = size, alpha < 1
        x = F.avg_pool2d(torch.cat([next(batches) for _ in range(n // 8)]), 16 // size)
        x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
        if alpha < 1:
            x = alpha * x + (1 - alpha) * up(F.avg_pool2d(x, 2))

        z, z2, crossover, noise = plain_draw(n, size)
        w_avg = 0.995 * w_avg + 0.005 * plain_mapping(g, z).mean(0).detach()
        x_fake = plain_g(g, z, z2, crossover, noise, size, alpha, 0.1).detach()
        blown_up = 16 // size if at_size else 1
        x = F.interpolate(x, scale_factor=blown_up).requires_grad_()
        real = plain_d(d, F.avg_pool2d(x, blown_up), alpha)
        fake = plain_d(d, x_fake, alpha)
        grad, = torch.autograd.grad(real.sum(), x, create_graph=True)
        penalty = 3 * grad.square().sum((1, 2, 3)).mean()
        loss_d = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean() + penalty
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()

        z, z2, crossover, noise = plain_draw(n, size)
        w_avg = 0.995 * w_avg + 0.005 * plain_mapping(g, z).mean(0).detach()
        x_fake = plain_g(g, z, z2, crossover, noise, size, alpha, 0.1)
        loss_g = -plain_d(d, x_fake, alpha).sigmoid().log().mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        beta = 0.5 ** (n / 20)
        ema = {name: beta * p + (1 - beta) * g[name].detach() for name, p in ema.items()}
        rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake, penalty)])
    G.w_avg.copy_(w_avg)
    G_ema = small(z_dim=8, w_dim=8, fmap_max=8, noise_lr=0.1)
    G_ema.load_state_dict(G.state_dict() | ema)
    assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D, G_ema=G_ema)


@pytest.mark.parametrize("stop", [1, 2, 4])  # before, in and after a fade
def test_resume_is_exact_wherever_growth_stands(tmp_path, stop):
    again = assert_resumed(go, tmp_path, 5, stop)
    assert (again["shown"], again["size"], again["alpha"]) == (48, 16, 1.0)


@pytest.mark.parametrize("flags", [("--fmap-max", 9), ("--z-dim", 5), ("--w-dim", 5),
                                   ("--size", 32), ("--config", "D"), ("--data", "digits"),
                                   ("--noise-lr", 1)])
def test_resume_refuses_another_network(tmp_path, capfd, flags):
    go(tmp_path / "run", "--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def test_resume_refuses_to_shrink(tmp_path, capfd):
    go(tmp_path / "run", "--steps", 2)
    with pytest.raises(SystemExit):
        go(tmp_path / "run", "--steps", 5, "--resume", "--phase-kimg", 1)
    assert "--phase-kimg 1.0: would shrink" in capfd.readouterr().err


def test_status_line_tells_the_phase(tmp_path, capsys):
    go(tmp_path / "run", "--steps", 3)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert ["size 8.000  alpha 1.000  shown 16.000" in lines[0],
            "size 16.000  alpha 0.600  shown 32.000" in lines[2]] == [True, True]


@pytest.mark.parametrize("flags", [("--batch-size", 6), ("--batch-size", 4, "--accumulate", 2)])
def test_batches_must_hold_groups_of_4(tmp_path, capfd, flags):
    assert main("stylegan", *tiny("stylegan", tmp_path / "run", *SMALL, *flags)) == 2
    assert "groups of 4" in capfd.readouterr().err and not (tmp_path / "run").exists()


# Parts of a batch, and several processes

def test_accumulated_parts_are_the_whole_batch(sharp, tmp_path):
    flags = ("--steps", 5, "--lr", 0.02, "--mirror")
    assert_same_weights(go(tmp_path / "a", *flags), go(tmp_path / "b", *flags, "--accumulate", 2))


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(sharp, tmp_path):
    """Growing, in the middle of a fade, with mixing, noise, mirrored images, stddev, parts."""
    flags = ("--steps", 5, "--lr", 0.02, "--mirror")
    two = start_two("stylegan", *tiny("stylegan", tmp_path / "two", *SMALL, *flags), eps=0.01)
    one = go(tmp_path / "one", *flags)
    join_two(two)
    assert_same_weights(one, torch.load(tmp_path / "two/ckpt.pt", weights_only=True))
    assert (tmp_path / "two/samples/000005.png").exists()


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path):
    """With the next row of the log. And a second start is refused, by the first process alone."""
    out, ckpt = tmp_path / "run", tmp_path / "run" / "ckpt.pt"
    flags = tiny("stylegan", out, *SMALL, "--steps", 10**6, "--log-every", 5, "--save-every", 1)
    two, began = start_two("stylegan", *flags), time.monotonic()
    while time.monotonic() < began + 60 and not (
            ckpt.exists() and torch.load(ckpt, weights_only=True)["step"]):
        time.sleep(0.05)
    os.kill(two[1].pid, signal.SIGTERM)  # not to the one that writes
    for process in two:
        process.join(60)
    assert [process.exitcode for process in two] == [128 + signal.SIGTERM] * 2
    step = torch.load(ckpt, weights_only=True)["step"]
    assert step % 5 == 0 and 0 < step < 10**6
    refused = start_two("stylegan", *flags)
    refused[0].join(60)
    assert refused[0].exitcode == 2
    refused[1].kill()  # as torchrun does then


def test_torchrun_s_environment_must_be_whole(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main("stylegan", *tiny("stylegan", tmp_path / "run")) == 2
    assert "LOCAL_RANK is not" in capfd.readouterr().err and not (tmp_path / "run").exists()


# sample.py

@pytest.fixture
def figures(tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, its G and its checkpoint."""
    def draw(*flags, run=()):
        go(tmp_path / "run", "--steps", 3, "--lr", 0.05, *run)
        grids = caught(monkeypatch, sample)
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *map(str, flags)])
        return grids, *sample.load_generator(tmp_path / "run" / "ckpt.pt")
    return draw


def test_figures(figures):
    grids, G, ckpt = figures("--seed", 4, "--frames", 12)
    assert ckpt["size"] == 16 and ckpt["alpha"] == pytest.approx(0.6)  # in the middle of a fade
    torch.manual_seed(4)
    w = G.mapping(sample.sample_z(64, 8))

    def x(psi):  # in all layers
        return sample.paint(G, ckpt, G.styles(G.w_avg + psi * (w - G.w_avg)))

    torch.testing.assert_close(G.state_dict(), ckpt["G_ema"], rtol=0, atol=0)
    last = train.sample(G, ckpt["z_fixed"], 16, ckpt["alpha"])
    assert torch.allclose(grids["samples.png"].flatten(0, 1), last, atol=1e-5)
    assert torch.allclose(grids["fig3.png"][0, 1:], x(1)[6:11], atol=1e-5)
    assert torch.allclose(grids["fig3.png"][1:, 0], x(1)[:6], atol=1e-5)
    assert torch.allclose(grids["fig5.png"][:, 0], x(1)[:4], atol=1e-5)
    for column, psi in enumerate((1, 0.7, 0.5, 0, -0.5, -1)):
        assert torch.allclose(grids["fig8.png"][:, column], x(psi)[:6], atol=1e-5)
    assert grids["fig8.png"][:, 3].std(0).max() < 1e-5 < grids["fig8.png"][:, 0].std(0).max()
    assert len(grids["walk.gif"]) == 12


def test_fig_8_has_one_face_at_psi_0_at_any_size(monkeypatch):
    """64x64 has layers that Fig. 2's truncation leaves alone."""
    G, x = small("D", 64), {}
    ckpt = {"size": 64, "alpha": 1.0, "args": {"z_dim": 6}, "z_fixed": torch.randn(8, 6)}
    monkeypatch.setattr(sample, "save_grid", lambda path, grid, *a, **k: x.update({path: grid}))
    monkeypatch.setattr(sample, "save_gif", lambda *a, **k: None)
    out = sample.Path("out")
    sample.figures(G, ckpt, argparse.Namespace(psi=None, seed=0, frames=2, ppl=0), out)
    assert x[out / "fig8.png"].unflatten(0, (6, 6))[:, 3].std(0).max() < 1e-5


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


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("space", "zw")
def test_path_length_is_that_of_a_derivative(space, full):
    """On the arc or the line between two z or w, at a random place or at its start: of 100, without
    the shortest and the longest."""
    G, ckpt = small(), {"size": 16, "alpha": 1.0, "args": {"z_dim": 6}}
    torch.manual_seed(0)
    length = sample.path_length(G, ckpt, 100, space, full)
    torch.manual_seed(0)
    G, lengths = G.double(), []
    for _ in range(100):
        a, b = torch.randn(2, 6).double()
        t = torch.rand(1, 1).double() * full

        def at(t, a=a, b=b):
            if space == "z":
                w = G.mapping(sample.slerp(a[None], b[None], t))
            else:
                w = torch.lerp(G.mapping(a[None]), G.mapping(b[None]), t)
            return G.synthesis(G.styles(w))

        _, derivative = torch.autograd.functional.jvp(at, t, torch.ones_like(t))
        lengths.append(derivative.square().mean())
    lengths = torch.stack(lengths).sort().values[1:-1]
    assert length == pytest.approx(lengths.mean().item(), rel=0.02)


def test_generate():
    """On new noise each, truncated if asked; in chunks, as many as asked for."""
    G = small()
    ckpt = {"size": 8, "alpha": 1.0, "args": {"z_dim": 6}, "z_fixed": torch.zeros(1, 6)}
    sizes = [len(part) for part in sample.generate(G, ckpt, 260)]
    assert sizes == [250, 10]

    def pictures(psi=1.0):
        return torch.cat(list(sample.generate(G, ckpt, 3, 0, psi)))

    assert pictures().shape == (3, 3, 16, 16) and torch.equal(pictures(), pictures())
    assert pictures(0.0).std(0).max() > 1e-3  # of one w: the noise
    for epilogue in G.epilogues:
        epilogue.noise.zero_()
    assert pictures(0.0).std(0).max() < 1e-5 < pictures().std(0).max()
