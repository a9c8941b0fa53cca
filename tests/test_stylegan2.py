"""stylegan2/: modulation, filters, lazy regularisation, whole steps, processes, projection."""
import argparse
import math

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
from PIL import Image
from torch import nn
from torchvision.models import vgg

from common import data

model, train, sample = (load("stylegan2", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--size", 16, "--batch-size", 8, "--fmap-max", 8, "--z-dim", 8, "--w-dim", 8,
         "--log-every", 1, "--sample-every", 100, "--save-every", 100)


def go(out, *flags) -> dict:
    """A run's checkpoint."""
    train.train(train.parse_args(tiny("stylegan2", out, *SMALL, *flags)))
    return torch.load(out / "ckpt.pt", weights_only=True)


def small(config: str = "F", size: int = 16, **options) -> nn.Module:
    """A G whose every part matters: noise has weight, biases are not 0."""
    torch.manual_seed(0)
    options = dict(z_dim=6, w_dim=5, fmap_max=4, mapping_layers=2, config=config) | options
    G = model.Generator(size, 3, **options).requires_grad_(False)
    for name, p in G.named_parameters():
        if "noise" in name or "bias" in name:
            p.normal_()
    return G


# The networks: sizes

@pytest.mark.parametrize("config, size, g, d", [
    ("F", 1024, 30_370_060, 29_012_513), ("F", 512, 30_276_583, 28_982_849),
    ("F", 256, 30_034_338, 28_864_129), ("F", 128, 29_328_669, 28_389_121),
    ("F", 64, 27_032_600, 26_488_833), ("F", 32, 21_523_475, 21_507_073),
    ("E", 1024, 24_900_764, 24_038_161), ("E", 256, 24_767_458, 24_001_089),
    ("E", 64, 23_819_544, 23_407_361), ("E", 32, 21_523_475, 21_507_073)])
def test_parameter_counts(config, size, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, config=config)) == g
        assert n_parameters(model.Discriminator(size, config=config)) == d


@pytest.mark.parametrize("size, w, base, width, g, d", [
    (32, 128, 2048, 64, 483_219, 337_281), (32, 256, 4096, 128, 1_924_883, 1_346_305)])
def test_parameter_counts_of_small_networks(size, w, base, width, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, 3, w, w, base, width)) == g
        assert n_parameters(model.Discriminator(size, 3, base, width)) == d


def test_configurations_of_table_1():
    """Until row E there is one ToRGB, and no 1x1 convolution beside D's blocks. D is then that of
    StyleGAN at its last size."""
    with torch.device("meta"):
        g, d = ({row: n_parameters(build(config=row)) for row in "BCDEF"}
                for build in (model.Generator, model.Discriminator))
        assert n_parameters(model.Generator().mapping) == 2_101_248
    assert g["B"] == g["C"] == g["D"] and d["B"] == d["C"] == d["D"] == 23_077_137
    c = [512] * 4 + [256, 128, 64, 32, 16]
    assert g["E"] - g["D"] == sum(512 * k + k + 3 * k + 3 for k in c[:-1])
    assert d["E"] - d["D"] == sum(k * half for k, half in zip(c[:-1], c[1:], strict=True))


def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    with torch.device("meta"):
        G = model.Generator(args.size, 3, args.z_dim, args.w_dim, args.fmap_base, args.fmap_max,
                            args.mapping_layers, args.config, args.noise_lr)
        D = model.Discriminator(args.size, 3, args.fmap_base, args.fmap_max, args.config)
        ours = [net.state_dict() for net in (G, D)]
        theirs = [net.state_dict() for net in (model.Generator(), model.Discriminator())]
    assert [{k: v.shape for k, v in net.items()} for net in ours] == [
        {k: v.shape for k, v in net.items()} for net in theirs]
    assert (args.z_dim, args.noise_lr, G.convs[0].noise_lr) == (512, 1, 1)
    assert args.steps * args.batch_size == 25_000_000 and args.lr == 2e-3 and args.mirror
    assert (args.gamma, args.mixing, args.ema_kimg, args.path_weight) == (10, 0.9, 10, 2)


