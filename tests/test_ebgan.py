"""ebgan/: the tables' networks, energy, margin, the pulling-away term, a step, the figures."""
import math

import pytest
import torch
from algorithm import Adam, assert_same_run, float64
from conftest import load, n_parameters, tiny

from common import data

model, train, sample = (load("ebgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
MLP = ("--layers-g", 3, "--width-g", 8, "--layers-d", 3, "--width-d", 6, "--margin", 0.95)
CONV = ("--arch", "conv", "--lr", 1e-3, "--beta1", 0.9, "--size", 32, "--width-g", 4,
        "--width-d", 4, "--margin", 2.0)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.arch, args.size, args.width_g, args.width_d) == ("conv", 64, 64, 64)
    assert (args.margin, args.lr, args.beta1) == (20, 2e-4, 0.5)


@pytest.mark.parametrize("size, channels, options_g, options_d, g, d", [
    (28, 1, {}, {}, 2_637_584, 1_607_440),
    (32, 1, {}, {}, 2_829_824, 2_099_200),
    (28, 1, dict(width=1600), {}, 9_114_384, 1_607_440),
    (32, 1, dict(width=1600), {}, 9_498_624, 2_099_200),
    (64, 3, dict(arch="conv", width=64), dict(arch="conv", width=64), 3_576_704, 1_318_659)])
def test_parameter_counts(size, channels, options_g, options_d, g, d):
    with torch.device("meta"):
        G = model.Generator(size=size, channels=channels, **options_g)
        D = model.Discriminator(size=size, channels=channels, **options_d)
    assert (n_parameters(G), n_parameters(D)) == (g, d)


@pytest.mark.parametrize("arch, size, maps", [
    ("mlp", 28, 16), ("mlp", 64, 16), ("conv", 28, 2 * 4 * 7 * 7), ("conv", 32, 2 * 4 * 8 * 8),
    ("conv", 64, 4 * 4 * 8 * 8), ("conv", 128, 8 * 4 * 8 * 8), ("conv", 256, 8 * 4 * 16 * 16)])
def test_shapes(arch, size, maps):
    with torch.device("meta"):
        G = model.Generator(arch, size, 3, 10, 5, 4)
        D = model.Discriminator(arch, size, 3, 2, 16 if arch == "mlp" else 4)
        x = G(torch.empty(2, 10))
        x_hat, s = D(x)
    assert x.shape == x_hat.shape == (2, 3, size, size) and s.shape == (2, maps)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_initialisation(arch):
    torch.manual_seed(0)
    width = 800 if arch == "mlp" else 64
    for net, std in ((model.Generator(arch, 32, width=width), 0.02),
                     (model.Discriminator(arch, 32, width=width), 0.002)):
        for m in net.modules():
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                assert m.weight.std().item() == pytest.approx(std, rel=0.1)
                assert m.bias is None or (m.bias == 0).all()


def test_z_is_normal():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.mean().abs() < 0.02 and z.std().item() == pytest.approx(1, abs=0.02)


# The losses

def test_energy_is_the_norm_of_each_residual():
    """Not a mean over pixels, which no margin of the paper would ever meet, nor of the batch."""
    x, x_hat = torch.zeros(3, 1, 28, 28), torch.zeros(3, 1, 28, 28)
    x_hat[0, 0, 3, 4], x_hat[0, 0, 5, 6] = 3, 4
    x_hat[1] = 2
    assert train.energy(x, x_hat).tolist() == pytest.approx([5, 2 * 28, 0])


def test_hinge_is_of_each_fake():
    fake = torch.tensor([4.0, 30.0], requires_grad=True)  # of their mean, 17, it would be closed
    loss = train.d_loss(torch.tensor([1.0, 3.0]), fake, 10.0)
    assert loss.item() == pytest.approx(2 + (10 - 4) / 2)
    loss.backward()
    assert fake.grad.tolist() == [-0.5, 0]
    assert train.g_loss(fake).item() == 17


def test_pulling_away_is_the_mean_squared_cosine():
    torch.manual_seed(0)
    s = torch.randn(6, 5, dtype=torch.float64) * torch.arange(1, 7)[:, None]
    pairs = [(torch.dot(s[i], s[j]) / (s[i].norm() * s[j].norm())).item() ** 2
             for i in range(6) for j in range(6) if i != j]
    assert train.pulling_away(s).item() == pytest.approx(sum(pairs) / 30)
    opposite = torch.tensor([[1.0, 0], [-3, 0]])
    assert train.pulling_away(opposite).item() == pytest.approx(1)  # squared: no reward
    assert train.pulling_away(torch.eye(4)).item() == pytest.approx(0, abs=1e-7)
    assert train.pulling_away(torch.diag(torch.tensor([1.0, 1, 0]))).item() == 0  # a ReLU's zeros


# A step

@pytest.mark.parametrize("flags, pt", [(MLP, 0.0), ((*MLP, "--pt", 0.1), 0.1), (CONV, 0.0),
                                       ((*CONV, "--pt", 0.1), 0.1)])
def test_steps_are_the_algorithms(tmp_path, flags, pt):
    """G's gradient goes through both occurrences of its picture, and only it sees f_PT; a fake is
    a constant in D's step; each step has a z of its own. A margin that some fakes pass."""
    with float64():
        args = train.parse_args(tiny("ebgan", tmp_path, *flags, "--steps", 3))
        train.train(args)
        torch.manual_seed(0)
        torch.randn(64, 100)  # of the run's pictures
        G = model.Generator(args.arch, args.size, 1, 100, args.layers_g, args.width_g)
        D = model.Discriminator(args.arch, args.size, 1, args.layers_d, args.width_d)
        opt_g, opt_d, rows = Adam(G.parameters(), 0.9), Adam(D.parameters(), 0.9), []
        below = []
        batches = data.load_images("digits", args.size).batches(4, seed=0)
        for step in (1, 2, 3):
            torch.manual_seed(step)
            x, x_fake = next(batches), G(torch.randn(4, 100)).detach()
            real = ((D(x)[0] - x) ** 2).sum((1, 2, 3)).sqrt()
            fake = ((D(x_fake)[0] - x_fake) ** 2).sum((1, 2, 3)).sqrt()
            loss_d = real.mean() + sum(max(args.margin - e, 0 * e) for e in fake) / 4
            opt_d.step(loss_d, 1e-3)
            x_fake = G(torch.randn(4, 100))
            x_hat, s = D(x_fake)
            f_pt = sum(torch.cosine_similarity(s[i], s[j], 0) ** 2
                       for i in range(4) for j in range(i)) / 6
            loss_g = ((x_hat - x_fake) ** 2).sum((1, 2, 3)).sqrt().mean() + pt * f_pt
            opt_g.step(loss_g, 1e-3)
            below += (fake < args.margin).tolist()
            rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake, f_pt)])
    assert_same_run(tmp_path, rows, 1e-7, G=G, D=D)
    assert any(below) and not all(below)


