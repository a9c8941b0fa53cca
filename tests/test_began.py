"""began/: the networks' counts, the controller k, M_global and the learning rate, the figures."""
import copy

import pytest
import torch
from algorithm import Adam, assert_same_run, float64
from conftest import assert_uniform, load, n_parameters, tiny

from common import data

model, train, sample = (load("began", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 3, "--z-dim", 5)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.z_dim, args.batch_size) == (64, 128, 64, 16)
    assert (args.gamma, args.lambda_k, args.eta, args.lr) == (0.5, 0.001, 1, 1e-4)
    assert n_parameters(model.Generator()) + n_parameters(model.Discriminator()) == 17_334_214


@pytest.mark.parametrize("size, width, channels, z_dim, skip, g, d", [
    (32, 128, 3, 64, False, 1_421_443, 8_308_547),
    (32, 64, 3, 64, False, 489_539, 2_606_019),
    (32, 64, 1, 64, False, 488_385, 2_603_713),
    (32, 64, 1, 64, True, 562_113, 2_677_441),
    (32, 16, 1, 32, False, 47_857, 229_569),
    (64, 128, 3, 64, False, 1_716_611, 15_617_603),
    (64, 128, 3, 64, True, 2_158_979, 16_059_971),
    (128, 128, 3, 64, False, 2_011_779, 26_760_899)])
def test_parameter_counts_and_shapes(size, width, channels, z_dim, skip, g, d):
    with torch.device("meta"):
        G = model.Generator(size, channels, z_dim, width, skip)
        D = model.Discriminator(size, channels, z_dim, width, skip)
        assert (n_parameters(G), n_parameters(D)) == (g, d)
        x = G(torch.empty(2, z_dim))
        assert x.shape == D(x).shape == (2, channels, size, size)


def test_other_sizes_are_refused():
    for net in (model.Generator, model.Discriminator):
        with pytest.raises(ValueError, match="16, 32, 64"):
            net(48)


def test_code_and_outputs_are_linear():
    """The code of D and both pictures are: with all else fixed, twice the layer is twice its value.
    Early ports had a non-linearity there."""
    torch.manual_seed(0)
    D, x = model.Discriminator(16, 1, 5, 3), torch.randn(2, 1, 16, 16)
    codes = []
    D.decoder.register_forward_pre_hook(lambda m, args: codes.append(args[0]))
    y = D(x)
    with torch.no_grad():
        D.decoder.image.weight.mul_(-2)
    assert torch.allclose(D(x), -2 * y, atol=1e-6)
    with torch.no_grad():
        D.code.weight.mul_(-2)
    D(x)
    assert torch.allclose(codes[-1], -2 * codes[0], atol=1e-6)


def test_skip_shows_h_0_to_every_later_block():
    """With G's layers between cut off, z reaches the picture by the connections alone."""
    torch.manual_seed(0)
    G, z = model.Generator(32, 1, 5, 3, skip=True), torch.randn(2, 5)
    with torch.no_grad():
        G.blocks[1][0].weight[:, :3] = 0  # what comes from the block before; the rest is h_0
        one = G(z)
        G.blocks[0][0].weight.mul_(7)
        assert torch.equal(G(z), one)
        G.project.weight.mul_(2)
        assert not torch.allclose(G(z), one)