def test_weights_at_the_start():
    """N(0, 1) over lr_mul; biases 0 but those of styles, 1; noise 0; constant and maps N(0, 1)."""
    torch.manual_seed(0)
    G, D = model.Generator(32, 3, 256, 256, fmap_max=64), model.Discriminator(32, 3, fmap_max=64)
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        if name.endswith("weight") and p.numel() > 10_000:
            assert p.std().item() == pytest.approx(100 if "mapping" in name else 1, rel=0.02)
        elif "bias" in name or "noise" in name:
            assert (p == ("style.bias" in name)).all()
    assert G.const.std().item() == pytest.approx(1, abs=0.05) and (G.w_avg == 0).all()
    maps = model.sample_noise(50, 32)
    assert [m.shape for m in maps] == [(50, 1, s, s) for s in (4, 8, 8, 16, 16, 32, 32)]
    flat = torch.cat([m.flatten() for m in maps])
    assert flat.mean().abs() < 0.01 and flat.std().item() == pytest.approx(1, abs=0.01)


# The networks: filters

def taps(x, before, after, gain=1.0):
    """The filter in its direct form: sixteen shifted copies of x, with zeros around it."""
    k = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    x = F.pad(x, (before, after, before, after))
    h, w = x.shape[2] - 3, x.shape[3] - 3
    return gain * sum(k[i] * k[j] * x[:, :, i:i + h, j:j + w] for i in range(4) for j in range(4))


def spread(x):
    """Zeros after every row and column."""
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[:, :, ::2, ::2] = x
    return y


def test_filters_against_the_direct_form():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for padding in (0, 1, 2):
        blur = model.Blur(padding, gain=4).double()
        torch.testing.assert_close(blur(x), taps(x, padding, padding, 4))
        torch.testing.assert_close(blur(x.requires_grad_()), taps(x, padding, padding, 4))
    torch.testing.assert_close(model.Up().double()(x), taps(spread(x), 2, 1, 4))


def test_gain_of_filters():
    """What is constant stays so, away from the zeros around it."""
    x = torch.ones(1, 1, 8, 8)
    assert torch.allclose(model.Up()(x)[..., 2:-2, 2:-2], torch.tensor(1.0))
    conv = model.Conv(1, 1, 1, bias=False, down=True)
    nn.init.ones_(conv.weight)
    assert conv(x).shape == (1, 1, 4, 4)
    assert torch.allclose(conv(x)[..., 1:-1, 1:-1], torch.tensor(1.0))
    layer = model.ModConv(1, 1, 2, up=True, demodulate=False)  # nine taps of 1/3
    nn.init.ones_(layer.weight)
    y = layer(x, torch.zeros(1, 2))
    assert y.shape == (1, 1, 16, 16) and torch.allclose(y[..., 4:-4, 4:-4], torch.tensor(3.0))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_filters_have_a_second_derivative(padding):
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    blur = model.Blur(padding).double()
    assert torch.autograd.gradcheck(blur, x) and torch.autograd.gradgradcheck(blur, x)


# The networks: styles

