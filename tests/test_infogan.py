"""infogan/: the tables' networks, L_I, who learns what in a step, the codes, the figures."""
import math

import pytest
import torch
from algorithm import Adam, assert_same_run, float64
from conftest import assert_resume_refused, assert_uniform, load, n_parameters, tiny
from torch.distributions import Categorical, Normal

from common import data

model, train, sample = (load("infogan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 4)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.batch_size, args.steps) == (28, 64, 128, 50 * 100)
    assert (args.lr, args.lr_g) == (2e-4, 1e-3)
    assert (args.z_dim, args.categorical, args.n_categorical, args.continuous) == (62, 10, 1, 2)
    assert (args.lambda_cont, args.fix_std, args.regular) == (1, True, False)


@pytest.mark.parametrize("size, channels, n_in, n_out, g, d", [
    (28, 1, 62 + 10 + 2, 10 + 2 * 2, 6_652_481, 6_692_431),          # Table 1
    (28, 1, 62 + 10 + 2, 12, 6_652_481, 6_692_431 - 2 * 129),        # deviations left out
    (32, 3, 124 + 40 + 4, 40 + 2 * 4, 2_800_835, 1_194_609),         # Table 2, SVHN
    (32, 3, 128 + 100, 100, 2_908_355, 1_201_317)])                  # Table 3, CelebA
def test_parameter_counts_and_shapes(size, channels, n_in, n_out, g, d):
    with torch.device("meta"):
        G = model.Generator(size, channels, n_in)
        D = model.Discriminator(size, channels, n_out)
        assert (n_parameters(G), n_parameters(D)) == (g, d)
        x = G(torch.empty(3, 7), torch.empty(3, n_in - 7))
        assert x.shape == (3, channels, size, size)
        logits, q = D(x)
        assert logits.shape == (3,) and q.shape == (3, n_out)
    if size == 28:
        assert n_parameters(D.trunk) == 6_558_144 and n_parameters(D.D) == 1025


def test_other_sizes_are_refused():
    for net in (model.Generator, model.Discriminator):
        with pytest.raises(ValueError, match="28"):
            net(64)


def test_initialisation():
    torch.manual_seed(0)
    for net in (model.Generator(), model.Discriminator()):
        for m in net.modules():
            if isinstance(m, torch.nn.Conv2d):
                assert m.weight.abs().max() <= 0.04  # cut at two deviations
            if isinstance(m, (torch.nn.ConvTranspose2d, torch.nn.Linear)):
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_sampling_depends_on_no_neighbour():
    torch.manual_seed(0)
    G, z, c = model.Generator(28, 1, 74, 4), train.sample_z(6, 62), train.sample_c(6, 10, 1, 2)
    G(z, c)
    assert torch.allclose(train.sample(G, z, c)[2:3], train.sample(G, z[2:3], c[2:3]), atol=1e-6)
    assert G.training


# The codes and the losses

def test_noise_and_codes():
    assert_uniform(train.sample_z, sample.sample_z)
    run = dict(categorical=10, n_categorical=2, continuous=3)
    for c in (train.sample_c(20_000, 10, 2, 3), sample.sample_c(20_000, run)):
        assert c.shape == (20_000, 23) and c.dtype == torch.float32
        one_hot, u = c[:, :20].unflatten(1, (2, 10)), c[:, 20:]
        assert (one_hot.sum(2) == 1).all() and ((one_hot == 0) | (one_hot == 1)).all()
        assert (one_hot.mean(0) - 0.1).abs().max() < 0.01  # the last class, too
        assert (one_hot[:, 0].argmax(1) != one_hot[:, 1].argmax(1)).any()
        assert -1 <= u.min() < -0.99 < 0.99 < u.max() <= 1 and u.mean().abs() < 0.01


def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())


def log_q(q: torch.Tensor, c: torch.Tensor, k: int, n: int, fix_std: bool):
    """log Q(c|x) of the categorical and of the continuous codes, by torch's distributions."""
    disc = sum(Categorical(logits=q[:, i * k:i * k + k]).log_prob(
        c[:, i * k:i * k + k].argmax(1)) for i in range(n))
    m = c.shape[1] - n * k
    mean, log_var = q[:, n * k:n * k + m], q[:, n * k + m:]
    std = torch.ones_like(mean) if fix_std else log_var.exp().sqrt()
    return disc, Normal(mean, std).log_prob(c[:, n * k:]).sum(1)


@pytest.mark.parametrize("fix_std", [True, False])
def test_information_is_the_bound(fix_std):
    torch.manual_seed(0)
    q, c = torch.randn(50, 4 * 10 + 6) * 3, train.sample_c(50, 10, 4, 3)
    disc, cont = train.information(q, c, 10, 4, fix_std)
    want_disc, want_cont = log_q(q, c, 10, 4, fix_std)
    assert disc.item() == pytest.approx(want_disc.mean().item() + 4 * math.log(10), rel=1e-5)
    assert cont.item() == pytest.approx(want_cont.mean().item() + 3 * math.log(2), rel=1e-5)


def test_information_of_a_q_that_knows_all_or_nothing():
    c = train.sample_c(50, 10, 1, 0)
    assert train.information(100 * c, c, 10, 1, True)[0].item() == pytest.approx(math.log(10))
    assert train.information(0 * c, c, 10, 1, True)[0].item() == pytest.approx(0, abs=1e-6)


# A step

def test_no_label_is_read(tmp_path, monkeypatch):
    """Of every example the stream takes one field, the picture."""
    finish, fields = data.Data._finish, []
    monkeypatch.setattr(data.Data, "_finish", lambda self, read: (
        fields.append(len(read)), finish(self, read))[1])
    train.train(train.parse_args(tiny("infogan", tmp_path, *SMALL, "--steps", 2)))
    assert fields == [1, 1]


def test_resume_keeps_the_codes(tmp_path, capfd):
    """Five of two values have as many columns as one of ten."""
    train.train(train.parse_args(tiny("infogan", tmp_path, *SMALL, "--steps", 1)))
    assert_resume_refused(train, tmp_path, capfd, ("--n-categorical", 5, "--categorical", 2))


@pytest.mark.parametrize("flags, k, n, m, fix_std, lambda_cont", [
    ((), 10, 1, 2, True, 0.1),
    (("--regular",), 10, 1, 2, True, 0.1),  # Q learns all the same
    (("--categorical", 3, "--n-categorical", 2, "--continuous", 1, "--no-fix-std", "--lambda-cont",
      0.5, "--size", 32), 3, 2, 1, False, 0.5)])
def test_steps_are_the_algorithms(tmp_path, flags, k, n, m, fix_std, lambda_cont):
    """Q and the trunk learn in D's step from D's loss and L_I, G in its own, on new z and c,
    through both; nothing else moves anything."""
    with float64():
        args = train.parse_args(tiny("infogan", tmp_path, *SMALL, *flags, "--steps", 3))
        train.train(args)
        torch.manual_seed(0)
        train.sample_z(8, 62), train.sample_c(8, k, n, m)  # of the run's pictures
        G = model.Generator(args.size, 1, 62 + n * k + m, 4)
        D = model.Discriminator(args.size, 1, n * k + 2 * m, 4)
        opt_g, opt_d, rows = Adam(G.parameters(), 0.5), Adam(D.parameters(), 0.5), []
        batches = data.load_images("digits", args.size).batches(4, seed=0)
        for step in (1, 2, 3):
            torch.manual_seed(step)
            x = next(batches)
            z, c = train.sample_z(4, 62), train.sample_c(4, k, n, m)
            x_fake = G(z, c).detach()
            real, (logits, q) = D(x)[0].sigmoid(), D(x_fake)
            fake, (disc, cont) = logits.sigmoid(), log_q(q, c, k, n, fix_std)
            disc, cont = disc + n * math.log(k), cont + m * math.log(2)  # + H(c)
            loss_d = -(real.log() + (1 - fake).log() + disc + lambda_cont * cont).mean()
            opt_d.step(loss_d, 2e-4)

            z, c = train.sample_z(4, 62), train.sample_c(4, k, n, m)
            logits, q = D(G(z, c))
            disc, cont = log_q(q, c, k, n, fix_std)
            disc, cont = disc + n * math.log(k), cont + m * math.log(2)  # + H(c)
            L_I = (not args.regular) * (disc + lambda_cont * cont)
            loss_g = -(logits.sigmoid().log() + L_I).mean()
            opt_g.step(loss_g, 1e-3)
            rows.append([v.mean().item() for v in (loss_d, loss_g, disc, cont, real, fake)])
    assert_same_run(tmp_path, rows, 1e-7, G=G, D=D)


# sample.py

RUN = dict(categorical=3, n_categorical=2, continuous=2)


@pytest.mark.parametrize("code", range(4))
def test_fig_2_varies_one_code(code):
    torch.manual_seed(0)
    z, c = sample.sample_z(5, 7), sample.sample_c(5, RUN)
    zs, cs = sample.sweep(z, c, code, RUN)
    n_cols = 3 if code < 2 else 10
    assert torch.equal(zs.unflatten(0, (5, n_cols)), z[:, None].expand(-1, n_cols, -1))
    at = slice(3 * code, 3 * code + 3) if code < 2 else slice(4 + code, 5 + code)
    values = torch.eye(3) if code < 2 else torch.linspace(-2, 2, 10)[:, None]
    rows = cs.unflatten(0, (5, n_cols))
    assert torch.equal(rows[:, :, at], values.expand(5, -1, -1))
    rest = [i for i in range(8) if not at.start <= i < at.stop]
    assert torch.equal(rows[:, :, rest], c[:, None, rest].expand(-1, n_cols, -1))


def test_majority_names_the_values_of_c1():
    codes, y = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([4, 4, 1, 0, 0, 4])
    assert sample.majority(codes, y, 3, 5).tolist() == [4, 0, 4]


def test_classifier_counts_errors_on_held_out_images(monkeypatch, capsys):
    """Of a Q that tells digits by their label, but takes the rarer one of 2 and 7 for the other."""
    held = {}

    def q_reads(D, x, k):
        y = held[len(x)]
        return (torch.where(y == rare, 9 - rare, y) + 3) % 10

    for split in ("train", "test"):
        x, y = data.load_labelled("digits", 28, split=split)[:]
        held[len(x)] = y
    rare = 2 if (held[64] == 2).sum() < (held[64] == 7).sum() else 7
    monkeypatch.setattr(sample, "q_reads", q_reads)
    args = dict(size=28, width=4, z_dim=62, categorical=10, n_categorical=1, continuous=2,
                data="digits", data_root=None, skip_bad=False)
    D = model.Discriminator(28, 1, 14, 4)
    ckpt = dict(args=args, D=D.state_dict(), channels=1, classes=list("0123456789"),
                z_fixed=torch.zeros(1))
    sample.classify(ckpt)
    error = (held[32] == rare).double().mean().item()
    assert f"error {error:.1%} of 32 images" in capsys.readouterr().out and error > 0


def test_figures_beside_a_regular_gan(tmp_path, capsys):
    for name, flags in (("run", ()), ("other", ("--regular",))):
        args = tiny("infogan", tmp_path / name, *SMALL, "--steps", 2, *flags)
        train.train(train.parse_args(args))
    sample.main(["--ckpt", str(tmp_path / "run/ckpt.pt"), "--regular", str(tmp_path / "other"),
                 "--frames", "2"])
    rows = (tmp_path / "run/figures/fig1.csv").read_text().splitlines()
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("run", "other")]
    at = logs[0][0].split(",").index("L_I")
    assert [line.split(",")[1:] for line in rows[1:]] == [
        [a.split(",")[at], b.split(",")[at]] for a, b in zip(logs[0][1:], logs[1][1:], strict=True)]
    names = {path.name for path in (tmp_path / "run/figures").iterdir()}
    assert names == {"samples.png", "fig1.csv", "fig1.png", "fig2-c1.png", "fig2-c2.png",
                     "fig2-c3.png", "fig2b.png", "walk.gif"}
    with pytest.raises(SystemExit):
        sample.main(["--ckpt", str(tmp_path / "run/ckpt.pt"), "--regular", str(tmp_path / "run"),
                     "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
