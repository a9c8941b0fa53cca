"""cgan/: the paper's MNIST networks and schedule, the class in both networks, Fig. 2, Parzen."""

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    Watch,
    assert_sgd,
    load,
    n_parameters,
    n_train,
    tiny,
    write_data,
)
from torch import nn

from common import data

model, train, sample = (load("cgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
NETS = {"G": train.Generator, "D": train.Discriminator}
SMALL = ("--width", 16, "--units", 8, "--sample-every", 100, "--save-every", 100)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags; what happened in it, and the examples that it had.

    watch.asked: of every training pass, in their order, the network and its classes.
    """
    def go(*flags):
        asked = []
        for name, kind in NETS.items():
            monkeypatch.setattr(kind, "forward", noting(asked, name, kind.forward))
        watch = Watch(monkeypatch, train, torch.optim.SGD)
        watch.asked = asked
        train.train(train.parse_args(tiny("cgan", tmp_path / "run", *SMALL, *flags)))
        return watch, data.load_labelled("digits", 16).subset(0, n_train())
    return go


def noting(asked, name, forward):
    def noted(net, x, y):
        if torch.is_grad_enabled():  # sampling is no training
            asked.append((name, y.clone()))
        return forward(net, x, y)
    return noted


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.data, args.size, args.batch_size, args.k) == ("mnist", 28, 100, 1)
    assert (args.lr, args.lr_decay, args.z_dim, args.dropout) == (0.1, 1.00004, 100, 0.5)
    assert (args.saturating, args.steps) == (False, 250 * 500)
    G = model.Generator(args.size, 1, 10, args.z_dim, args.width, args.dropout)
    D = model.Discriminator(args.size, 1, 10, args.units, args.dropout)
    assert (n_parameters(G), n_parameters(D)) == (2_413_984, 1_224_351)
    assert (n_parameters(model.Generator()), n_parameters(model.Discriminator())) == (
        2_413_984, 1_224_351)


@pytest.mark.parametrize("size, channels, n_classes", [(16, 1, 2), (28, 1, 10), (64, 3, 3)])
def test_shapes_and_range(size, channels, n_classes):
    G = model.Generator(size, channels, n_classes, 7, 20)
    D = model.Discriminator(size, channels, n_classes, 6)
    nn.init.normal_(G.net[4].weight, std=50)  # to reach the ends of the range
    for n in (1, 5):
        y = torch.arange(n) % n_classes
        x = G(train.sample_z(n, 7), y)
        assert x.shape == (n, channels, size, size) and D(x, y).shape == (n,)
    assert -1 <= x.min() < -0.8 < 0.8 < x.max() <= 1


def test_layers():
    def kinds(net):
        return [type(m) for m in net]

    G, D = model.Generator(), model.Discriminator()
    assert [(m.in_features, m.out_features) for m in G.modules() if isinstance(m, nn.Linear)] == [
        (100, 200), (10, 1000), (1200, 1200), (1200, 784)]
    assert kinds(G.of_z) == kinds(G.of_y) == [nn.Linear, nn.ReLU]
    assert kinds(G.net) == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.Sigmoid,
                            nn.Unflatten]
    assert [(m.linear.in_features, m.units, m.pieces) for m in D.modules()
            if isinstance(m, model.Maxout)] == [(784, 240, 5), (10, 50, 5), (290, 240, 4)]
    assert kinds(D.net) == [nn.Dropout, model.Maxout, nn.Dropout, nn.Linear]
    assert [m.p for net in (G, D) for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5] * 4


def test_initialisation():
    """As in the GAN paper's code, but for y: one input is on, where an image has 784."""
    torch.manual_seed(0)
    for net, a in ((model.Generator(), 0.05), (model.Discriminator(), 0.005)):
        for m in net.modules():
            if isinstance(m, nn.Linear):
                limit = 1 if m in net.of_y.modules() else a
                assert 0.9 * limit < m.weight.abs().max() <= limit and (m.bias == 0).all()
                assert m.weight.std().item() == pytest.approx(limit / 3 ** 0.5, rel=0.05)


def test_d_sees_the_papers_pixels_and_one_hot_classes():
    """Pixels in [0, 1]; the numbers of the classes have no order."""
    D = model.Discriminator(16, 1, 4, 8).eval()
    x, y = torch.rand(3, 1, 16, 16) * 2 - 1, torch.tensor([2, 0, 3])
    one_hot = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    hidden = torch.cat([D.of_x((x + 1) / 2), D.of_y(one_hot)], 1)
    assert torch.allclose(D(x, y), D.net(hidden)[:, 0])
    G, z = model.Generator(16, 1, 4, 7, 20).eval(), torch.rand(3, 7)
    hidden = torch.cat([G.of_z(z), G.of_y(one_hot)], 1)
    assert torch.allclose(G(z, y), G.net(hidden) * 2 - 1)


def test_the_class_reaches_both_networks():
    """Another class, another output, and a gradient to all weights of the class's own layer."""
    torch.manual_seed(0)
    G, D = model.Generator(16, 1, 4, 7, 20).eval(), model.Discriminator(16, 1, 4, 8).eval()
    for net, inputs in ((G, train.sample_z(8, 7)), (D, torch.rand(8, 1, 16, 16))):
        for m in net.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.5)
        y = torch.arange(8) % 4
        out, other = net(inputs, y), net(inputs, y.roll(1))
        assert ((out - other).reshape(8, -1).abs().amax(1) > 1e-4).all()
        assert torch.equal(net(inputs[[5]], y[[5]]), net(inputs[[5]], torch.tensor([1])))
        out.sum().backward()
        first = net.of_y[0] if net is G else net.of_y.linear
        assert (first.weight.grad.abs().sum(0) > 0).all()  # of every class


def test_dropout_is_on_hidden_units_alone():
    """Not on z, x and y. A kept unit counts twice."""
    torch.manual_seed(0)
    G, D = model.Generator(16, 1, 4, 7, 20), model.Discriminator(16, 1, 4, 8)
    y, z, x = torch.arange(3), torch.rand(3, 7), torch.rand(3, 1, 16, 16)
    assert not torch.equal(D(x, y), D(x, y)) and not torch.equal(G(z, y), G(z, y))
    for own in (G.of_z, G.of_y, D.of_x, D.of_y):
        assert not any(isinstance(m, nn.Dropout) for m in own.modules())
    seen = []
    G.net[1].register_forward_hook(lambda m, args, out: seen.append(args[0]))
    G(z, y)
    hidden = torch.cat([G.of_z(z), G.of_y(F.one_hot(y, 4).float())], 1)
    kept = seen[0] != 0
    assert torch.allclose(seen[0][kept], 2 * hidden[kept])
    assert kept[hidden > 0].double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_samples_have_dropout_and_a_run_always_the_same():
    G, z, y = model.Generator(16, 1, 4, 7, 20), torch.rand(3, 7), torch.arange(3)
    x = train.sample(G, z, y)
    assert torch.equal(train.sample(G, z, y), x) and G.training
    assert not torch.equal(G.eval()(z, y), x)


def test_output_bias_is_the_logit_of_the_mean():
    G = model.Generator(16, 1, 4, 7, 20)
    mean = torch.rand(1, 16, 16) * 1.9 - 0.95
    mean[0, 0, 0] = -1  # a pixel that is always black must not become -inf, nor grey
    G.init_output_bias(mean)
    assert G.net[4].bias.isfinite().all()
    nn.init.zeros_(G.net[4].weight)
    x = G(train.sample_z(2, 7), torch.arange(2))
    assert torch.allclose(x, mean.expand(2, -1, -1, -1), atol=1e-5)


def test_z():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and 0 <= z.min() < 0.01 < 0.99 < z.max() < 1
        assert z.mean().item() == pytest.approx(0.5, abs=0.01)
        assert z.var().item() == pytest.approx(1 / 12, abs=0.003)


# The schedules

@pytest.mark.parametrize("decay, updates, lr", [
    (1.00004, 0, 0.1), (1.00004, 1, 0.1 / 1.00004), (1.000004, 1, 0.1 / 1.000004),
    (1.00004, 57_565, 0.01), (1.00004, 10 ** 6, 1e-6), (1, 10 ** 6, 0.1)])
def test_learning_rate(decay, updates, lr):
    assert train.learning_rate(0.1, decay, updates) == pytest.approx(lr, rel=1e-4 * (lr == 0.01)
                                                                     or 1e-9)


@pytest.mark.parametrize("decay", [1.00004, 1.5])
def test_schedules_are_used(watched, decay):
    """Over two epochs and a half, for G and, at half the rate, for D."""
    watch, examples = watched("--steps", 6, "--batch-size", 27, "--lr-decay", decay)
    assert_sgd(watch, lambda i: 0.1 / decay ** i, lambda i: train.momentum(27 * i / len(examples)))
    assert len(watch.all("step")) == 12 and train.momentum(27 * 5 / len(examples)) > 0.5


# A step

@pytest.mark.parametrize("k", [1, 3])
def test_a_step(watched, k):
    watch, examples = watched("--steps", 2, "--k", k)
    once = " ".join(["G D D step(D)"] * k + ["G D step(G)"])
    assert watch.order() == f"{once} {once}"
    assert [e.fresh for e in watch.all("step")] == ([{"D"}] * k + [{"G"}]) * 2

    z = torch.stack([e.x for e in watch.all("G")])
    assert len(z.flatten(0, 1).unique(dim=0)) == len(z) * 4  # fresh noise each time
    passes = zip(watch.all("D"), (y for name, y in watch.asked if name == "D"), strict=True)
    made = zip(watch.all("G"), (y for name, y in watch.asked if name == "G"), strict=True)
    batches = examples.batches(4, seed=0)
    for _ in range(2):
        for i in range(k + 1):
            (fake, y_fake) = next(made)
            if i < k:
                x, y = next(batches)
                real, y_real = next(passes)
                assert torch.equal(real.x, x) and torch.equal(y_real, y)  # the picture's own class
            again, y_again = next(passes)
            assert torch.equal(again.x, fake.y)
            assert torch.equal(y_again, y_fake)  # what G was asked for, D is told
            assert torch.equal(y_fake, y)        # p(y) is that of the data
    assert all(e.training for e in watch.all("D") + watch.all("G"))  # dropout is on, always


def test_training_starts_at_the_mean_image(watched):
    watch, examples = watched("--steps", 1)
    p = ((examples[:][0].mean(0) + 1) / 2).clamp(1e-7, 1 - 1e-7)
    assert torch.allclose(watch.all("G")[0].weights[-1], torch.logit(p).flatten(), atol=1e-5)


def test_dropout_flag(watched):
    for p in (0, 0.25):
        watch, _ = watched("--steps", 2, "--dropout", p, "--resume" if p else "--workers=0")
        for net in watch.nets.values():
            assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {p}


# Data with classes

def test_class_folders(watched, tmp_path):
    """Their names are the classes; all pictures are trained on, the last class's too."""
    write_data("cgan", tmp_path / "mine", 6)
    watch, _ = watched("--steps", 3, "--data", tmp_path / "mine")
    ckpt = torch.load(tmp_path / "run" / "ckpt.pt", weights_only=True)
    assert ckpt["classes"] == ["one", "two"] and ckpt["y_fixed"].tolist() == [0] * 8 + [1] * 8
    first = torch.cat([y for name, y in watch.asked if name == "G"][::2])  # 3 batches of 4: all
    assert first.bincount().tolist() == [6, 6]


def test_pictures_of_a_run_are_a_class_a_row(watched, tmp_path):
    watched("--steps", 1)
    ckpt = torch.load(tmp_path / "run" / "ckpt.pt", weights_only=True)
    assert ckpt["classes"] == list("0123456789")
    assert ckpt["y_fixed"].tolist() == [i // 8 for i in range(80)]
    assert len(ckpt["z_fixed"].unique(dim=0)) == 80


# sample.py: Table 1, Fig. 2

def test_parzen_takes_1000_samples_of_each_class(monkeypatch):
    """[Table 1] G draws the number of its class, and the window must be fitted on all of them."""
    ckpt = {"classes": ["a", "b", "c"], "args": {"z_dim": 2}}
    seen = {}
    monkeypatch.setattr(sample, "log_likelihood",
                        lambda x, mu, sigma: seen.update(mu=mu) or x[:, 0])
    x = torch.zeros(20, 1, 1, 1)
    sample.parzen(lambda z, y: y.float()[:, None, None, None] * 2 - 1, ckpt, x, x)
    assert seen["mu"].flatten().long().bincount().tolist() == [1000] * 3


# sample.py: classes

@pytest.fixture
def figures(watched, tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, the run's G and its checkpoint."""
    def draw(*flags):
        grids = {}
        monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                            grids.update({path.name: (x, options)}))
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), *flags])
        return grids, *sample.load_generator(tmp_path / "run" / "ckpt.pt")
    watched("--steps", 2)
    return draw