def by_sample(conv, x, w, demodulate=True):
    """Eqs. 1-3, each sample with weights of its own; a kernel read backwards where it grows."""
    rows = []
    for one, s in zip(x, conv.style(w), strict=True):
        weight = conv.weight / conv.weight[0].numel() ** 0.5 * s[:, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if conv.blur is not None:
            y = F.conv2d(F.pad(spread(one[None])[..., :-1, :-1], (2, 2, 2, 2)), weight.flip(2, 3))
            rows.append(taps(y, 1, 1, 4))
        else:
            rows.append(F.conv2d(one[None], weight, padding="same"))
    return torch.cat(rows)


@pytest.mark.parametrize("kernel, up, demodulate", [
    (3, False, True), (3, True, True), (1, False, False)])
def test_modulation_against_weights_of_each_sample(kernel, up, demodulate):
    conv = model.ModConv(4, 5, 3, kernel, up, demodulate).double()
    x, w = torch.randn(2, 4, 6, 6).double(), torch.randn(2, 3).double()
    torch.testing.assert_close(conv(x, w), by_sample(conv, x, w, demodulate))


def test_demodulated_outputs_have_unit_deviation():
    """For inputs of unit deviation, whatever the style. [Sec. 2.2]"""
    torch.manual_seed(0)
    conv = model.ModConv(16, 8, 4)
    y = conv(torch.randn(2, 16, 200, 200), 3 * torch.randn(2, 4))[..., 1:-1, 1:-1]
    assert torch.allclose(y.std((2, 3)), torch.ones(2, 8), atol=0.02)


@pytest.mark.parametrize("config, n", [("B", 1), ("D", 1), ("E", 3), ("F", 3)])
def test_the_picture_is_the_sum_of_its_parts(config, n):
    G, w = small(config), torch.randn(2, 5)
    parts = G.parts(G.styles(w))
    assert [len(part[0, 0]) for part in parts] == [4, 8, 16][-n:]
    total = parts[0]
    for part in parts[1:]:
        total = taps(spread(total), 2, 1, 4) + part
    assert torch.allclose(G.synthesis(G.styles(w)), total, atol=1e-5)
    one, other = (G.synthesis(G.styles(w), model.sample_noise(1, 16)) for _ in range(2))
    assert not torch.allclose(one, other, atol=1e-3)
    assert torch.equal(G.synthesis(G.styles(w)), G.synthesis(G.styles(w)))  # its own noise is fixed


def test_mixing_crosses_over_at_its_layer():
    """Convolutions before it, and ToRGBs, still have the first style."""
    G = small()
    w, w2 = torch.randn(2, 1, 5)
    for crossover in range(1, 6):
        styles, seen = G.styles(w, w2, crossover), []
        hooks = [layer.style.register_forward_hook(lambda _, x, y, seen=seen: seen.append(x[0]))
                 for layer in G.modules() if isinstance(layer, model.ModConv)]
        G.synthesis(styles)
        for hook in hooks:
            hook.remove()
        order = [0, 1, 1, 2, 3, 3, 4, 5]  # conv, ToRGB; conv, conv, ToRGB; ...
        expected = [w if i < crossover else w2 for i in order]
        assert all(map(torch.equal, seen, expected)) and len(seen) == 8


def test_truncation():
    G = small()
    G.w_avg.normal_()
    z = torch.randn(5, 6)
    mean = G.synthesis(G.styles(G.w_avg[None]))
    assert torch.allclose(G(z, psi=0.0), mean.expand(5, -1, -1, -1), atol=1e-5)
    assert torch.equal(G(z, psi=1.0), G(z))
    w = G.mapping(z)
    half = (0.5 * w + 0.5 * G.w_avg)[:, None]
    assert torch.allclose(G.styles(w, psi=0.5), half.expand(-1, 6, -1), atol=1e-6)


@pytest.mark.parametrize("config", "BF")
def test_g_is_exported_for_any_batch(config):
    assert_exported(small(config).eval(), torch.randn(5, 6))


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())


@pytest.mark.parametrize("r", [8, 32, 64])
def test_path_length_of_a_linear_map_is_its_norm(r):
    """|J^T y| but for r and the layers; with these its square, times 2, is App. B's penalty."""
    torch.manual_seed(0)
    n_layers = model.n_layers(r)
    w = torch.randn(2, n_layers, 3, dtype=torch.float64, requires_grad=True)
    J, y = torch.randn(3 * r * r, n_layers * 3).double(), torch.randn(2, 3, r, r).double()
    lengths = train.path_lengths((w.flatten(1) @ J.T).view(2, 3, r, r), w, y)
    norms = (y.flatten(1) @ J).norm(dim=1)
    gamma = math.log(2) / (r ** 2 * (math.log(r) - math.log(2)))
    torch.testing.assert_close(2 * lengths.square(), gamma * norms.square())


def test_adam_of_lazy_regularisation():
    """The card's numbers; interval 1, and none, leave Adam as it is."""
    net = nn.Linear(1, 1)
    for every, lr, beta2 in ((4, 0.0016, 0.99199), (16, 0.0018824, 0.990585),
                             (1, 0.002, 0.99), (0, 0.002, 0.99)):
        group, = train.adam(net, 2e-3, every).param_groups
        assert group["lr"] == pytest.approx(lr, abs=1e-7) and group["betas"][0] == 0
        assert (group["betas"][1], group["eps"]) == (pytest.approx(beta2, abs=3e-6), 1e-8)


@pytest.mark.parametrize("config, expected", [
    ("B", (0, 1)), ("C", (0, 16)), ("D", (4, 16)), ("E", (4, 16)), ("F", (4, 16))])
def test_what_is_regularised_when(config, expected):
    assert train.intervals(train.parse_args(["--config", config])) == expected
    assert train.intervals(train.parse_args(["--path-weight", "0"])) == (0, 16)


def test_mixed_batches():
    """90 % of them, from a layer on that is never the first."""
    for mixing in (0.9, 0, 1):
        args = argparse.Namespace(z_dim=2, mixing=mixing, size=16)
        torch.manual_seed(0)
        drawn = [train.draw(1, args, None, [slice(1)])[1][0][2] for _ in range(500)]
        mixed = [i for i in drawn if i < 6]
        assert set(mixed) == ({1, 2, 3, 4, 5} if mixing else set())
        assert len(mixed) / 500 == pytest.approx(mixing, abs=0.04 * (0 < mixing < 1))


