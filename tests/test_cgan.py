"""cgan/: the paper's MNIST networks, the class in both, the figures. test_gan_and_cgan.py has the
rest."""
import re

import pytest
import torch
import torch.nn.functional as F
from algorithm import SGD, assert_same_run, float64
from conftest import ROOT, load, n_parameters, n_train, tiny, write_data

from common import data
from common.images import read_image, write_image

model, train, sample = (load("cgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = "--width", 16, "--units", 8, "--batch-size", 18


# The paper's setting

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.data, args.size, args.batch_size, args.k) == ("mnist", 28, 100, 1)
    assert (args.lr, args.lr_decay, args.z_dim, args.dropout) == (0.1, 1.00004, 100, 0.5)
    assert (args.saturating, args.steps) == (False, 250 * 500)
    G = model.Generator(args.size, 1, 10, args.z_dim, args.width, args.dropout)
    D = model.Discriminator(args.size, 1, 10, args.units, args.dropout)
    for nets in ((G, D), (model.Generator(), model.Discriminator())):
        assert [n_parameters(net) for net in nets] == [2_413_984, 1_224_351]
    shapes = [[tuple(w.shape[::-1]) for w in net.parameters() if w.ndim == 2] for net in (G, D)]
    assert shapes[0] == [(100, 200), (10, 1000), (1200, 1200), (1200, 784)]
    assert shapes[1] == [(784, 240 * 5), (10, 50 * 5), (290, 240 * 4), (240, 1)]  # maxout's pieces


@pytest.mark.parametrize("size, channels, n_classes", [(16, 1, 2), (28, 1, 10), (64, 3, 3)])
def test_shapes_and_range(size, channels, n_classes):
    G = model.Generator(size, channels, n_classes, 7, 20)
    D = model.Discriminator(size, channels, n_classes, 6)
    torch.nn.init.normal_(G.net[4].weight, std=50)  # to reach the ends of the range
    for n in (1, 5):
        y = torch.arange(n) % n_classes
        x = G(train.sample_z(n, 7), y)
        assert x.shape == (n, channels, size, size) and D(x, y).shape == (n,)
    assert -1 <= x.min() < -0.8 < 0.8 < x.max() <= 1


def test_first_weights():
    """As in the GAN paper's code, but for y: one input is on, where an image has 784."""
    torch.manual_seed(0)
    for net, a in ((model.Generator(), 0.05), (model.Discriminator(), 0.005)):
        for name, w in net.named_parameters():
            limit = 1 if name.startswith("of_y") else a
            if name.endswith("bias"):
                assert (w == 0).all()
            else:
                assert 0.9 * limit < w.abs().max() <= limit
                assert w.std().item() == pytest.approx(limit / 3 ** 0.5, rel=0.05)


def test_z():
    for sample_z in (train.sample_z, sample.sample_z):
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and 0 <= z.min() < 0.01 < 0.99 < z.max() < 1
        assert z.mean().item() == pytest.approx(0.5, abs=0.01)
        assert z.var().item() == pytest.approx(1 / 12, abs=0.003)


# Eq. 2 by Algorithm 1 of the GAN paper, with the networks of Sec. 4.1, all written out again

def draw(w, z, y, p):
    """G's picture in the paper's range, [0, 1], with dropout p."""
    h = torch.cat([(z @ w[0].T + w[1]).relu(), (y @ w[2].T + w[3]).relu()], 1)
    h = (F.dropout(h, p) @ w[4].T + w[5]).relu()
    return torch.sigmoid(F.dropout(h, p) @ w[6].T + w[7])


def judge(w, x, y, p):
    """D(x|y), a probability, of pixels in [0, 1]."""
    def maxout(x, w, b, pieces):
        return (x @ w.T + b).view(len(x), -1, pieces).max(2).values

    h = torch.cat([maxout(x, *w[:2], 5), maxout(y, *w[2:4], 5)], 1)
    h = maxout(F.dropout(h, p), *w[4:6], 4)
    return torch.sigmoid(F.dropout(h, p) @ w[6].T + w[7])


@pytest.mark.parametrize("k, saturating, decay, dropout", [
    (1, False, 1.00004, 0.5), (2, False, 1.5, 0.25), (2, True, 1.00004, 0)])
def test_three_steps(tmp_path, k, saturating, decay, dropout):
    """With a stop after the second, and another learning rate from there on."""
    flags = [*SMALL, "--k", k, *["--saturating"] * saturating, "--dropout", dropout]
    flags += ["--lr-decay", decay] if decay != 1.00004 else []
    with float64():
        train.train(train.parse_args(tiny("cgan", tmp_path, *flags, "--steps", 2)))
        train.train(train.parse_args(["--resume", "--steps=3", "--lr=0.3", f"--out={tmp_path}"]))

        examples = data.load_labelled("digits", 16).subset(0, n_train())
        batches, rows = examples.batches(18, seed=0), []
        torch.manual_seed(0)
        train.sample_z(80, 100)
        G, D = model.Generator(16, 1, 10, 100, 16), model.Discriminator(16, 1, 10, 8)
        mean = ((examples[:][0].mean(0) + 1) / 2).clamp(1e-7, 1 - 1e-7)
        with torch.no_grad():
            G.net[4].bias.copy_((mean / (1 - mean)).log().flatten())
        w_g, w_d = list(G.parameters()), list(D.parameters())
        opt_g, opt_d = SGD(w_g), SGD(w_d)
        for step in (1, 2, 3):
            torch.manual_seed(step)
            lr = (0.1 if step < 3 else 0.3) / decay ** (step - 1)
            epoch = (step - 1) * k * 18 / 54
            m = 0.5 if epoch < 1 else 0.5 + 0.2 * (epoch - 1) / 249
            for _ in range(k):
                x, y = next(batches)
                y = torch.eye(10)[y]  # one-hot: the numbers of the classes have no order
                x_fake = draw(w_g, torch.rand(18, 100), y, dropout).detach()
                real = judge(w_d, (x.flatten(1) + 1) / 2, y, dropout)
                fake = judge(w_d, x_fake, y, dropout)
                loss_d = -real.log().mean() - (1 - fake).log().mean()
                opt_d.step(0.5 * loss_d, lr, m)  # [GAN code]
            again = judge(w_d, draw(w_g, torch.rand(18, 100), y, dropout), y, dropout)
            loss_g = (1 - again).log().mean() if saturating else -again.log().mean()
            opt_g.step(loss_g, lr, m)
            rows.append([v.mean().item() for v in (loss_d, loss_g, real, fake)])
    assert_same_run(tmp_path, rows, G=G, D=D)


def test_samples_have_dropout_and_a_run_always_the_same():
    G, z, y = model.Generator(16, 1, 4, 7, 20), torch.rand(3, 7), torch.arange(3)
    x = train.sample(G, z, y)
    assert torch.equal(train.sample(G, z, y), x) and not torch.equal(G.eval()(z, y), x)


# Data with classes

def test_class_folders(tmp_path, capfd):
    """Their names are the classes; all pictures are trained on; another set with as many classes is
    refused by the names, and Parzen's window wants images that G has not seen."""
    write_data("cgan", tmp_path / "mine", 6)
    out, seen = tmp_path / "run", []
    flags = tiny("cgan", out, *SMALL, "--batch-size", 4, "--steps", 3, "--data", tmp_path / "mine")
    load = train.load_labelled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "load_labelled", lambda *args, **kwargs:
                      seen.append(load(*args, **kwargs)) or seen[0])
        train.train(train.parse_args(flags))
    ckpt = torch.load(out / "ckpt.pt", weights_only=True)
    assert ckpt["classes"] == ["one", "two"] and ckpt["y_fixed"].tolist() == [0] * 8 + [1] * 8
    assert len(ckpt["z_fixed"].unique(dim=0)) == 16 and len(seen[0]) == 12
    (tmp_path / "mine/one").rename(tmp_path / "mine/zebra")
    for go, flags in ((train.train, ["--resume", "--steps=4", f"--out={out}"]),
                      (sample.main, [f"--ckpt={out / 'ckpt.pt'}", "--parzen"])):
        capfd.readouterr()
        with pytest.raises(SystemExit):
            go(train.parse_args(flags) if go is train.train else flags)
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and ("zebra" in err if go is train.train else "--parzen" in err)


