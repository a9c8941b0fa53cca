"""lsgan/: the layers of the authors' code, a score without a sigmoid, Eqs. 2, 8 and 9, Sec. 4.3."""
import math

import pytest
import torch
from algorithm import Adam, assert_same_run, float64
from conftest import (
    assert_no_neighbours,
    assert_reaches_both_ends,
    assert_resume_refused,
    assert_uniform,
    caught,
    feature_maps,
    kinds,
    load,
    n_parameters,
    parser,
    tiny,
)
from torch import nn

from common import data

model, train, sample, mixture = (
    load("lsgan", module) for module in ("model", "train", "sample", "mixture"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = "--width", 4, "--z-dim", 20
HALVINGS = {16: (2, 4), 28: (2, 7), 32: (3, 4), 48: (3, 6), 64: (4, 4), 96: (4, 6), 112: (4, 7),
            128: (5, 4), 256: (6, 4)}  # --size -> doublings of G, from a map of side 4 to 7


# The paper's setting

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.batch_size, args.z_dim) == (112, 64, 64, 1024)
    assert (args.lr, args.beta1, args.steps) == (1e-3, 0.5, 1_000_000)
    assert (args.data, args.scheme, args.bn) == ("lsun/bedroom", "0-1", True)


@pytest.mark.parametrize("size, channels, z_dim, bn, g, d", [
    (112, 3, 1024, True, 15_591_427, 4_333_441),  # [authors' code]
    (32, 1, 1024, True, 5_749_889, 1_030_913),
    (28, 1, 1024, True, 13_227_905, 213_121),
    (112, 3, 1024, False, 15_591_427 - 2 * (5 * 256 + 128 + 64), 4_333_441)])
def test_parameter_counts(size, channels, z_dim, bn, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, channels, z_dim, 64, bn)) == g
        assert n_parameters(model.Discriminator(size, channels, 64)) == d
        if (size, bn) == (112, True):
            assert n_parameters(model.Generator()) == g
            assert n_parameters(model.Discriminator()) == d


@pytest.mark.parametrize("size", parser("lsgan")._option_string_actions["--size"].choices)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, channels):
    with torch.device("meta"):
        G, D = model.Generator(size, channels, 10, 4), model.Discriminator(size, channels, 4)
        of_g, of_d = feature_maps(G, D)
        x = G(torch.empty(3, 10))
        assert x.shape == (3, channels, size, size) and D(x).shape == (3,)
    n, side = HALVINGS[size]
    sides = [side << i for i in range(n + 1)]  # of 112: 7, 14, 28, 56, 112
    assert of_d == [(4 * min(2 ** i, 8), s, s) for i, s in enumerate(sides[-2::-1])]
    assert of_g == [*[(16, s, s) for s in sides[1:-2] for _ in range(2)],
                           (8, *sides[-2:-1] * 2), (4, size, size), (channels, size, size)]


@pytest.mark.parametrize("size", [0, 4, 8, 14, 22, 33, 36, 100])
def test_other_sizes_are_refused(size):
    for net in (model.Generator, model.Discriminator):
        with pytest.raises(ValueError, match="power of two"):
            net(size)


def test_layers():
    G, D = model.Generator(112, 3, 10, 4), model.Discriminator(112, 3, 4)
    up, down, norm = nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d
    assert kinds(G) == [nn.Linear, nn.Unflatten, norm, nn.ReLU, *[up, norm, nn.ReLU] * 6, up,
                        nn.Tanh]
    assert kinds(D) == [down, nn.LeakyReLU, *[down, norm, nn.LeakyReLU] * 3,
                        nn.Flatten, nn.Linear]  # and no sigmoid
    layers = [m for m in G.modules() if isinstance(m, up)]
    assert [(m.kernel_size[0], m.stride[0]) for m in layers] == [
        (3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 1)]
    for m in (*G.modules(), *D.modules()):
        if isinstance(m, (up, down, nn.Linear)):
            assert m.bias is not None
        if isinstance(m, down):
            assert (m.kernel_size, m.stride) == ((5, 5), (2, 2))
        if isinstance(m, nn.LeakyReLU):
            assert m.negative_slope == 0.2
        if isinstance(m, norm):
            assert (m.eps, m.momentum, m.affine) == (1e-5, 0.1, True)


