"""What gan/ and cgan/ have in common: the losses, the schedule, Parzen's window, Table 1 of both
papers."""
import math
from functools import partial

import pytest
import torch
from conftest import assert_loss_at, assert_resume_refused, load, tiny

pytestmark = pytest.mark.usefixtures("small_data")


@pytest.fixture(params=["gan", "cgan"])
def paper(request):
    return request.param


@pytest.fixture
def train(paper):
    return load(paper, "train")


@pytest.fixture
def sample(paper):
    return load(paper, "sample")


# The losses and the schedule

def test_losses_are_the_textbooks(train):
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    value = D_real.log().mean() + (1 - D_fake).log().mean()  # V(D, G), GAN Eq. 1, CGAN Eq. 2
    assert train.d_loss(real, fake).item() == pytest.approx(-value.item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    assert train.g_loss(fake, saturating=True).item() == pytest.approx(
        (1 - D_fake).log().mean().item())


@pytest.mark.parametrize("loss, logit, value, slope", [
    (lambda train, a: train.d_loss(a, a * 0 - 200), -200, 200, -1),
    (lambda train, a: train.d_loss(a * 0 + 200, a), 200, 200, 1),
    (lambda train, a: train.g_loss(a), -200, 200, -1),
    (lambda train, a: train.g_loss(a, saturating=True), -200, 0, 0),  # no gradient
    (lambda train, a: train.g_loss(a, saturating=True), 200, -200, -1)])
def test_losses_of_extreme_logits(train, loss, logit, value, slope):
    assert_loss_at(partial(loss, train), logit, value, slope)


@pytest.mark.parametrize("epoch, value", [(0, 0.5), (1, 0.5), (125.5, 0.6), (250, 0.7), (999, 0.7)])
def test_momentum(train, epoch, value):
    assert train.momentum(epoch) == pytest.approx(value)


def test_learning_rate(paper, train):
    rate = train.learning_rate if paper == "gan" else partial(train.learning_rate, decay=1.000004)
    for n, lr in ((0, 0.1), (1, 0.1 / 1.000004), (125_000, 0.1 * math.exp(-0.499999)),
                  (10 ** 8, 1e-6)):
        assert rate(0.1, updates=n) == pytest.approx(lr, rel=1e-9)


# A run

class Halves:
    """25,000 pictures, labelled where the paper wants it, as class folders are: all black, then all
    white."""
    name, channels, classes = "folder", 1, ["black", "white"]

    def __init__(self, labelled):
        self.labelled = labelled

    def __len__(self):
        return 25_000

    def __getitem__(self, index):
        y = (torch.arange(len(self))[index] >= 12_500).long()
        x = (2.0 * y - 1)[:, None, None, None].expand(-1, 1, 16, 16)
        return (x, y) if self.labelled else x

    def batches(self, batch_size, seed, start):
        while True:
            yield self[torch.randint(len(self), (batch_size,))]


def test_g_starts_at_the_mean_image_of_all_classes(paper, train, tmp_path, monkeypatch):
    name = "load_images" if paper == "gan" else "load_labelled"
    monkeypatch.setattr(train, name, lambda *args, **kwargs: Halves(paper == "cgan"))
    train.train(train.parse_args(tiny(paper, tmp_path, "--width", 8, "--units", 4, "--steps", 1,
                                      "--lr", 1e-6)))
    bias = torch.load(tmp_path / "ckpt.pt", weights_only=True)["G"]["net.4.bias"]
    assert bias.abs().max() < 1e-3  # logit of 1/2; of the first 10,000 alone it would be -16


@pytest.mark.parametrize("flags", [("--width", 17), ("--units", 9), ("--z-dim", 5),
                                   ("--size", 28), ("--data", "faces")])
def test_resume_refuses_another_network(paper, train, tmp_path, capfd, flags):
    train.train(train.parse_args(tiny(paper, tmp_path, "--width", 16, "--units", 8, "--steps", 1)))
    assert_resume_refused(train, tmp_path, capfd, flags)


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
def test_log_likelihood(sample, n, m):
    """784 pixels near the samples, where float32 loses most: to a hundredth of a nat."""
    torch.manual_seed(0)
    mu = torch.rand(m, 784).round()
    x = (mu[torch.arange(n) % m] + 0.1 * torch.randn(n, 784)).clamp(0, 1)
    for sigma in (0.1, 1.0):
        assert sample.log_likelihood(x, mu, sigma).tolist() == pytest.approx(
            parzen_by_hand(x, mu, sigma), abs=0.02)


def test_log_likelihood_of_one_sample_is_the_gaussian(sample):
    x, mu = torch.rand(700, 6), torch.rand(1, 6)  # more than one part of 500
    normal = torch.distributions.Normal(mu[0], 0.3)
    assert torch.allclose(sample.log_likelihood(x, mu, 0.3), normal.log_prob(x).sum(1), atol=1e-4)


def test_sigma_is_chosen_on_validation_images(sample):
    torch.manual_seed(0)
    mu = torch.rand(50, 1, 3, 3)  # in [0, 1]; images are in [-1, 1]

    def near(noise, n):
        return mu[torch.arange(n) % 50] + noise * torch.randn(n, 1, 3, 3)

    for noise in (0.05, 0.3):
        valid, test = near(noise, 100), near(3, 60)  # the test images want sigma = 1
        mean, error, sigma = sample.parzen(mu * 2 - 1, valid * 2 - 1, test * 2 - 1)
        score = {s: sum(parzen_by_hand(valid.flatten(1), mu.flatten(1), s))
                 for s in (10 ** (i / 9 - 1) for i in range(10))}
        assert sigma == max(score, key=score.get) < 0.9
        ll = torch.tensor(parzen_by_hand(test.flatten(1), mu.flatten(1), sigma))
        assert mean == pytest.approx(ll.mean().item(), rel=1e-4)
        assert error == pytest.approx((ll.std() / 60 ** 0.5).item(), rel=1e-4)