def test_folders_from_a_csv(tmp_path, monkeypatch):
    """The lines of the README, on a flat folder and train.csv as on Kaggle."""
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "cgan/README.md").read_text(), re.S)
    (tmp_path / "images").mkdir()
    for i in range(6):
        write_image(tmp_path / f"images/{i}.png", torch.zeros(1, 16, 16))
    rows = "".join(f"{i},{'cat' if i % 2 else 'dog'}\n" for i in range(6))
    (tmp_path / "train.csv").write_text("id,label\n" + rows)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    examples = data.load_labelled("classes", 16)
    assert examples.classes == ["cat", "dog"] and examples[:][1].tolist() == [0] * 3 + [1] * 3
    assert len(list((tmp_path / "images").iterdir())) == 6  # copied


# sample.py

@pytest.fixture
def figures(tmp_path, monkeypatch):
    """What sample.py draws of a run, by file name, the run's G and its checkpoint."""
    grids = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, n_cols=8, captions=(), scale=1:
                        grids.update({path.name: (x, n_cols, captions)}))
    train.train(train.parse_args(tiny("cgan", tmp_path, *SMALL, "--steps", 2)))

    def draw(*flags):
        grids.clear()
        sample.main(["--ckpt", str(tmp_path / "ckpt.pt"), "--frames=2", *flags])
        return grids, *sample.load_generator(tmp_path / "ckpt.pt")
    return draw