# sample.py

def test_figures(tmp_path, monkeypatch):
    runs = [tmp_path / name for name in ("m1", "m16")]
    for path in runs:
        train.train(train.parse_args(tiny("ebgan", path, *MLP, "--margin", path.name[1:])))
    with open(runs[0] / "log.csv", "a") as f:
        f.write("9,1.0,1.0,1.0,1.0,1.0\n10,1.")  # later than the checkpoint, as a kill leaves it
    grids, save = {}, sample.save_grid
    monkeypatch.setattr(sample, "save_grid", lambda path, x, *args, **options: (
        grids.update({path.name: (x, options)}), save(path, x, *args, **options)))
    sample.main(["--ckpt", str(runs[0] / "ckpt.pt"), "--runs", *map(str, runs), "--frames", "2"])
    rows = (runs[0] / "figures/energies.csv").read_text().split()
    log = (runs[0] / "log.csv").read_text().split("\n")[1].split(",")
    assert len(rows) == 1 + 8 and rows[0] == "step,D(x),D(G(z)),m"
    assert rows[1].split(",") == [*log[:1], *log[3:5], "1"]

    x, options = grids["fig9.png"]
    assert options["captions"] == ["m = 1", "m = 16"]
    for path, row in zip(runs, x.split(16), strict=True):
        G, ckpt = sample.load_generator(path / "ckpt.pt")
        assert torch.allclose(row, G(ckpt["z_fixed"][:16]), atol=1e-6)
    x, x_hat, x_fake, fake_hat = grids["reconstructions.png"][0].split(8)
    assert torch.equal(x, data.load_images("digits", 28)[:8])
    assert torch.allclose(x_fake, grids["samples.png"][0][:8], atol=1e-6)
    energies = train.energy(x, x_hat), train.energy(x_fake, fake_hat)
    assert all(e.isfinite().all() and (e > 0).all() for e in energies)
    assert math.isfinite(float(rows[-1].split(",")[2]))