# Whole steps, written out again

def linear(p, name, x, lr_mul=1.0):
    w, b = p[f"{name}.weight"], p[f"{name}.bias"]
    return F.linear(x, w * lr_mul / w.shape[1] ** 0.5, b * lr_mul)


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x) * 2 ** 0.5


def scaled(p, name):
    w = p[f"{name}.weight"]
    return w / w[0].numel() ** 0.5


def plain_mapping(p, z):
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        w = lrelu(linear(p, f"mapping.layers.{i}", w, 0.01))
    return w


def plain_g(p, w, noise, config):
    """w (n, 6, 8): a convolution for all samples at once, in groups, with the weights of each."""
    def modulated(name, x, w, demodulate):
        s, weight = linear(p, f"{name}.style", w), scaled(p, name)
        weight = weight * s[:, None, :, None, None]                       # (n, out, in, k, k)
        if demodulate:
            weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        n, c_out, c_in, k, _ = weight.shape
        if x.shape[-1] == noise_side:
            y = F.conv2d(x.reshape(1, n * c_in, *x.shape[2:]), weight.view(n * c_out, c_in, k, k),
                         padding=k // 2, groups=n)
        else:  # to twice the size
            x = F.pad(spread(x)[..., :-1, :-1], (2, 2, 2, 2))
            y = F.conv2d(x.reshape(1, n * c_in, *x.shape[2:]),
                         weight.view(n * c_out, c_in, k, k).flip(2, 3), groups=n)
            y = taps(y, 1, 1, 4)
        return y.view(n, c_out, *y.shape[2:])

    x, rgb = p["const"].expand(len(w), -1, -1, -1), 0
    for i in range(5):
        noise_side = noise[i].shape[-1]
        x = modulated(f"convs.{i}.conv", x, w[:, i], True)
        x = x + 0.1 * p[f"convs.{i}.noise"] * noise[i] + p[f"convs.{i}.bias"][:, None, None]
        x = lrelu(x)
        if i % 2 == 0 and (config == "F" or i == 4):
            k = i // 2 if config == "F" else 0
            rgb = taps(spread(rgb), 2, 1, 4) if k else 0
            bias = p[f"to_rgb.{k}.bias"][:, None, None]
            rgb = rgb + modulated(f"to_rgb.{k}.conv", x, w[:, i + 1], False) + bias
    return rgb


def plain_d(p, x, config):
    def conv(name, x):
        return lrelu(F.conv2d(x, scaled(p, name), p[f"{name}.bias"], padding="same"))

    h = conv("from_rgb", x)
    for i in range(2):
        main = conv(f"blocks.{i}.conv", h)
        main = lrelu(F.conv2d(taps(main, 2, 2), scaled(p, f"blocks.{i}.down"),
                              p[f"blocks.{i}.down.bias"], stride=2))
        if config == "F":
            skip = F.conv2d(taps(h, 1, 1)[:, :, ::2, ::2], scaled(p, f"blocks.{i}.skip"))
            main = (main + skip) / 2 ** 0.5
        h = main
    groups = h.view(4, -1, *h.shape[1:])  # samples i, i + m, i + 2m, i + 3m
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    h = torch.cat([h, deviation.repeat(4).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], 1)
    h = lrelu(linear(p, "dense", conv("conv", h).flatten(1)))
    return linear(p, "logit", h)[:, 0]


class Adam:
    """With lr and beta2 scaled; a weight without a gradient has the gradient 0."""

    def __init__(self, weights, lr, c):
        self.weights, self.lr, self.beta, self.t = list(weights), c * lr, 0.99 ** c, 0
        self.v = [torch.zeros_like(w) for w in self.weights]

    def step(self, loss):
        self.t += 1
        gradients = torch.autograd.grad(loss, self.weights, allow_unused=True)
        with torch.no_grad():
            for w, v, g in zip(self.weights, self.v, gradients, strict=True):
                g = torch.zeros_like(w) if g is None else g
                v.mul_(self.beta).add_((1 - self.beta) * g ** 2)
                w -= self.lr * g / ((v / (1 - self.beta ** self.t)).sqrt() + 1e-8)


def plain_draw(n):
    z, z2 = torch.randn(n, 8), torch.randn(n, 8)
    noise = [torch.randn(n, 1, side, side) for side in (4, 8, 8, 16, 16)]
    mixed = torch.rand(()) < 0.9
    return z, z2, int(torch.randint(1, 6, ())) if mixed else 6, noise


@pytest.mark.parametrize("config, path_every, r1_every, steps", [
    ("F", 2, 3, 4),   # both regularisers in step 1, then the one or the other
    ("F", 1, 1, 2),   # at interval 1 lazy regularisation is the plain one: loss + penalty
    ("B", 0, 1, 2)])  # no path lengths, R1 with the loss
def test_steps(tmp_path, config, path_every, r1_every, steps):
    with float64():
        go(tmp_path / "run", "--steps", steps, "--gamma", 6, "--ema-kimg", 0.02, "--mirror", "--lr",
           0.02, "--config", config, "--path-every", path_every or 4, "--r1-every", r1_every)
        torch.manual_seed(0)
        torch.randn(64, 8)  # the run's fixed z
        G = model.Generator(16, 3, 8, 8, 512, 8, 2, config, 0.1)
        D = model.Discriminator(16, 3, 512, 8, config)
        (g, d), rows = (dict(net.named_parameters()) for net in (G, D)), []
        ema = {name: p.detach().clone() for name, p in g.items()}
        adam_g, adam_d = (Adam(p.values(), 0.02, k / (k + 1) if k > 1 else 1)
                          for p, k in ((g, path_every), (d, r1_every)))
        batches = data.load_images("faces", 16).batches(8, seed=0)
        a, w_avg, r1, path = 0.0, torch.zeros(8), torch.zeros(()), torch.zeros(())

        def styles(z, z2, crossover):
            w, w2 = plain_mapping(g, z), plain_mapping(g, z2)
            return torch.stack([w if i < crossover else w2 for i in range(6)], 1)

        def average(z):
            return 0.995 * w_avg + 0.005 * plain_mapping(g, z).mean(0).detach()

        for step in range(1, steps + 1):
            torch.manual_seed(step)
            x = next(batches)
            x = torch.where(torch.rand(8, 1, 1, 1) < 0.5, x.flip(3), x)

            z, *mixing, noise = plain_draw(8)
            w_avg = average(z)
            x_fake = plain_g(g, styles(z, *mixing), noise, config)
            total = loss_g = -plain_d(d, x_fake, config).sigmoid().log().mean()
            if path_every != 1:
                adam_g.step(total)
                total = 0
            if path_every and (step - 1) % path_every == 0:
                z, *mixing, noise = plain_draw(4)
                w_avg = average(z)
                w, y = styles(z, *mixing), torch.randn(4, 3, 16, 16)
                J_y, = torch.autograd.grad((plain_g(g, w, noise, config) * y / 16).sum(), w,
                                           create_graph=True)
                lengths = (J_y.square().sum(2).sum(1) / 6).sqrt()
                path = 2 * (lengths - a).square().mean()
                adam_g.step(total + path * path_every)
                a = 0.99 * a + 0.01 * lengths.mean().item()

            z, *mixing, noise = plain_draw(8)
            w_avg = average(z)
            x_fake = plain_g(g, styles(z, *mixing), noise, config).detach()
            real, fake = plain_d(d, x, config), plain_d(d, x_fake, config)
            total = loss_d = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
            if r1_every != 1:
                adam_d.step(total)
                total = 0
            if (step - 1) % r1_every == 0:
                x = x.clone().requires_grad_()
                grad, = torch.autograd.grad(plain_d(d, x, config).sum(), x, create_graph=True)
                r1 = 3 * grad.square().sum((1, 2, 3)).mean()
                adam_d.step(total + r1 * r1_every)

            beta = 0.5 ** (8 / 20)
            ema = {name: beta * p + (1 - beta) * g[name].detach() for name, p in ema.items()}
            rows.append([torch.as_tensor(v).mean().item() for v in (
                loss_d, loss_g, real, fake, r1, path, a)])
        G.w_avg.copy_(w_avg)
        G_ema = small(config, z_dim=8, w_dim=8, fmap_max=8, fmap_base=512, noise_lr=0.1)
        G_ema.load_state_dict(G.state_dict() | ema)
        assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D, G_ema=G_ema)