def test_table_1_and_fig_2(figures, monkeypatch, capsys):
    """A class a row. 1,000 samples of each class, and images that G has not seen."""
    seen = {}
    monkeypatch.setattr(sample, "parzen", lambda mu, valid, test:
                        seen.update(mu=mu, valid=valid, test=test) or (1.25, 0.5, 0.2))
    grids, G, ckpt = figures("--seed=3", "--parzen")
    x, n_cols, captions = grids["fig2.png"]
    y = torch.arange(100) // 10
    assert (n_cols, captions) == (10, list("0123456789")) and "class.png" not in grids
    assert torch.equal(x, torch.cat([*sample.generate(G, ckpt, 100, 3, y)]))
    assert torch.equal(seen["mu"], torch.cat([*sample.generate(G, ckpt, 10_000)]))
    assert torch.equal(seen["valid"], data.load_images("digits", 16)[n_train():])
    assert torch.equal(seen["test"], data.load_images("digits", 16, split="test")[:])
    assert "1.2 +- 0.5 nats" in capsys.readouterr().out


def test_generate_asks_for_y(figures):
    """With dropout, as G was trained, and as a function of its arguments alone."""
    _, G, ckpt = figures()
    asked = []
    G.register_forward_hook(lambda G, args, x: asked.append(args[1]))
    y = torch.randint(10, (300,))
    x = torch.cat([*sample.generate(G, ckpt, 300, 5, y)])
    assert torch.equal(torch.cat(asked), y)
    torch.manual_seed(5)
    z = sample.sample_z(300, 100)
    first = z[:250], y[:250]
    assert torch.equal(x[:250], G(*first)) and not torch.equal(x[:250], G(*first))
    asked.clear()
    list(sample.generate(G, ckpt, 30))
    assert torch.equal(torch.cat(asked), torch.arange(30) % 10)  # each in turn


def test_class_flag(figures, tmp_path, capfd):
    grids, G, ckpt = figures("--class=7", "--n=9", "--seed=2")
    x = torch.cat([*sample.generate(G, ckpt, 9, 2, torch.full((9,), 7))])
    assert torch.equal(grids["class.png"][0], x)
    figures("--class=7", "--n=9", "--seed=2", "--each", str(tmp_path / "sevens"))
    files = sorted((tmp_path / "sevens").iterdir())
    assert [file.name for file in files] == [f"{i:06d}-7.png" for i in range(9)]
    for file, picture in zip(files, x, strict=True):
        assert (read_image(file, channels=1) - (picture + 1) * 127.5).abs().max() <= 1
    ckpt["classes"][1] = "T-shirt/top"
    args = sample.argparse.Namespace(n=12, seed=0, name=None)
    names = [name for name, _ in sample.each(G, ckpt, args)]
    assert names[1] == "000001-T-shirt or top" and names[11] == "000011-T-shirt or top"
    capfd.readouterr()
    with pytest.raises(SystemExit):
        figures("--class=seven")
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "seven" in err and "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in err