def test_a_score_is_any_number():
    """A sigmoid would keep it in (0, 1), a ReLU above 0; doubled weights would not double it."""
    torch.manual_seed(0)
    D, x = model.Discriminator(16, 1, 4), torch.rand(200, 1, 16, 16) * 2 - 1
    one = D(x)
    with torch.no_grad():
        D.net[-1].weight.mul_(1000)
        D.net[-1].bias.fill_(0)
    assert torch.allclose(D(x), 1000 * one, rtol=1e-3, atol=1e-3)
    assert D(x).min() < -1 and D(x).max() > 2


def test_initialisation():
    torch.manual_seed(0)
    for m in (*model.Generator(32).modules(), *model.Discriminator(32).modules()):
        if isinstance(m, (nn.ConvTranspose2d, nn.Linear)) and m.weight.numel() > 10_000:
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert m.weight.abs().max() > 0.06
        elif isinstance(m, nn.Conv2d):
            assert m.weight.std().item() == pytest.approx(0.0176, rel=0.05)  # what the cut leaves
            assert 0.039 < m.weight.abs().max() <= 0.04
        elif isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all()
        if getattr(m, "bias", None) is not None:
            assert (m.bias == 0).all()


def test_range():
    torch.manual_seed(0)
    assert_reaches_both_ends(model.Generator(16, 3, 10, 4), train.sample_z(9, 10))


def test_z():
    assert_uniform(train.sample_z, sample.sample_z)


# The pair for Chinese characters

def test_character_networks():
    with torch.device("meta"):
        assert n_parameters(model.CharacterGenerator()) == 9_417_857
        assert n_parameters(model.CharacterDiscriminator()) == 21_392_155
    torch.manual_seed(0)
    G, D = model.CharacterGenerator(5, 8), model.CharacterDiscriminator(5)
    z, y = train.sample_z(6, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    x = G(z, y)
    assert x.shape == (6, 1, 28, 28) and x.abs().max() <= 1 and x.min() < 0 < x.max()
    assert D(x, y).shape == (6,)
    assert nn.Sigmoid not in kinds(D)
    assert torch.equal(G.eval()(z, y)[0], G(z, y.new_zeros(6))[0])
    assert G.phi.weight is not D.phi.weight


def test_the_label_reaches_every_place():
    """G's input; in D the second convolution, the linear layer and the score."""
    torch.manual_seed(0)
    G, D = model.CharacterGenerator(5, 8).eval(), model.CharacterDiscriminator(5).eval()
    z, y, other = train.sample_z(4, 8), torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4])
    assert not torch.allclose(G(z, y), G(z, other))
    x = G(z, y).detach()
    seen = []
    for part in (D.conv2, D.linear, D.score):
        part.register_forward_hook(lambda part, x, y: seen.append(x[0]))
    D(x, y)
    D(x, other)
    for (one, two), at in zip(zip(seen[:3], seen[3:], strict=True), (257, 15_680, 1024),
                              strict=True):
        assert one.shape[1] == at + 256
        assert not torch.allclose(one[:, at:], two[:, at:])
    assert torch.equal(seen[0][:, :257], seen[3][:, :257])  # the first layer knows no label


# The losses

@pytest.mark.parametrize("a, b, c", [(0, 1, 1), (-1, 1, 0), (0.5, -2, 3)])
def test_losses_are_eq_2(a, b, c):
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    d = sum((v - b) ** 2 for v in real.tolist()) / 100 + sum(
        (v - a) ** 2 for v in fake.tolist()) / 100
    assert train.d_loss(real, fake, a, b).item() == pytest.approx(d)
    assert train.g_loss(fake, c).item() == pytest.approx(
        sum((v - c) ** 2 for v in fake.tolist()) / 100)  # halved, too


def test_the_two_schemes():
    assert train.SCHEMES == {"0-1": (0, 1, 1), "pearson": (-1, 1, 0)}
    a, b, c = train.SCHEMES["pearson"]
    assert (b - c, b - a) == (1, 2)  # Theorem of Sec. 3.2.2
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert train.d_loss(real, fake, a, b).item() == 1 + 1
    assert train.g_loss(fake, c).item() == 0.5