def test_vanishing_residuals():
    """With carry 1 every layer that keeps its shape is the identity; with 0 they are as usual."""
    torch.manual_seed(0)
    G, z = model.Generator(16, 1, 5, 3), torch.randn(2, 5)
    h_0 = G.project(z).unflatten(1, (3, 8, 8))
    assert torch.allclose(G(z, 1.0), G.image(h_0.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    layer, x = G.blocks[0][0], torch.randn(2, 3, 8, 8)
    want = 0.25 * x + 0.75 * torch.nn.functional.elu(layer(x))
    assert torch.allclose(model.elu(layer, x, 0.25), want, atol=1e-6)
    assert [train.carry(step, n) for step, n in ((0, 8), (2, 8), (8, 8), (9, 8), (3, 0))] == [
        1, 0.75, 0, 0, 0]


def test_z():
    assert_uniform(train.sample_z, sample.sample_z)


# The losses

def test_losses():
    v, v_hat = torch.zeros(2, 1, 2, 2), torch.tensor([1.0, -2, 3, 0]).view(1, 1, 2, 2).repeat(
        2, 1, 1, 1)
    assert train.reconstruction(v, v_hat, 1).item() == 6 / 4  # the mean over pixels
    assert train.reconstruction(v, v_hat, 2).item() == 14 / 4
    real, fake, k = torch.tensor(5.0), torch.tensor(3.0), torch.tensor(0.25)
    assert train.d_loss(real, fake, k).item() == 5 - 0.25 * 3 and train.g_loss(fake).item() == 3


# A step

@pytest.mark.parametrize("flags", [
    (), ("--lambda-k", 3), ("--no-skip", "--residual", 3, "--eta", 1, "--size", 32)])
def test_steps_are_the_algorithms(tmp_path, flags):
    """z_D and z_G are two draws; G's gradient goes through input and target, D's through neither;
    k moves by gamma L(x) - L(G(z_G)), in [0, 1], and is a constant to both; M_global is summed."""
    with float64():
        args = train.parse_args(tiny("began", tmp_path, *SMALL, "--gamma", 0.9, *flags,
                                     "--steps", 3))
        train.train(args)
        torch.manual_seed(0)
        train.sample_z(64, 5)  # of the run's pictures
        shape = args.size, 3, 5, 3, args.skip
        G, D = model.Generator(*shape), model.Discriminator(*shape)
        opt_g, opt_d = (Adam(net.parameters(), args.beta1) for net in (G, D))
        rows = []
        k = M_sum = 0.0
        batches = data.load_images("faces", args.size).batches(4, seed=0)
        for step in (1, 2, 3):
            torch.manual_seed(step)
            c = max(0, 1 - step / args.residual) if args.residual else 0.0

            def L(v, c=c):
                return ((v - D(v, c)).abs() ** args.eta).mean()

            x, x_fake = next(batches), G(torch.rand(4, 5) * 2 - 1, c).detach()
            real = L(x)
            loss_d = real - k * L(x_fake)
            opt_d.step(loss_d, args.lr)
            loss_g = L(G(torch.rand(4, 5) * 2 - 1, c))
            opt_g.step(loss_g, args.lr)
            balance = 0.9 * real.item() - loss_g.item()
            k = min(max(k + args.lambda_k * balance, 0), 1)
            M = real.item() + abs(balance)
            M_sum += M
            rows.append([loss_d.item(), loss_g.item(), real.item(), loss_g.item(), k, M, args.lr])
    assert_same_run(tmp_path, rows, G=G, D=D)
    ckpt = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    assert ckpt["k"].item() == pytest.approx(k) and k > 0
    assert ckpt["M_sum"].item() == pytest.approx(M_sum)


@pytest.fixture
def run_with(tmp_path, monkeypatch):
    """A run whose L(x) is `real(i)` in step i and whose L of fakes is 1; its learning rates, k."""
    def go(real, *flags):
        calls, rates = [], []

        def reconstruction(v, v_hat, eta):
            calls.append(None)
            step, which = divmod(len(calls) - 1, 3)
            value = real(step + 1) if which == 0 else 1.0
            return (v - v_hat).mean() * 0 + value

        step = torch.optim.Adam.step
        monkeypatch.setattr(train, "reconstruction", reconstruction)
        monkeypatch.setattr(torch.optim.Adam, "step", lambda opt: (
            rates.append(opt.param_groups[0]["lr"]), step(opt)))
        train.train(train.parse_args(tiny("began", tmp_path / "run", *SMALL, *flags)))
        ckpt = torch.load(tmp_path / "run/ckpt.pt", weights_only=True)
        return rates[::2], ckpt
    return go


def test_learning_rate_is_halved_when_M_global_stalls(run_with):
    """Looked at every two steps: its mean falls, stays, rises; so from step 5 on, and from 7."""
    rates, ckpt = run_with(lambda step: [9, 9, 7, 7, 7, 7, 8, 8][step - 1], "--gamma", 0,
                           "--stall", 2, "--lr", 8e-5, "--lr-min", 1e-5)
    assert rates == pytest.approx([8e-5] * 6 + [4e-5] * 2)
    assert ckpt["halvings"] == 2 and ckpt["M_best"] == pytest.approx(7 + 1)


def test_learning_rate_has_a_floor(run_with):
    rates, _ = run_with(lambda step: step, "--stall", 1, "--lr", 8e-5, "--lr-min", 3e-5)
    assert rates == pytest.approx([8e-5] * 2 + [4e-5] + [3e-5] * 5)


def test_k_stays_in_its_bounds(run_with):
    _, ckpt = run_with(lambda step: 9.0, "--lambda-k", 0.01, "--gamma", 0.5)
    assert ckpt["k"].item() == pytest.approx(8 * 0.01 * (4.5 - 1))


@pytest.mark.parametrize("real, k", [(9.0, 1), (0.1, 0)])
def test_k_is_clipped(run_with, real, k):
    _, ckpt = run_with(lambda step: real, "--lambda-k", 9, "--gamma", 0.5)
    assert ckpt["k"].item() == k


# sample.py

def test_find_z(tmp_path):
    """A picture that G draws is found again, and no network changes."""
    torch.manual_seed(0)
    G = model.Generator(16, 1, 4, 8).requires_grad_(False)
    before = copy.deepcopy(G.state_dict())
    x = G(sample.sample_z(3, 4))
    z = sample.find_z(G, x, 4, 0.0, 400)
    off = (x - G(z)).abs().mean()
    assert off < 0.05 * (x - G(torch.zeros(3, 4))).abs().mean()
    assert all(torch.equal(before[name], p) for name, p in G.state_dict().items())


def test_interpolations():
    """With G(z) = z every number can be seen."""
    def G(z, c):
        return z.view(-1, 1, 1, 2)

    x, z = torch.rand(4, 1, 1, 2), torch.rand(4, 2)
    rows = sample.interpolations(G, x, z, 0.0).unflatten(0, (2, 10)).flatten(2)
    for i, row in enumerate(rows):
        a, b = 2 * i, 2 * i + 1
        assert torch.equal(row[0], x[a].flatten()) and torch.equal(row[9], x[b].flatten())
        for j in range(8):
            assert torch.allclose(row[1 + j], z[a] + (z[b] - z[a]) * j / 7, atol=1e-6)


def test_figures(tmp_path, monkeypatch):
    runs = [tmp_path / name for name in ("0.3", "0.7")]
    for path in runs:
        train.train(train.parse_args(tiny("began", path, *SMALL, "--gamma", path.name,
                                          "--residual", 20)))
    grids, save = {}, sample.save_grid
    monkeypatch.setattr(sample, "save_grid", lambda path, x, *args, **options: (
        grids.update({path.name: (x, options)}), save(path, x, *args, **options)))
    sample.main(["--ckpt", str(runs[0] / "ckpt.pt"), "--runs", *map(str, runs), "--frames", "2",
                 "--search", "2"])
    x, options = grids["fig3.png"]
    assert options["captions"] == ["gamma 0.3", "gamma 0.7"]
    for path, row in zip(runs, x.split(16), strict=True):
        G, ckpt = sample.load_generator(path / "ckpt.pt")
        assert torch.allclose(row, G(ckpt["z_fixed"][:16], 1 - 8 / 20), atol=1e-6)
    rows = grids["fig4.png"][0].unflatten(0, (8, 10))
    faces = data.load_images("faces", 16)
    assert torch.equal(rows[:4, 0], faces[:8:2]) and torch.equal(rows[4:, 9], faces[:4].flip(3))