@pytest.mark.parametrize("stop", [1, 2])
def test_resume_is_exact_between_regularisations(tmp_path, stop):
    again = assert_resumed(go, tmp_path, 4, stop, "--path-every", 2, "--r1-every", 3)
    assert again["a"] > 0


@pytest.mark.parametrize("flags", [("--fmap-max", 9), ("--z-dim", 5), ("--size", 32),
                                   ("--config", "D"), ("--data", "digits"), ("--noise-lr", 1)])
def test_resume_refuses_another_network(tmp_path, capfd, flags):
    go(tmp_path / "run", "--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


def test_paths_without_a_mapping(tmp_path):
    """z is w then: nothing before it has a gradient."""
    go(tmp_path / "run", "--steps", 1, "--mapping-layers", 0)


@pytest.mark.parametrize("flags", [("--batch-size", 6), ("--batch-size", 4, "--accumulate", 2)])
def test_batches_must_hold_groups_of_4(tmp_path, capfd, flags):
    assert main("stylegan2", *tiny("stylegan2", tmp_path / "run", *SMALL, *flags)) == 2
    assert "groups of 4" in capfd.readouterr().err and not (tmp_path / "run").exists()


# Parts of a batch, and several processes

FLAGS = ("--steps", 3, "--lr", 0.02, "--mirror", "--path-every", 2, "--r1-every", 2)


def test_accumulated_parts_are_the_whole_batch(tmp_path):
    with float64():
        assert_same_weights(go(tmp_path / "a", *FLAGS),
                            go(tmp_path / "b", *FLAGS, "--accumulate", 2))


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(tmp_path):
    flags = tiny("stylegan2", tmp_path / "two", *SMALL, *FLAGS)
    two = start_two("stylegan2", *flags)
    with float64():
        one = go(tmp_path / "one", *FLAGS)
    join_two(two)
    assert_same_weights(one, torch.load(tmp_path / "two/ckpt.pt", weights_only=True))


# sample.py

@pytest.fixture
def figures(tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, its G and its checkpoint."""
    def draw(*flags, run=()):
        go(tmp_path / "run", "--steps", 2, "--lr", 0.05, *run)
        grids = caught(monkeypatch, sample)
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *map(str, flags)])
        return grids, *sample.load_generator(tmp_path / "run" / "ckpt.pt")
    return draw


def test_figures(figures, capsys):
    grids, G, ckpt = figures("--seed", 4, "--frames", 12, "--ppl", 20, run=["--keep-every", 1])
    torch.manual_seed(4)
    w = G.mapping(sample.sample_z(256, 8))

    def x(psi):  # in all layers
        return sample.paint(G, G.styles(G.w_avg + psi * (w - G.w_avg)))

    torch.testing.assert_close(G.state_dict(), ckpt["G_ema"], rtol=0, atol=0)
    last = train.sample(G, ckpt["z_fixed"])
    assert torch.allclose(grids["samples.png"].flatten(0, 1), last, atol=1e-5)
    assert torch.allclose(grids["mixing.png"][0, 1:], x(1)[6:11], atol=1e-5)
    assert torch.allclose(grids["mixing.png"][1:, 0], x(1)[:6], atol=1e-5)
    for column, psi in enumerate((1, 0.7, 0.5, 0, -0.5, -1)):
        assert torch.allclose(grids["truncation.png"][:, column], x(psi)[:6], atol=1e-5)
    assert torch.allclose(grids["addends.png"][:, 3], x(1)[:6], atol=1e-5)
    assert torch.allclose(grids["addends.png"][:, :3].sum(1), x(1)[:6], atol=1e-5)
    assert len(grids["walk.gif"]) == 12 and grids["fig4.png"].shape[:2] == (2, 8)
    assert "fig8.png" in capsys.readouterr().out


def test_figures_of_row_b(figures):
    grids, *_ = figures(run=("--config", "B"))
    assert "mixing.png" in grids and "addends.png" not in grids


def test_shares_of_fig_8():
    """Deviations of pixels, not means: of a part that is constant over the samples, none."""
    G, z = small(), torch.randn(40, 6)
    for to_rgb in G.to_rgb[:2]:
        nn.init.zeros_(to_rgb.conv.weight)  # its bias is left
    assert sample.shares(G, z) == pytest.approx([0, 0, 100], abs=1e-4)
    G = small()
    parts = G.parts(G.styles(G.mapping(z)))
    d = torch.stack([part.flatten(2).var((0, 2)).mean().sqrt() for part in parts])
    assert sample.shares(G, z) == pytest.approx((100 * d / d.sum()).tolist(), rel=1e-4)


def test_mixed_styles():
    """Layers as marks: of the 10 of 64x64 four are coarse, four middle, two fine."""
    w_a, w_b = torch.zeros(6, 10, 1), torch.ones(5, 10, 1)
    marks = sample.mixed(w_a, w_b)[..., 0]
    coarse, middle, fine = [1.] * 4 + [0.] * 6, [0.] * 4 + [1.] * 4 + [0.] * 2, [0.] * 8 + [1.] * 2
    assert marks[:, 2].tolist() == [coarse] * 3 + [middle] * 2 + [fine] and not w_a.any()


def test_noise_figure():
    G, w = small(), torch.randn(2, 5)
    x = sample.stochastic(G, G.styles(w), 50).unflatten(0, (2, 7))
    off = [m * 0 for m in G.fixed_noise()]
    assert torch.allclose(x[:, 0], G.synthesis(G.styles(w), off), atol=1e-5)
    assert torch.allclose(x[:, 1], G.synthesis(G.styles(w)), atol=1e-5)
    assert not torch.allclose(x[:, 2], x[:, 3], atol=1e-3) and x[:, 6].max() > -1
    for conv in G.convs:
        conv.noise.zero_()
    x = sample.stochastic(G, G.styles(w), 50).unflatten(0, (2, 7))
    assert (x[:, 6] < -0.99).all()  # black: noise changes nothing


def test_path_length_is_that_of_a_derivative():
    G, w = small(), torch.randn(2, 5, 5)
    lengths = sample.ppl(G, w, [])
    G, w = G.double(), w.double()
    for a, b, length in zip(*w, lengths, strict=True):
        _, slope = torch.autograd.functional.jvp(
            lambda t, a=a, b=b: G.synthesis(G.styles(torch.lerp(a, b, t)[None])),
            torch.zeros(1).double(), torch.ones(1).double())
        assert length.item() == pytest.approx(slope.square().mean().item(), rel=0.02)


@pytest.mark.parametrize("layers, at", [("D", (3, 8, 15, 22, 29)), ("E", (3, 8, 17, 26, 35))])
def test_vgg(tmp_path, layers, at):
    """Of torchvision's own network the features before each pooling; as LPIPS compares them."""
    narrow = [c if c == "M" else c // 64 for c in vgg.cfgs[layers]]
    net = vgg.make_layers(narrow)
    torch.save({f"features.{k}": v for k, v in net.state_dict().items()}, tmp_path / "vgg.pth")
    a, b = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    distance = 0
    for i in at:
        f, g = (F.normalize(net[:i + 1](((x + 1) / 2 - mean) / std)) for x in (a, b))
        distance += (f - g).square().sum(1).mean((1, 2))
    one, other = (sample.look(x, sample.read_vgg(tmp_path / "vgg.pth")) for x in (a, b))
    assert torch.allclose((one - other).square().sum(1), distance, atol=1e-5)


def test_correlation_of_noise():
    """None in white noise, to its own size; all of it in a flat map, at each of its sizes."""
    torch.manual_seed(0)
    assert sample.correlation([torch.randn(1, 1, 64, 64)]) < 0.01
    assert sample.correlation([torch.ones(3, 1, 32, 32)]).item() == pytest.approx(3 * 2 * 3)
    stripes = torch.ones(1, 1, 8, 8)
    stripes[..., ::2] = -1
    assert sample.correlation([stripes]).item() == pytest.approx(2)


def test_projection(tmp_path, monkeypatch, capsys):
    """G's own pictures are found again, nearer than the mean is; the noise stays noise."""
    G, held = small(), []
    for conv in G.convs:
        conv.noise.fill_(0.1)
    x = G(torch.randn(2, 6))
    right = sample.correlation
    monkeypatch.setattr(sample, "correlation", lambda noise: held.append(
        [maps.detach().clone() for maps in noise]) or right(noise))
    torch.manual_seed(0)
    far = (G.synthesis(G.styles(G.mapping(torch.randn(10_000, 6)).mean(0)[None])) - x)
    near, d = sample.project(G, x, 6, [], steps=120)
    assert torch.allclose(d, (near - x).square().mean((1, 2, 3)))
    assert (d < 0.3 * far.square().mean((1, 2, 3))).all()
    assert (held[-1][-1] - held[1][-1]).abs().max() > 0.1  # it is searched for, too
    for maps in held[-1]:
        assert maps.mean((2, 3)).abs().max() < 1e-5
        assert torch.allclose(maps.square().mean((2, 3)), torch.tensor(1.0), atol=1e-4)

    go(tmp_path / "run", "--steps", 1)
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    monkeypatch.setattr(sample, "save_grid", lambda path, x, n, **_: held.append((path.name, x, n)))
    sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), "--project",
                 str(tmp_path / "red.png"), "--project-steps", "2"])
    name, x, n = held[-1]
    assert (name, x.shape, n) == ("projected.png", (4, 3, 16, 16), 1)
    assert torch.equal(x[0, :, 0, 0], torch.tensor([1.0, -1, -1]))
    assert "of G's own" in capsys.readouterr().out


