"""spade/: modulation by label maps, PatchGANs of two scales, G before D, one or two processes."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64, join_two, start_two
from conftest import FORK, assert_resume_refused, caught, load, main, n_parameters, tiny
from PIL import Image
from torch import nn
from torchvision.models import vgg

from common import builtin, data
from common.images import PALETTE

model, train, sample = (load("spade", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data", "place")
BLOCKS = "head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3"
SMALL = "--width", 2, "--hidden", 3, "--width-d", 3, "--z-dim", 5, "--sample-every", 100


def trained(*flags) -> dict:
    """The checkpoint of a run in run/ of these flags."""
    args = train.parse_args(tiny("spade", "run", *SMALL, *flags))
    train.train(args)
    return torch.load(f"{args.out}/ckpt.pt", weights_only=True)


def write_set(folder: str, n=(12, 4), inst=True, side=48, top=3) -> None:
    """Photos whose first channel tells the id, 20 times it; ids 0..top and 255; instances."""
    rng = np.random.default_rng(0)
    for split, number in zip(("train", "val"), n, strict=True):
        for kind in ("img", "label", *["inst"] * inst):
            Path(folder, f"{split}_{kind}").mkdir(parents=True)
        for i in range(number):
            y = rng.integers(top + 2, size=(side // 8, side // 8), dtype="u1").repeat(8, 0)
            y = y.repeat(8, 1)
            x = np.stack([20 * y, *rng.integers(256, size=(2, side, side), dtype="u1")], 2)
            Image.fromarray(x).save(f"{folder}/{split}_img/{i}.png")
            Image.fromarray(np.where(y > top, 255, y).astype("u1")).save(
                f"{folder}/{split}_label/{i}.png")
            if inst:
                Image.fromarray(y // 2).save(f"{folder}/{split}_inst/{i}.png")


def heavy(net: nn.Module, std: float = 0.3) -> nn.Module:
    """Weights that show in what a network returns."""
    for p in net.parameters():
        nn.init.normal_(p, 0, std)
    return net


def exaggerate(ckpt: dict) -> None:
    """The run's G gets weights that show."""
    for name, t in ckpt["G"].items():
        if name.endswith(("weight", "bias", "orig")):
            t.normal_(0, 0.3)
    torch.save(ckpt, "run/ckpt.pt")


# The networks

