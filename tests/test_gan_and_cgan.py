"""What gan/ and cgan/ have in common, both of the GAN authors' code: maxout, the losses, momentum,
half of D's gradient; Parzen's window, Table 1 of both papers, in the sample.py of both."""
import math
from functools import partial

import pytest
import torch
from conftest import Watch, assert_loss_at, assert_resume_refused, load, tiny

pytestmark = pytest.mark.usefixtures("small_data")


@pytest.fixture(params=["gan", "cgan"])
def paper(request):
    return request.param


@pytest.fixture
def model(paper):
    return load(paper, "model")


@pytest.fixture
def train(paper):
    return load(paper, "train")


@pytest.fixture
def sample(paper):
    return load(paper, "sample")


@pytest.fixture
def watched(paper, train, tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    def go(*flags):
        watch = Watch(monkeypatch, train, torch.optim.SGD)
        train.train(train.parse_args(tiny(
            paper, tmp_path / "run", "--width", 16, "--units", 8, "--sample-every", 100,
            "--save-every", 100, *flags)))
        return watch
    return go


# The networks

def test_maxout_is_over_a_units_own_pieces(model):
    layer = model.Maxout(4, units=3, pieces=5)
    x = torch.randn(6, 4)
    W, b = layer.linear.weight, layer.linear.bias
    for i, row in enumerate(layer(x)):
        for unit in range(3):
            pieces = [x[i] @ W[5 * unit + j] + b[5 * unit + j] for j in range(5)]
            assert row[unit].item() == pytest.approx(max(pieces).item(), abs=1e-5)


# The losses and the schedule

def test_losses_are_the_textbooks(train):
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()  # V(D, G), GAN Eq. 1, CGAN Eq. 2
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    assert train.g_loss(fake, saturating=True).item() == pytest.approx(
        (1 - D_fake).log().mean().item())
    zero = torch.zeros(3)
    assert train.d_loss(zero, zero).item() == pytest.approx(math.log(4))  # Theorem 1


@pytest.mark.parametrize("loss, logit, value, slope", [
    (lambda train, a: train.d_loss(a, a * 0 - 200), -200, 200, -1),
    (lambda train, a: train.d_loss(a, a * 0 - 200), 200, 0, 0),
    (lambda train, a: train.d_loss(a * 0 + 200, a), 200, 200, 1),
    (lambda train, a: train.d_loss(a * 0 + 200, a), -200, 0, 0),
    (lambda train, a: train.g_loss(a), -200, 200, -1),
    (lambda train, a: train.g_loss(a), 200, 0, 0),
    (lambda train, a: train.g_loss(a, saturating=True), -200, 0, 0),  # no gradient
    (lambda train, a: train.g_loss(a, saturating=True), 200, -200, -1)])
def test_losses_of_extreme_logits(train, loss, logit, value, slope):
    assert_loss_at(partial(loss, train), logit, value, slope)


@pytest.mark.parametrize("epoch, value", [(0, 0.5), (1, 0.5), (125.5, 0.6), (250, 0.7), (999, 0.7)])
def test_momentum(train, epoch, value):
    assert train.momentum(epoch) == pytest.approx(value)


# A step

def test_g_learns_from_the_updated_d(watched):
    watch = watched("--steps", 1)
    real, fake, again = watch.all("D")
    assert all(map(torch.equal, real.weights, fake.weights))
    assert not all(map(torch.equal, fake.weights, again.weights))


def test_the_first_step_of_d_is_half_the_gradient_of_its_loss(watched):
    """[GAN code] 0.5 (BCE(D(x), 1) + BCE(D(G(z)), 0)), with the rate 0.1."""
    watch = watched("--steps", 1)
    real, fake, again = watch.all("D")
    bias = -1  # of D's last layer: its gradient needs the logits alone
    half = 0.5 * (torch.sigmoid(real.y) - 1).mean() + 0.5 * torch.sigmoid(fake.y).mean()
    assert torch.allclose(again.weights[bias] - fake.weights[bias], -0.1 * half, atol=1e-6)


def test_saturating_flag(watched, tmp_path):
    watched("--steps", 2, "--saturating")
    losses = [float(row.split(",")[2]) for row in
              (tmp_path / "run" / "log.csv").read_text().splitlines()[1:]]
    assert len(losses) == 2 and all(-1 < loss < 0 for loss in losses)  # E[log(1 - D(G(z)))]


@pytest.mark.parametrize("flags", [("--width", 17), ("--units", 9), ("--z-dim", 5),
                                   ("--size", 28), ("--data", "faces")])
def test_resume_refuses_another_network(train, watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


# sample.py: Parzen's window

def parzen_by_hand(x, mu, sigma):
    """In float64, one pair after the other."""
    d = x.shape[1]
    out = []
    for a in x.double():
        terms = [-((a - m) ** 2).sum().item() / (2 * sigma ** 2) for m in mu.double()]
        top = max(terms)
        out.append(top + math.log(sum(math.exp(t - top) for t in terms) / len(mu))
                   - d * math.log(sigma * math.sqrt(2 * math.pi)))
    return out


@pytest.mark.parametrize("n, m", [(3, 4), (40, 60)])  # torch.cdist changes its way above 25
@pytest.mark.parametrize("sigma", [0.1, 0.2, 1.0])
def test_log_likelihood(sample, n, m, sigma):
    torch.manual_seed(0)
    x, mu = torch.rand(n, 20), torch.rand(m, 20)
    assert sample.log_likelihood(x, mu, sigma).tolist() == pytest.approx(
        parzen_by_hand(x, mu, sigma), abs=2e-3)


def test_log_likelihood_of_mnists_size(sample):
    """784 pixels near the samples, where float32 loses most: to a hundredth of a nat."""
    torch.manual_seed(0)
    mu = torch.rand(60, 784).round()
    x = (mu[:30] + 0.1 * torch.randn(30, 784)).clamp(0, 1)
    assert sample.log_likelihood(x, mu, 0.1).tolist() == pytest.approx(
        parzen_by_hand(x, mu, 0.1), abs=0.02)


def test_log_likelihood_of_one_sample_is_the_gaussian(sample):
    x, mu = torch.rand(700, 6), torch.rand(1, 6)  # more than one part of 500
    normal = torch.distributions.Normal(mu[0], 0.3)
    assert torch.allclose(sample.log_likelihood(x, mu, 0.3), normal.log_prob(x).sum(1), atol=1e-4)


def test_sigma_is_chosen_on_validation_images(sample, monkeypatch):
    torch.manual_seed(0)
    mu = torch.rand(50, 1, 3, 3)  # in [0, 1]; images are in [-1, 1]
    monkeypatch.setattr(sample, "generate", lambda G, ckpt, n: mu[:n] * 2 - 1)

    def near(noise, n):
        return (mu[torch.arange(n) % 50] + noise * torch.randn(n, 1, 3, 3)) * 2 - 1

    grid = [10 ** (i / 9 - 1) for i in range(10)]
    for noise in (0.05, 0.3):
        # after the first 1,000 come others, which must not count; the test images want sigma = 1
        valid, test = torch.cat([near(noise, 1000), near(3, 500)]), near(3, 60)
        n = 25 if sample.__name__.startswith("cgan") else 50  # of each class, or in all
        mean, error, sigma = sample.parzen(None, {"classes": ["a", "b"]}, valid, test, n=n)
        score = {s: sum(parzen_by_hand((valid[:100].flatten(1) + 1) / 2, mu.flatten(1), s))
                 for s in grid}
        assert sigma == max(score, key=score.get) < 0.9
        ll = torch.tensor(parzen_by_hand((test.flatten(1) + 1) / 2, mu.flatten(1), sigma))
        assert mean == pytest.approx(ll.mean().item(), rel=1e-4)
        assert error == pytest.approx((ll.std() / 60 ** 0.5).item(), rel=1e-4)