@pytest.mark.parametrize("flags, says", [
    (("--ppl", 3), "--ppl 3"), (("--project", "nowhere"), "nowhere"),
    (("--vgg", "run/ckpt.pt"), "no VGG16"), (("--project-steps", 0), "--project-steps 0"),
    (("--psi", "nan"), "--psi nan")])
def test_wrong_flags_of_sample(tmp_path, monkeypatch, capfd, flags, says):
    monkeypatch.chdir(tmp_path)
    go(tmp_path / "run", "--steps", 1)
    assert main("stylegan2", "--ckpt", "run/ckpt.pt", *flags, script="sample.py") == 2
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "run/figures").exists()


def rosinality(G, old: bool) -> dict:
    """The state of G in the names of the card, and in the shapes of that code."""
    state = {f"style.{i + 1}.{k}": v for i, layer in enumerate(G.mapping.layers)
             for k, v in layer.state_dict().items()}
    state["input.input"] = G.const

    def modulated(name, conv):
        state.update({f"{name}.conv.weight": conv.weight[None],
                      f"{name}.conv.modulation.weight": conv.style.weight,
                      f"{name}.conv.modulation.bias": conv.style.bias})

    for i, conv in enumerate(G.convs):
        name = f"convs.{i - 1}" if i else "conv1"
        modulated(name, conv.conv)
        state[f"{name}.noise.weight"] = conv.noise[None]
        state[f"{name}.activate.bias"] = conv.bias[None, :, None, None] if old else conv.bias
        if i % 2:
            state[f"{name}.conv.blur.kernel"] = torch.ones(4, 4)
        state[f"noises.noise_{i}"] = G.fixed_noise()[i]
    for k, to_rgb in enumerate(G.to_rgb):
        name = f"to_rgbs.{k - 1}" if k else "to_rgb1"
        modulated(name, to_rgb.conv)
        state[f"{name}.bias"] = to_rgb.bias[None, :, None, None]
        if k:
            state[f"{name}.upsample.kernel"] = torch.ones(4, 4)
    return state