def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    assert (args.size, args.width, args.hidden, args.width_d, args.layers_d, args.z_dim) == (
        256, 64, 128, 64, 4, 256)
    assert (args.batch_size, args.lr, args.lr_d, args.beta2) == (32, 1e-4, 4e-4, 0.9)
    assert (args.lambda_feat, args.lambda_vgg, args.lambda_kld) == (10, 10, 4 * 0.05)
    assert args.steps == 200 * (20_210 // 32) == 2 * args.decay
    assert round(args.size * args.jitter) == 286 and args.flip


@pytest.mark.parametrize("n, size, z_dim, count, of_d", [
    (151, 256, 0, 96_492_483, 5_836_930), (184, 256, 0, 97_480_899, 5_904_514),
    (36, 512, 0, 93_048_003, 5_601_410), (13, 256, 0, 92_359_107, 5_554_306),
    (184, 256, 256, 112_626_883, None), (151, 256, 256, 111_942_595, None)])
def test_parameter_counts(n, size, z_dim, count, of_d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(n, size, z_dim=z_dim)) == count
        assert of_d is None or n_parameters(model.Discriminator(n)) == of_d
        assert n_parameters(model.Encoder()) == 10_463_424
        if (n, z_dim) == (151, 0):  # 150 classes and unknown
            assert model.n_maps(150, 255, False) == n
            assert n_parameters(model.Generator()) == count
            assert n_parameters(model.Discriminator()) == of_d
            assert len(model.Generator().state_dict()) == 234


def test_shapes():
    seen = []
    with torch.device("meta"):
        G = model.Generator(5)
        for name in BLOCKS:
            getattr(G, name).register_forward_hook(lambda m, x, y: seen.append(y.shape[1:3]))
        assert G(torch.empty(2, 5, 256, 256)).shape == (2, 3, 256, 256)
        assert seen == [(1024, 8), (1024, 16), (1024, 16), (512, 32), (256, 64), (128, 128),
                        (64, 256)]
        D = model.Discriminator(5)
        maps = D(torch.empty(2, 5, 256, 256), torch.empty(2, 3, 256, 256))
        assert [[tuple(x.shape[1:3]) for x in scale] for scale in maps] == [
            [(64, 129), (128, 65), (256, 33), (512, 34), (1, 35)],
            [(64, 65), (128, 33), (256, 17), (512, 18), (1, 19)]]  # padding 2
        for size, start in zip(model.SIZES, (2, 2, 4, 8, 8), strict=True):
            assert size >> model.Generator(5, size, 1, 1, 1).n_up == start
            mu, logvar = model.Encoder(size, 1, 1, 7)(torch.empty(2, 1, size, size))
            assert mu.shape == logvar.shape == (2, 7)
        assert model.Generator(5)(torch.empty(2, 5, 256, 512)).shape == (2, 3, 256, 512)


def test_initialisation():
    torch.manual_seed(0)
    nets = model.Generator(20, width=16), model.Discriminator(20), model.Encoder(32)
    for name, m in ((name, m) for net in nets for name, m in net.named_modules()):
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            assert m.bias is None or (m.bias == 0).all()
            fans = nn.init._calculate_fan_in_and_fan_out(m.weight)
            if hasattr(m, "weight_orig"):  # torch's own: uniform, of variance 1 / (3 fan_in)
                std = (3 * fans[0]) ** -0.5
                assert m.weight_orig.std().item() == pytest.approx(std, rel=0.1), name
            else:
                std = 0.02 * (2 / sum(fans)) ** 0.5
                assert m.weight.std().item() == pytest.approx(std, rel=0.1), name


# The networks, written out again. p: what a state_dict holds

def conv(p, name, x, **options):
    return F.conv2d(x, p[f"{name}.weight"], p.get(f"{name}.bias"), **options)


def spectral(p, name, x, **options):
    """After one step of the power method, as in training."""
    w, u = p[f"{name}.weight_orig"], p[f"{name}.weight_u"]
    v = F.normalize(w.flatten(1).T @ u, dim=0)
    sigma = (w.flatten(1) @ v).norm()
    return F.conv2d(x, w / sigma, p.get(f"{name}.bias"), **options)


def plain_spade(p, name, x, m):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    h = conv(p, f"{name}.mlp_shared.0", m, padding=1).relu()
    gamma, beta = (conv(p, f"{name}.mlp_{kind}", h, padding=1) for kind in ("gamma", "beta"))
    return (x - mean) / (var + 1e-5).sqrt() * (1 + gamma) + beta


def plain_block(p, name, x, m):
    m = m[:, :, ::m.shape[2] // x.shape[2], ::m.shape[3] // x.shape[3]]  # nearest
    y = F.leaky_relu(plain_spade(p, f"{name}.norm_0", x, m), 0.2)
    y = F.leaky_relu(plain_spade(p, f"{name}.norm_1", spectral(p, f"{name}.conv_0", y, padding=1),
                                 m), 0.2)
    y = spectral(p, f"{name}.conv_1", y, padding=1)
    if f"{name}.conv_s.weight_orig" in p:
        x = spectral(p, f"{name}.conv_s", plain_spade(p, f"{name}.norm_s", x, m))
    return x + y


def plain_g(p, m, z=None, n_up=5):
    k = 2 ** n_up
    if z is None:
        x = conv(p, "fc", m[:, :, ::k, ::k], padding=1)
    else:
        x = F.linear(z, p["fc.weight"], p["fc.bias"]).view(len(z), -1, m.shape[2] // k,
                                                           m.shape[3] // k)
    for i, name in enumerate(BLOCKS):
        if i > 2 or 0 < i < n_up - 3:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = plain_block(p, name, x, m)
    return conv(p, "conv_img", F.leaky_relu(x, 0.2), padding=1).tanh()


def norm(x):
    return F.instance_norm(x, eps=1e-5)


def plain_d(p, m, x, n_layers):
    """Of two scales the maps of all layers."""
    x, scales = torch.cat([m, x], 1), []
    ones = F.avg_pool2d(torch.ones_like(x), 3, 2, 1)
    for k, h in enumerate((x, F.avg_pool2d(x, 3, 2, 1) / ones)):  # what is padded does not count
        h, maps = F.leaky_relu(conv(p, f"scales.{k}.layers.0.0", h, stride=2, padding=2), 0.2), []
        maps.append(h)
        for i in range(1, n_layers):
            h = spectral(p, f"scales.{k}.layers.{i}.0", h, stride=2 if i < n_layers - 1 else 1,
                         padding=2)
            maps.append(h := F.leaky_relu(norm(h), 0.2))
        scales.append([*maps, conv(p, f"scales.{k}.layers.{n_layers}", h, padding=2)])
    return scales


@pytest.mark.parametrize("size, z_dim", [(32, 0), (64, 5), (512, 0)])
def test_g_by_hand(size, z_dim):
    with float64():
        torch.manual_seed(0)
        G = heavy(model.Generator(4, size, 3, 2, 3, z_dim))
        m = model.semantics(torch.randint(4, (2, min(size, 64), min(size, 128))), 4)
        z = torch.randn(2, z_dim) if z_dim else None
        p = {name: t.clone() for name, t in G.state_dict().items()}
        x = plain_g(p, m, z, {32: 4, 64: 5, 512: 6}[size])
        torch.testing.assert_close(G(m, z), x, rtol=1e-9, atol=1e-9)
        assert x.std() > 0.05


def test_d_and_e_by_hand():
    with float64():
        torch.manual_seed(0)
        D, E = heavy(model.Discriminator(4, 3, 2, 3)), heavy(model.Encoder(32, 3, 2, 5))
        m, x = torch.rand(2, 4, 32, 32), torch.randn(2, 3, 32, 32)
        p, q = ({name: t.clone() for name, t in net.state_dict().items()} for net in (D, E))
        torch.testing.assert_close(D(m, x), plain_d(p, m, x, 3), rtol=1e-9, atol=1e-9)
        h = x
        for i in (0, 3, 6):
            h = F.leaky_relu(norm(spectral(q, f"net.{i}", h, stride=2, padding=1)), 0.2)
        mu, logvar = (F.linear(h.flatten(1), q[f"{name}.weight"], q[f"{name}.bias"])
                      for name in ("fc_mu", "fc_var"))
        torch.testing.assert_close(E(x), (mu, logvar), rtol=1e-9, atol=1e-9)


def test_semantics():
    y = torch.tensor([[[0, 2, 2], [0, 9, 1]]])
    i = torch.tensor([[[5, 5, 5], [5, 5, 7]]])
    m = model.semantics(y, 3, 9, i)
    assert m.shape == (1, model.n_maps(3, 9, True), 2, 3)
    for k in range(3):
        assert torch.equal(m[:, k], (y == k).float())
    assert torch.equal(m[:, 3], (y == 9).float())
    assert m[0, 4].tolist() == [[0, 0, 1], [0, 1, 1]]  # left and up are neighbours, corners are not
    assert model.semantics(y.clamp(max=2), 3).shape[1] == model.n_maps(3, -1, False) == 3


def test_pictures_do_not_depend_on_their_neighbours():
    """In sample(), which leaves the averages alone; in training they do."""
    G = heavy(model.Generator(4, 32, 3, 2, 3))
    y, x = torch.randint(4, (5, 32, 32)), torch.rand(5, 3, 32, 32)
    m = model.semantics(y, 4)
    before = {name: t.clone() for name, t in G.state_dict().items()}
    rows = train.sample(G, x, y, m, None)
    assert torch.allclose(rows[6:9], train.sample(G, x[2:3], y[2:3], m[2:3], None), atol=1e-5)
    assert torch.equal(rows[2::3], x) and torch.equal(rows[::3], train.painted(y)) and G.training
    assert all(torch.equal(t, before[name]) for name, t in G.state_dict().items())
    assert not torch.allclose(rows[1::3], G(m), atol=1e-3)
    assert ((train.painted(y)[0, :, 0, 0] + 1) * 127.5).round().tolist() == \
        PALETTE[y[0, 0, 0]].tolist()


# The losses, the windows

def test_losses_are_the_textbooks():
    torch.manual_seed(0)
    real, fake = ([3 * torch.randn(4, 1, k, k) for k in (5, 3)] for _ in range(2))
    zero, expected = torch.tensor(0.0), 0
    for r, f in zip(real, fake, strict=True):
        expected += (torch.maximum(zero, 1 - r).mean() + torch.maximum(zero, 1 + f).mean()) / 2
    assert train.d_loss(real, fake).item() == pytest.approx(expected.item())
    assert train.d_loss([zero, zero], [zero, zero]).item() == 2  # the two halves are not halved
    assert train.g_loss(fake).item() == pytest.approx(-(fake[0].mean() + fake[1].mean()).item() / 2)
    mu, logvar = torch.randn(2, 4, 6)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mu, (logvar / 2).exp()), normal(0.0, 1.0))
    assert train.kld(mu, logvar).item() == pytest.approx(divergence.sum().item() / 4, rel=1e-5)


def test_feature_matching():
    real, fake = ([[torch.randn(2, c, s, s, requires_grad=True) for c, s in (
        (4, 9 // k), (8, 5), (1, 4))] for k in (1, 2)] for _ in range(2))
    loss = train.feature_loss(real, fake)
    expected = sum((real[k][i] - fake[k][i]).abs().mean() for k in (0, 1) for i in (0, 1)) / 2
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert all(t.grad is None for scale in real for t in scale)
    assert [[t.grad is not None for t in scale] for scale in fake] == [[True, True, False]] * 2


def test_one_window_for_photo_and_maps():
    y = torch.arange(18 * 18).view(1, 18, 18).repeat(400, 1, 1)
    x = torch.stack([y, y, y], 1).double()
    torch.manual_seed(0)
    a, b, c = train.crop_and_flip([x, y, 2 * y], 16, True, 400, slice(None))
    assert torch.equal(a[:, 1].long(), b) and torch.equal(2 * b, c) and b.dtype == y.dtype
    steps = b[:, 0, 1] - b[:, 0, 0]
    assert set(steps.tolist()) == {1, -1} and 150 < (steps > 0).sum() < 250
    corners = {(k // 18, k % 18) for k in torch.where(steps > 0, b[:, 0, 0], b[:, 0, 15]).tolist()}
    assert corners == {(top, left) for top in range(3) for left in range(3)}
    assert torch.equal(b[:, 1] - b[:, 0], torch.full_like(b[:, 0], 18))
    torch.manual_seed(0)
    part, = train.crop_and_flip([y[1::2]], 16, True, 400, slice(1, None, 2))
    assert torch.equal(part, b[1::2])  # the second of two processes
    torch.manual_seed(0)
    assert (torch.diff(train.crop_and_flip([y], 16, False, 400, slice(None))[0]) == 1).all()


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Weights by the names of torchvision's vgg19, and its layers."""
    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs["E"])
    file = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{name}": t for name, t in layers.state_dict().items()}
               | {"classifier.0.weight": torch.ones(2)}, file)
    return file, layers.requires_grad_(False)


def test_vgg_loss(vgg_file):
    file, layers = vgg_file
    net = train.load_vgg(str(file))
    x, x_fake = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    x_fake.requires_grad_()
    loss, expected = train.vgg_loss(net, x, x_fake), 0
    for layer, weight in ((1, 1 / 32), (6, 1 / 16), (11, 1 / 8), (20, 1 / 4), (29, 1)):
        f, r = layers[:layer + 1](x_fake), layers[:layer + 1](x)
        expected += weight * (f - r).abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for value in (loss, expected):
        value.backward()
    assert x_fake.grad.abs().sum() > 0 and not any(p.requires_grad for p in net.parameters())


def test_vgg_by_flag(vgg_file, place, capfd):
    flags = "--steps", 1, "--vgg", os.path.relpath(vgg_file[0])
    with_it, without = (trained(*flags, "--lambda-vgg", w, "--out", f"run{w}") for w in (10, 0))
    head, row = Path("run10/log.csv").read_text().splitlines()
    assert "VGG" in head.split(",") and with_it["args"]["vgg"] == str(vgg_file[0])
    assert not torch.equal(with_it["G"]["conv_img.weight"], without["G"]["conv_img.weight"])
    torch.save({"weight": torch.ones(2)}, "other.pth")
    for file in ("nowhere.pth", "other.pth"):
        assert main("spade", *tiny("spade", "new", *SMALL, "--vgg", file)) == 2
        err = capfd.readouterr().err
        assert file in err and "vgg19" in err and err.count("\n") == 1
    assert not Path("new").exists()


# Whole steps, written out again

@pytest.mark.parametrize("kind", ["faces", "instances, encoder"])
def test_three_steps(kind):
    """G and E first, on one pass of fake and real; then D, on new fakes of the new G."""
    flags, name, z_dim, n, decay, flip = (), "faces", 0, 14, 0, True
    if kind != "faces":
        write_set("set")
        flags, name, z_dim, n, decay, flip = (
            "--data", "set", "--encoder", "--decay", 2, "--no-flip"), "set", 5, 6, 2, False

    with float64():
        trained("--steps", 3, "--seed", 5, *flags)
        torch.manual_seed(5)
        held = data.load_label_maps(name, 32, split="test", ignore=255)
        torch.randn(len(held[:12][0]), 5)  # the run's fixed z
        G, D = model.Generator(n, 32, 3, 2, 3, z_dim), model.Discriminator(n, 3, 3, 3)
        E = model.Encoder(32, 3, 2, z_dim) if z_dim else None
        of_g = [*G.parameters(), *(E.parameters() if E else ())]
        opt_g, opt_d = Adam(of_g, 0.0, 0.9), Adam(D.parameters(), 0.0, 0.9)
        batches, rows = data.load_label_maps(name, 36, ignore=255).batches(4, seed=5), []
        for step in (1, 2, 3):
            torch.manual_seed(5 * 1_000_003 + step)
            fields = next(batches)
            top, left = torch.randint(5, (2, 4)).tolist()
            mirrored = [flip and k for k in (torch.rand(4) < 0.5).tolist()]
            x, y, *i = (torch.stack([
                one[..., t:t + 32, s:s + 32].flip(-1) if k else one[..., t:t + 32, s:s + 32]
                for one, t, s, k in zip(field, top, left, mirrored, strict=True)])
                for field in fields)
            m = F.one_hot(torch.where(y == 255, n - 1 - len(i), y), n - len(i))
            m = m.permute(0, 3, 1, 2).double()
            for inst in i:  # 1 where a neighbour is another instance
                padded = F.pad(inst[:, None].double(), (1, 1, 1, 1), "replicate")[:, 0]
                near = [padded[:, 1 + a:33 + a, 1 + b:33 + b] for a, b in (
                    (0, 1), (0, -1), (1, 0), (-1, 0))]
                m = torch.cat([m, (torch.stack(near, 1) != inst[:, None]).any(1, True)], 1)
            share = min(1, (4 - step) / 2) if decay else 1

            def style(x=x):
                mu, logvar = E(x)
                z = mu + torch.exp(0.5 * logvar) * torch.randn(4, 5)
                return z, -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).sum() / 4

            z, divergence = style() if E else (None, torch.tensor(0.0))
            x_fake = G(m, z)
            scales = D(m.repeat(2, 1, 1, 1), torch.cat([x_fake, x]))
            features = sum((layer[:4] - layer[4:].detach()).abs().mean()
                           for scale in scales for layer in scale[:-1]) / 2
            loss_g = (-sum(scale[-1][:4].mean() for scale in scales) / 2 + 10 * features
                      + 0.2 * divergence)
            opt_g.step(loss_g, 5e-4 * share)

            with torch.no_grad():
                x_fake = G(m, style()[0] if E else None)
            scales = [scale[-1] for scale in D(m.repeat(2, 1, 1, 1), torch.cat([x_fake, x]))]
            loss_d = sum((1 + f[:4]).relu().mean() + (1 - f[4:]).relu().mean() for f in scales) / 2
            opt_d.step(loss_d, 1e-3 * share)
            rows.append([v.item() for v in (
                loss_d, loss_g, features, *[divergence] * bool(E),
                sum(f[4:].mean() for f in scales) / 2, sum(f[:4].mean() for f in scales) / 2)])
        assert_same_run(Path("run"), rows, 1e-8, G=G, D=D, **({"E": E} if E else {}))


@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(place):
    """Batch norm's statistics, and their gradients, are of the whole batch; so are the windows."""
    flags = ("--steps", 3, "--encoder", "--lr", 0.01)
    two = start_two("spade", *tiny("spade", place / "two", *SMALL, *flags))
    with float64():
        one = trained(*flags)
    join_two(two)
    other = torch.load("two/ckpt.pt", weights_only=True)
    for name in ("G", "D", "E"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-7, atol=1e-7)


# Data

def test_held_out_maps(place, capfd):
    """The val split; of a folder without one the last sixth, that is not trained on."""
    write_set("set")
    args = train.parse_args(["--data", "set"])
    pairs, held = train.load_data(args, {})
    assert (len(pairs), pairs.size, len(held), held.size) == (12, 36, 4, 32)
    assert len(pairs.classes) == 4 and len(pairs[:1]) == 3
    Image.fromarray(np.full((48, 48), 4, "u1")).save("set/val_label/2.png")
    with pytest.raises(SystemExit):
        train.load_data(args, {})
    err = capfd.readouterr().err
    assert "val_label/2.png (id 4, but the classes are 0..3)" in err and err.count("\n") == 1
    args.classes = 5  # the training set lacks one of them
    assert len(train.load_data(args, {})[0].classes) == 5
    args.classes = 0
    for kind in ("img", "label", "inst"):
        for file in Path(f"set/val_{kind}").iterdir():
            file.unlink()
        Path(f"set/val_{kind}").rmdir()
    pairs, held = train.load_data(args, {})
    assert (len(pairs), len(held)) == (10, 2)
    assert torch.equal(pairs[[9]][1] % 256, data.load_label_maps("set", 36, ignore=255)[[9]][1])
    trained("--data", "set", "--steps", 1, "--batch-size", 2)
    ckpt = torch.load("run/ckpt.pt", weights_only=True)
    assert torch.equal(sample.held_out(ckpt)[:][1], ckpt["y_fixed"])


def test_instances_in_one_split_alone(place, capfd):
    write_set("set")
    for file in Path("set/val_inst").iterdir():
        file.unlink()
    Path("set/val_inst").rmdir()
    assert main("spade", *tiny("spade", "run", *SMALL, "--data", "set")) == 2
    assert "instance maps" in capfd.readouterr().err


@pytest.mark.parametrize("flags", [("--size", 64), ("--hidden", 4), ("--encoder",),
                                   ("--layers-d", 2), ("--unknown", -1)])
def test_resume_refuses_another_network(capfd, flags):
    trained("--steps", 1)
    assert_resume_refused(train, Path("run"), capfd, flags)


# sample.py

@pytest.fixture
def drawn(monkeypatch):
    """What sample.py draws of the run, by file name."""
    def draw(*flags):
        grids = caught(monkeypatch, sample)
        sample.main(["--ckpt", "run/ckpt.pt", *map(str, flags)])
        return grids
    return draw


def test_figures(drawn, capfd):
    ckpt = trained("--steps", 2, "--encoder", "--lr", 0.01)
    y = ckpt["y_fixed"]
    grids = drawn("--edit", "hat=hair,5=skin", "--frames", 3)
    rows = grids["samples.png"].flatten(0, 1).unflatten(0, (12, 3))
    held = data.load_label_maps("faces", 32, split="test")[:12]
    assert torch.equal(rows[:, 0], train.painted(y)) and torch.equal(rows[:, 2], held[0])
    hat, hair = (builtin.PARTS.index(name) for name in ("hat", "hair"))
    assert len(grids["edit.png"]) < 12 and not (grids["edit.png"][:, 0] == grids["edit.png"][:, 2]
                                                ).flatten(1).all(1).any()
    new = sample.edited(y, "hat=hair,5=skin", ckpt["classes"])
    assert torch.equal(new == hair, (y == hair) | (y == hat)) and (new != 5).all()
    assert len(grids["latents.png"][0].unique(dim=0)) == 8  # a label map, seven different outputs
    assert torch.equal(grids["styles.png"][0, 1:], held[0][-7:])
    assert torch.equal(grids["styles.png"][1:, 0], train.painted(y[:6]))
    G, _ = sample.load_generator("run/ckpt.pt")
    z = sample.style_of(held[0][5:6], ckpt)
    assert torch.allclose(sample.paint(G, ckpt, y[:6], z=z.expand(6, -1)),
                          grids["styles.png"][1:, 1], atol=1e-5)
    assert len(grids["walk.gif"]) == 3
    assert len(grids["classes.png"]) == len(y.unique())
    for flags, says in (("--edit hat=", "--edit"), ("--edit wig=hair", "wig"),
                        ("--instances x", "instance")):
        assert main("spade", "--ckpt", "run/ckpt.pt", *flags.split(), script="sample.py") == 2
        err = capfd.readouterr().err
        assert says in err and err.count("\n") == 1


def test_input(place, capfd):
    write_set("set", inst=False)
    exaggerate(trained("--steps", 1, "--data", "set", "--encoder", "--batch-size", 2))
    flags = "--ckpt", "run/ckpt.pt", "--input"

    def call(*more) -> tuple[int, str]:
        code = main("spade", *flags, *more, script="sample.py")
        return code, capfd.readouterr().err

    assert call("set/val_label", "--out", "all")[0] == 0
    assert call("set/val_label/1.png", "--out", "one")[0] == 0
    one, among = (np.asarray(Image.open(f"{out}/1.png")) for out in ("one", "all"))
    assert one.shape == (32, 32, 3) and np.array_equal(one, among)
    assert call("set/val_label/1.png", "--out", "style", "--style", "set/val_img")[0] == 0
    assert not np.array_equal(np.asarray(Image.open("style/1.png")), one)
    assert call("set/val_label/1.png", "--out", "edit", "--edit", "0=1")[0] == 0
    assert not np.array_equal(np.asarray(Image.open("edit/1.png")), one)
    before = sorted(place.rglob("*"))
    Image.fromarray(np.full((40, 40), 7, "u1")).save("seven.png")
    for more, says in ((["seven.png", "--out", "o"], "id 7, but the run's are 0..3"),
                       (["set/val_img", "--out", "o"], "mode RGB"), (["set"], "--out"),
                       (["set/val_label", "--out", "set/val_label/new"], "lies in --input"),
                       (["set/val_label/1.png", "--out", "set/val_label"], "lies in --input"),
                       (["nowhere", "--out", "o"], "nowhere"),
                       (["set/val_label", "--each", "o"], "--each"),
                       (["set/val_label", "--out", "o", "--style", "seven"], "seven")):
        code, err = call(*more)
        assert code == 2 and says in err and err.count("\n") == 1, err
    assert sorted(place.rglob("*")) == sorted([*before, place / "seven.png"])


def test_instances_of_an_input(place):
    write_set("set")
    exaggerate(trained("--steps", 1, "--data", "set"))
    for out, more in (("own", ["--instances", "set/val_inst"]), ("label", []),
                      ("same", ["--instances", "set/val_label"])):
        assert main("spade", "--ckpt", "run/ckpt.pt", "--input", "set/val_label", "--out", out,
                    *more, script="sample.py") == 0
    own, label, same = (Path(out, "0.png").read_bytes() for out in ("own", "label", "same"))
    assert own != label == same


# The authors' checkpoints

HIDDEN = 4  # theirs have 128


def their_names(n: int, width: int, z_dim: int = 0) -> dict[str, tuple[int, ...]]:
    """latest_net_G.pth of their code: names and shapes."""
    shapes = {"conv_img.weight": (3, width, 3, 3), "conv_img.bias": (3,), "fc.bias": (16 * width,),
              "fc.weight": (16 * width, n, 3, 3)}
    if z_dim:
        shapes |= {"fc.weight": (16 * width * 64, z_dim), "fc.bias": (16 * width * 64,)}
    widths = [width * k for k in (16, 16, 16, 16, 8, 4, 2, 1)]
    for name, a, b in zip(BLOCKS, widths[:-1], widths[1:], strict=True):
        convs = {"0": (b, a, 3), "1": (b, b, 3)} | ({"s": (b, a, 1)} if a != b else {})
        for kind, (c_out, c_in, side) in convs.items():
            conv, norm = f"{name}.conv_{kind}", f"{name}.norm_{kind}"
            shapes |= {f"{conv}.weight_orig": (c_out, c_in, side, side),
                       f"{conv}.weight_u": (c_out,), f"{conv}.weight_v": (c_in * side * side,)}
            if kind != "s":
                shapes[f"{conv}.bias"] = (c_out,)
            shapes |= {f"{norm}.param_free_norm.running_mean": (c_in,),
                       f"{norm}.param_free_norm.running_var": (c_in,),
                       f"{norm}.param_free_norm.num_batches_tracked": (),
                       f"{norm}.mlp_shared.0.weight": (HIDDEN, n, 3, 3),
                       f"{norm}.mlp_shared.0.bias": (HIDDEN,)}
            for part in ("gamma", "beta"):
                shapes |= {f"{norm}.mlp_{part}.weight": (c_in, HIDDEN, 3, 3),
                           f"{norm}.mlp_{part}.bias": (c_in,)}
    return shapes


def write_official(n: int, width: int = 1, z_dim: int = 0) -> None:
    torch.manual_seed(0)
    shapes = their_names(n, width, z_dim)
    assert z_dim or len(shapes) == 234
    torch.save({name: torch.tensor(1) if "num" in name else torch.rand(shape) + 0.5 if "var" in name
                else torch.randn(shape) * 0.1 for name, shape in shapes.items()}, "net_G.pth")


@pytest.mark.parametrize("n, ids, size, z_dim", [
    (184, [0, 181, 255], 256, 0), (151, [0, 1, 150], 256, 8), (36, [0, 34], 512, 0)])
def test_official(place, n, ids, size, z_dim):
    write_official(n, z_dim=z_dim)
    Image.fromarray(np.array(ids, "u1").repeat(20)[None].repeat(60, 0)).save("map.png")
    assert main("spade", "--official", "net_G.pth", "--input", "map.png", "--out", "out",
                script="sample.py") == 0
    assert Image.open("out/map.png").size == (size, size)
    if n == 151:  # their files have 0 for unknown, and classes from 1 on
        _, ckpt = sample.load_generator("net_G.pth")
        args = sample.argparse.Namespace(input=Path("map.png"), out=Path("o"), instances=None)
        (_, (y,)), = sample.read_maps(args, ckpt)
        assert y[0, 0, ::128].tolist() == [255, 0] and y.max() == 255 and (y == 149).any()


def test_official_refusals(place, capfd):
    Image.fromarray(np.zeros((40, 40), "u1")).save("map.png")
    flags = "--official", "net_G.pth", "--input", "map.png", "--out", "out"
    write_official(7)
    assert main("spade", *flags, script="sample.py") == 2
    assert "takes 7 channels" in capfd.readouterr().err
    write_official(151)
    for more in ([], ["--each", "each"], ["--real", "real"], [*flags[2:], "--style", "map.png"]):
        assert main("spade", *flags[:2], *more, script="sample.py") == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and "--" in err
