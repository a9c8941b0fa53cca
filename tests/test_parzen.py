"""Parzen's window, Table 1 of GAN and of CGAN, in the sample.py of both."""
import math

import pytest
import torch
from conftest import load


@pytest.fixture(params=["gan", "cgan"])
def sample(request):
    return load(request.param, "sample")


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