@pytest.mark.parametrize("score, slope", [(-200, -201), (1, 0), (200, 199)])
def test_fakes_beyond_the_boundary_are_pulled_back(score, slope):
    """Fig. 1: where the cross-entropy has no gradient left, on D's side of real, this one has."""
    fake = torch.full((4,), float(score), requires_grad=True)
    train.g_loss(fake, 1).backward()
    assert fake.grad.tolist() == pytest.approx([slope / 4] * 4)


def test_pearson_chi_squared():
    """2 C(G) = chi^2(p_data + p_g || 2 p_g), at the best D: Eq. 8, on three points."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])  # p_data, p_g
    a, b, c = train.SCHEMES["pearson"]
    D = (b * p + a * q) / (p + q)
    drawn = [torch.repeat_interleave(D, (10 * w).round().long()) for w in (p, q)]
    # D is the best: no other score of any of the three points makes d_loss smaller
    scores = D.clone().requires_grad_()
    loss = train.d_loss(*(torch.repeat_interleave(scores, (10 * w).round().long())
                          for w in (p, q)), a, b)
    loss.backward()
    assert scores.grad.abs().max() < 1e-6
    C = train.g_loss(drawn[0], c) + train.g_loss(drawn[1], c)  # G's loss, and p_data's constant
    chi2 = ((p + q - 2 * q) ** 2 / (p + q)).sum()
    assert 2 * C.item() == pytest.approx(chi2.item(), abs=1e-6)


@pytest.mark.parametrize("scheme", ["-1-1-1", "0", "0-1-0"])
def test_no_other_mixture(tmp_path, capfd, scheme):
    with pytest.raises(SystemExit):
        train.parse_args(["--out", str(tmp_path), f"--scheme={scheme}"])
    err = capfd.readouterr().err
    assert "0-1" in err and "pearson" in err


# A step

@pytest.mark.parametrize("flags, targets", [((), (0, 1, 1)), (("--no-bn",), (0, 1, 1)), (
    ("--scheme", "pearson"), (-1, 1, 0))])
def test_three_steps(tmp_path, flags, targets):
    """D, then G on the same z, by Eq. 2 and Adam. With a stop after the second, and other settings
    of Adam from there on."""
    with float64():
        train.train(train.parse_args(tiny("lsgan", tmp_path, *SMALL, *flags, "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", "--lr=0.01", "--beta1=0.25",
                                      f"--out={tmp_path}"]))

        (a, b, c), rows = targets, []
        batches = data.load_images("digits", 16).batches(4, seed=0)
        torch.manual_seed(0)
        train.sample_z(64, 20)
        G = model.Generator(16, 1, 20, 4, bn="--no-bn" not in flags)
        D = model.Discriminator(16, 1, 4)
        opt_g, opt_d = (Adam(net.parameters(), beta1=0.5) for net in (G, D))
        for step in (1, 2, 3):
            torch.manual_seed(step)
            lr = 1e-3 if step < 3 else 0.01
            if step == 3:
                opt_g.betas = opt_d.betas = (0.25, 0.999)
            x_fake = G(torch.rand(4, 20) * 2 - 1)
            real, fake = D(next(batches)), D(x_fake.detach())  # batch norm: not in one pass
            loss_d = ((real - b) ** 2).sum() / 8 + ((fake - a) ** 2).sum() / 8
            opt_d.step(loss_d, lr)
            loss_g = ((D(x_fake) - c) ** 2).sum() / 8
            opt_g.step(loss_g, lr)
            rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake)])
        norms = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (G, D)]
        assert norms == [0 if "--no-bn" in flags else 3, 1]
    assert_same_run(tmp_path, rows, 1e-7, G=G, D=D)


@pytest.mark.parametrize("flags", [("--width", 5), ("--z-dim", 5), ("--size", 32), ("--no-bn",),
                                   ("--data", "faces")])
def test_resume_refuses_another_network(tmp_path, capfd, flags):
    train.train(train.parse_args(tiny("lsgan", tmp_path, *SMALL, "--steps", 1)))
    assert_resume_refused(train, tmp_path, capfd, flags)


def test_sampling_depends_on_no_neighbour():
    assert_no_neighbours(train, model)


# sample.py

@pytest.mark.parametrize("flags", [(), ("--no-bn",)])
def test_interpolation(tmp_path, monkeypatch, flags):
    train.train(train.parse_args(tiny("lsgan", tmp_path, *SMALL, *flags, "--steps", 2)))
    grids, ckpt = caught(monkeypatch, sample), tmp_path / "ckpt.pt"
    sample.main(["--ckpt", str(ckpt), "--seed=3", "--frames=2"])
    G, _ = sample.load_generator(ckpt)
    assert not G.training  # batch norm's running averages, as in the run's own pictures
    torch.manual_seed(3)
    ends = sample.sample_z(16, 20).view(8, 2, 1, 20)
    along = torch.arange(10)[:, None] / 9
    rows = G((ends[:, 0] * (1 - along) + ends[:, 1] * along).flatten(0, 1)).unflatten(0, (8, 10))
    assert torch.allclose(grids["interpolation.png"], rows, atol=1e-5)


# mixture.py

def test_mixture_of_eight():
    torch.manual_seed(0)
    x = mixture.sample_mixture(18_000)
    assert x.norm(dim=1).mean().item() == pytest.approx(1, abs=1e-3)
    distance, nearest = torch.cdist(x, mixture.MODES).min(1)
    counts = nearest.bincount(minlength=8)
    assert counts[0] > 3700 and 1800 < counts[1:].min() <= counts[1:].max() < 2200
    assert mixture.MODES[0].tolist() == pytest.approx([0, 1]) and distance.max() < 0.06
    assert distance.square().mean().sqrt().item() == pytest.approx(0.01 * 2 ** 0.5, rel=0.05)
    gaps = torch.cdist(mixture.MODES, mixture.MODES).topk(3, largest=False).values[:, 1:]
    assert torch.allclose(gaps, torch.tensor(2 * math.sin(math.pi / 8)), atol=1e-5)  # neighbours


@pytest.mark.parametrize("d_in, d_out", [(2, 128), (256, 128), (128, 128), (128, 2)])
def test_mixture_weights_are_tensorflows(d_in, d_out):
    """Orthogonal, and the strongest direction of a matrix without negative entries has one sign."""
    torch.manual_seed(0)
    W = mixture.orthogonal(d_in, d_out)
    assert W.shape == (d_out, d_in)
    one = W @ W.T if d_in > d_out else W.T @ W
    assert torch.allclose(one, torch.eye(min(d_in, d_out)), atol=1e-4)
    strongest = W[0] if d_in > d_out else W[:, 0]
    assert strongest.sign().abs().sum() == strongest.sign().sum().abs() == max(d_in, d_out)
    others = W[1:] if d_in > d_out else W[:, 1:]
    assert 0.3 < (others > 0).double().mean() < 0.7


def test_mixture_networks():
    assert n_parameters(mixture.mlp(256, 2)) == 49_666  # [authors' code]
    assert n_parameters(mixture.mlp(2, 1)) == 17_025
    for net in mixture.mlp(256, 2), mixture.mlp(2, 1):
        assert kinds(net) == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
        for layer in net[::2]:
            singular = torch.linalg.svdvals(layer.weight)
            assert torch.allclose(singular, torch.tensor(1.4), atol=1e-4)
            assert (layer.bias == 0).all()


def test_mixture_losses():
    real, fake = torch.randn(2, 40)
    assert torch.allclose(mixture.least_squares(real, 1.0) + mixture.least_squares(fake, 0.0),
                          train.d_loss(real, fake, 0, 1))
    assert torch.allclose(mixture.least_squares(fake, 1.0), train.g_loss(fake, 1))
    D = torch.sigmoid(real)
    assert torch.allclose(mixture.cross_entropy(real, 1.0), -D.log().mean(), atol=1e-5)
    assert torch.allclose(mixture.cross_entropy(real, 0.0), -(1 - D).log().mean(), atol=1e-5)


@pytest.mark.parametrize("name", ["least_squares", "cross_entropy"])
def test_mixture_updates_both_at_once(monkeypatch, name):
    """Three steps, written out again: one batch, both gradients at the same weights, Adam."""
    monkeypatch.setattr(mixture, "BATCH", 8)
    monkeypatch.setattr(mixture, "MODES", mixture.MODES.double())
    with float64():
        samples = list(mixture.train(getattr(mixture, name), [0, 1, 3], seed=5))
        torch.manual_seed(5)
        G, D = mixture.mlp(256, 2), mixture.mlp(2, 1)
        z_shown, expected = torch.randn(80, 256), []
        moments = {p: [0, 0, lr] for net, lr in ((G, 1e-3), (D, 1e-4)) for p in net.parameters()}
        for t in range(1, 5):
            expected.append(G(z_shown))
            x, z = mixture.sample_mixture(8), torch.randn(8, 256)
            real, fake = D(x), D(G(z))
            if name == "least_squares":
                loss_d = ((real - 1) ** 2).mean() / 2 + (fake ** 2).mean() / 2
                loss_g = ((fake - 1) ** 2).mean() / 2
            else:
                loss_d = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
                loss_g = -fake.sigmoid().log().mean()
            grads = (*torch.autograd.grad(loss_g, list(G.parameters()), retain_graph=True),
                     *torch.autograd.grad(loss_d, list(D.parameters())))
            for (p, m), g in zip(moments.items(), grads, strict=True):
                m[:2] = 0.5 * m[0] + 0.5 * g, 0.999 * m[1] + 0.001 * g ** 2
                p.data -= m[2] * m[0] / (1 - 0.5 ** t) / ((m[1] / (1 - 0.999 ** t)).sqrt() + 1e-8)
        for x, i in zip(samples, (0, 1, 3), strict=True):
            assert not x.requires_grad and torch.allclose(x, expected[i], rtol=0, atol=1e-9)


def test_modes():
    torch.manual_seed(0)
    assert mixture.modes(mixture.sample_mixture(4000)) == (8, 1.0)
    two = mixture.MODES[:2].repeat(100, 1)
    assert mixture.modes(torch.cat([two * 1.29, torch.zeros(200, 2)])) == (2, 0.5)
    assert mixture.modes(two * 1.31) == (0, 0.0)
    few = torch.cat([mixture.MODES[:1].repeat(999, 1), mixture.MODES[4:5]])
    assert mixture.modes(few)[0] == 1  # one sample is no mode


def test_density_is_a_map_of_the_plane():
    image = mixture.density(torch.tensor([[1.0, 0.5]]))[0]
    row, col = divmod(image.argmax().item(), 120)
    assert col == pytest.approx(119 * 0.75, abs=1) and row == pytest.approx(119 * 0.375, abs=1)
    assert image.max() == 1 and image.min() == -1


def test_mixture_draws_both(tmp_path, capsys, monkeypatch):
    """Two rows a seed: the samples of five moments, and the data."""
    drawn, right = [], mixture.save_grid
    monkeypatch.setattr(mixture, "BATCH", 8)
    monkeypatch.setattr(mixture, "save_grid", lambda *args, **more:
                        drawn.append((args, more)) or right(*args, **more))
    out = tmp_path / "mixture.png"
    mixture.main(["--steps", "35", "--seed", "4", "7", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    rows = [(name, seed) for seed in (4, 7) for name in ("least squares", "cross-entropy")]
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        f"{name}, seed {seed}, step {step}" for name, seed in rows for step in (0, 5, 15, 25, 35)]
    assert lines[-1].startswith(f"wrote {out}") and out.stat().st_size > 1000
    (_, panels), more = drawn[-1]
    assert more == {"n_cols": 6, "captions": [f"{name}, seed {seed}" for name, seed in rows]}
    for i, (name, seed) in enumerate(rows):
        loss = getattr(mixture, name.replace(" ", "_").replace("-", "_"))
        for j, x in enumerate(mixture.train(loss, [0, 5, 15, 25, 35], seed)):
            assert torch.equal(panels[6 * i + j], mixture.density(x))
            covered, near = mixture.modes(x)
            assert f": {covered} of 8 modes, {near:.1%}" in lines[5 * i + j]
        torch.manual_seed(seed)
        assert torch.equal(panels[6 * i + 5], mixture.density(mixture.sample_mixture(80)))


def test_mixture_refuses_too_few_steps(tmp_path, capfd):
    with pytest.raises(SystemExit):
        mixture.main(["--steps", "34", "--out", str(tmp_path / "mixture.png")])
    assert "--steps 34" in capfd.readouterr().err and not list(tmp_path.iterdir())