def test_generate_asks_for_y(figures):
    """With dropout, as G was trained, and as a function of its arguments alone."""
    _, G, ckpt = figures()
    asked = []
    G.register_forward_hook(lambda G, args, x: asked.append((args[1], G.training)))
    y = torch.randint(10, (300,))
    x = sample.generate(G, ckpt, 300, 5, y)
    assert torch.equal(torch.cat([y for y, _ in asked]), y) and all(mode for _, mode in asked)
    torch.manual_seed(5)
    z = sample.sample_z(300, 100)
    assert torch.equal(x[:250], G(z[:250], y[:250]))
    assert not torch.equal(x, sample.generate(G, ckpt, 300, 6, y))
    asked.clear()
    sample.generate(G, ckpt, 30)
    assert torch.equal(torch.cat([y for y, _ in asked]), torch.arange(30) % 10)  # each in turn


def test_fig_2_is_a_class_a_row(figures):
    grids, G, ckpt = figures("--seed", "3")
    x, options = grids["fig2.png"]
    assert options["n_cols"] == 10 and options["captions"] == list("0123456789")
    y = torch.arange(100) // 10
    assert torch.equal(x, sample.generate(G, ckpt, 100, 3, y))


def test_class_flag(figures, tmp_path):
    grids, G, ckpt = figures("--class", "7", "--n", "9", "--seed", "2")
    x = sample.generate(G, ckpt, 9, 2, torch.full((9,), 7))
    assert torch.equal(grids["class.png"][0], x) and "fig2.png" in grids
    assert "class.png" not in figures()[0]
    figures("--class", "7", "--n", "9", "--seed", "2", "--each", str(tmp_path / "sevens"))
    files = sorted((tmp_path / "sevens").iterdir())
    assert len(files) == 9
    for file, picture in zip(files, x, strict=True):
        read = sample_pixels(file)
        assert (read - (picture[0] + 1) * 127.5).abs().max() <= 1


def sample_pixels(file):
    from common.images import read_image
    return read_image(file, channels=1)[0].float()


def test_an_unknown_class_lists_the_names(figures, capfd):
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        figures("--class", "seven")
    err = capfd.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1
    assert "seven" in err and "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in err


def test_parzen_flag_keeps_the_sets_apart(figures, monkeypatch, capsys):
    seen = {}
    monkeypatch.setattr(sample, "parzen", lambda G, ckpt, valid, test: seen.update(
        valid=valid[:], test=test[:]) or (1.25, 0.5, 0.2))
    figures("--parzen")
    assert torch.equal(seen["valid"], data.load_images("digits", 16)[n_train():])
    assert torch.equal(seen["test"], data.load_images("digits", 16, split="test")[:])
    assert "1.2 +- 0.5 nats" in capsys.readouterr().out


def test_parzen_of_a_folder_is_refused(watched, tmp_path, capfd):
    write_data("cgan", tmp_path / "mine", 6)
    watched("--steps", 1, "--data", tmp_path / "mine")
    capfd.readouterr()
    with pytest.raises(SystemExit):
        sample.main(["--ckpt", str(tmp_path / "run" / "ckpt.pt"), "--parzen"])
    assert capfd.readouterr().err.count("\n") == 1
