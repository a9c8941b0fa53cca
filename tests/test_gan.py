"""gan/: the authors' MNIST networks, Algorithm 1, the figures; see test_gan_and_cgan.py, too."""
import math

import pytest
import torch
import torch.nn.functional as F
from algorithm import SGD, assert_same_run, float64
from conftest import caught, load, n_parameters, n_train, tiny

from common import data

model, train, sample = (load("gan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = "--width", 16, "--units", 8, "--batch-size", 18


# The paper's setting

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.data, args.size, args.batch_size, args.k) == ("mnist", 28, 100, 1)
    assert (args.lr, args.z_dim, args.saturating, args.steps) == (0.1, 100, False, 250 * 500)
    G = model.Generator(args.size, 1, args.z_dim, args.width)
    D = model.Discriminator(args.size, 1, args.units, args.pieces)
    for nets in ((G, D), (model.Generator(), model.Discriminator())):
        assert [n_parameters(net) for net in nets] == [2_503_984, 1_231_441]


@pytest.mark.parametrize("size, channels", [(16, 1), (28, 1), (32, 3), (64, 3)])
def test_shapes_and_range(size, channels):
    G, D = model.Generator(size, channels, 7, 20), model.Discriminator(size, channels, 6, 3)
    torch.nn.init.normal_(G.net[4].weight, std=50)  # to reach the ends of the range
    for n in (1, 5):
        x = G(train.sample_z(n, 7))
        assert x.shape == (n, channels, size, size) and D(x).shape == (n,)
    assert -1 <= x.min() < -0.8 < 0.8 < x.max() <= 1


def test_first_weights():
    torch.manual_seed(0)
    for net, a in ((model.Generator(), 0.05), (model.Discriminator(), 0.005)):
        for name, w in net.named_parameters():
            if name.endswith("bias"):
                assert (w == 0).all()
            else:
                assert w.abs().max() <= a and w.std().item() == pytest.approx(a / 3 ** 0.5, 0.05)


def test_z():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and -3 ** 0.5 <= z.min() < -1.72 < 1.72 < z.max() <= 3 ** 0.5
        assert z.mean().abs() < 0.02 and z.var().item() == pytest.approx(1, abs=0.02)


def test_log_4_is_the_value_at_the_optimum():
    """C(G) = -log 4 + 2 JSD: for p_g = p_data the optimal D is 1/2, for disjoint ones C = 0."""
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    for p_g, cost in ((p, -math.log(4)), (q, -math.log(4) + math.log(2))):  # JSD(p, q) = log 2 / 2
        logits = (p.clamp_min(1e-30) / p_g.clamp_min(1e-30)).log()  # D* = p / (p + p_g), Eq. 2
        drawn = torch.tensor([0, 1]), torch.tensor([0, 1]) if p_g is p else torch.tensor([1, 2])
        assert -train.d_loss(*(logits[i] for i in drawn)).item() == pytest.approx(cost, abs=1e-5)


# Algorithm 1, with the networks and the schedule of the authors' code, written out again

def draw(w, z):
    """G's picture in the paper's range, [0, 1]."""
    h = (z @ w[0].T + w[1]).relu()
    h = (h @ w[2].T + w[3]).relu()
    return torch.sigmoid(h @ w[4].T + w[5])


def judge(w, x):
    """D(x), a probability, of pixels in [0, 1]."""
    h = F.dropout(x, 0.2)
    for i in (0, 2):  # maxout: 8 units of 5 pieces
        h = F.dropout((h @ w[i].T + w[i + 1]).view(len(x), 8, 5).max(2).values, 0.5)
    return torch.sigmoid(h @ w[4].T + w[5])


@pytest.mark.parametrize("k, saturating, lr", [
    (1, False, 200), (2, False, 0.2), (2, True, 0.2)])  # 200: D(x) and D(G(z)) part in three steps
def test_three_steps_are_algorithm_1(tmp_path, k, saturating, lr):
    """With a stop after the second, and another learning rate from there on."""
    flags = [*SMALL, "--k", k, *["--saturating"] * saturating, "--lr", lr]
    with float64():
        train.train(train.parse_args(tiny("gan", tmp_path, *flags, "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", f"--lr={lr / 2}",
                                      f"--out={tmp_path}"]))

        images = data.load_images("digits", 16).subset(0, n_train())
        batches, rows = images.batches(18, seed=0), []
        torch.manual_seed(0)
        train.sample_z(64, 100)
        G, D = model.Generator(16, 1, 100, 16), model.Discriminator(16, 1, 8)
        p = ((images[:].mean(0) + 1) / 2).clamp(1e-7, 1 - 1e-7)
        with torch.no_grad():
            G.net[4].bias.copy_((p / (1 - p)).log().flatten())
        w_g, w_d = list(G.parameters()), list(D.parameters())
        opt_g, opt_d = SGD(w_g), SGD(w_d)
        for step in (1, 2, 3):
            torch.manual_seed(step)
            rate = (lr if step < 3 else lr / 2) / 1.000004 ** (step - 1)
            epoch = (step - 1) * k * 18 / 54
            m = 0.5 if epoch < 1 else 0.5 + 0.2 * (epoch - 1) / 249
            for _ in range(k):
                x = (next(batches).flatten(1) + 1) / 2
                x_fake = draw(w_g, (torch.rand(18, 100) * 2 - 1) * 3 ** 0.5).detach()
                real, fake = judge(w_d, x), judge(w_d, x_fake)
                loss_d = -real.log().mean() - (1 - fake).log().mean()
                opt_d.step(0.5 * loss_d, rate, m)  # [authors' code]
            again = judge(w_d, draw(w_g, (torch.rand(18, 100) * 2 - 1) * 3 ** 0.5))
            loss_g = (1 - again).log().mean() if saturating else -again.log().mean()
            opt_g.step(loss_g, rate, m)
            rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake)])
    assert_same_run(tmp_path, rows, G=G, D=D)