@pytest.mark.parametrize("base, average, bare", [
    (32, True, False), (64, False, False), (32, False, True)])
def test_official(tmp_path, monkeypatch, capfd, base, average, bare):
    """Any size and width, with and without latent_avg, in a dict or alone; and sample.py draws."""
    monkeypatch.chdir(tmp_path)
    G = small(size=32, z_dim=6, w_dim=6, fmap_base=base, mapping_layers=3)
    G.w_avg.normal_()
    state = rosinality(G, old=bare)
    theirs = {"g_ema": state} | ({"latent_avg": G.w_avg} if average else {})
    torch.save(state if bare else theirs, "theirs.pt")
    ours, ckpt = sample.load_generator("theirs.pt")
    z = torch.randn(3, 6)
    assert torch.allclose(ours(z), G(z), atol=1e-5)
    if average:
        assert torch.equal(ours.w_avg, G.w_avg)
    else:
        mean = G.mapping(torch.randn(20_000, 6)).mean(0)
        assert torch.allclose(ours.w_avg, mean, atol=0.05) and ours.w_avg.abs().max() > 0
    assert ckpt["args"]["size"] == 32 and ckpt["z_fixed"].shape == (64, 6)
    assert main("stylegan2", "--official", "theirs.pt", "--frames", 2, script="sample.py") == 0
    assert (tmp_path / "figures" / "addends.png").exists()
    assert main("stylegan2", "--official", "theirs.pt", "--real", "r", script="sample.py") == 2
    assert "--real: no data" in capfd.readouterr().err


def test_generate():
    """On new noise each, truncated if asked; in chunks, as many as asked for."""
    G = small(size=8)
    ckpt = {"args": {"z_dim": 6}, "z_fixed": torch.zeros(1, 6)}
    assert [len(part) for part in sample.generate(G, ckpt, 260)] == [250, 10]

    def pictures(psi=1.0):
        return torch.cat(list(sample.generate(G, ckpt, 3, 0, psi)))

    assert pictures().shape == (3, 3, 8, 8) and torch.equal(pictures(), pictures())
    assert pictures(0.0).std(0).max() > 1e-3  # of one w: the noise
    for conv in G.convs:
        conv.noise.zero_()
    assert pictures(0.0).std(0).max() < 1e-5 < pictures().std(0).max()