# sample.py

def test_nearest_is_brute_force():
    torch.manual_seed(0)
    known, x = torch.rand(2300, 1, 3, 3) * 2 - 1, torch.rand(40, 1, 3, 3) * 2 - 1
    x[0] = known[2299]  # of the last part
    d = ((x[:, None] - known[None]) ** 2).flatten(2).sum(2)
    assert torch.equal(sample.nearest(x, known), known[d.argmin(1)])


def test_figures(tmp_path, monkeypatch, capsys):
    """Fig. 2 ends with the nearest training image; Fig. 3 walks straight in z; Table 1 is of images
    that G has not seen."""
    train.train(train.parse_args(tiny("gan", tmp_path, *SMALL, "--steps", 2)))
    grids, seen = caught(monkeypatch, sample), {}
    monkeypatch.setattr(sample, "nearest", lambda x, known, right=sample.nearest:
                        seen.update(known=known[:]) or right(x, known))
    monkeypatch.setattr(sample, "parzen", lambda mu, valid, test:
                        seen.update(mu=mu, valid=valid, test=test) or (1.25, 0.5, 0.2))
    sample.main(["--ckpt", str(tmp_path / "ckpt.pt"), "--seed=3", "--parzen", "--frames=2"])
    G, ckpt = sample.load_generator(tmp_path / "ckpt.pt")
    images, x = data.load_images("digits", 16)[:], grids["fig2.png"]
    assert torch.equal(seen["known"], images[:n_train()])  # not those for validation
    assert x.shape[:2] == (8, 6) and torch.equal(x[:, 5], sample.nearest(x[:, 4], seen["known"]))
    assert torch.equal(x[:, :5].flatten(0, 1), torch.cat([*sample.generate(G, ckpt, 40, 3)]))
    torch.manual_seed(3)
    ends = sample.sample_z(16, 100).view(8, 2, 1, 100)
    along = torch.arange(10)[:, None] / 9
    rows = G((ends[:, 0] * (1 - along) + ends[:, 1] * along).flatten(0, 1)).unflatten(0, (8, 10))
    assert torch.allclose(grids["fig3.png"], rows, atol=1e-5)
    assert len(seen["mu"]) == 10_000 and torch.equal(seen["valid"], images[n_train():])
    assert torch.equal(seen["test"], data.load_images("digits", 16, split="test")[:])
    assert "1.2 +- 0.5 nats" in capsys.readouterr().out
