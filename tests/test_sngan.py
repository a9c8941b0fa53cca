"""sngan/: spectral normalisation, the authors' networks, projection, their order of updates."""
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import load, main, n_parameters, tiny
from torch import nn

from common import data

model, train, sample = (load("sngan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width-g", 4, "--width-d", 4, "--z-dim", 6)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.data, args.size, args.arch, args.width_g, args.width_d) == (
        "cifar10", 32, "resnet", 256, 128)
    assert (args.batch_size, args.n_dis, args.lr, args.beta1, args.beta2) == (64, 5, 2e-4, 0, 0.9)
    assert (args.steps, args.decay, args.norm, args.clip, args.hinge) == (
        50_000, 50_000, "spectral", 0, True)


@pytest.mark.parametrize("size, width_g, width_d, n_classes, arch, g, d", [
    (32, 256, 128, 0, "resnet", 4_276_739, 1_053_824), (32, 64, 64, 0, "resnet", 368_771, 264_768),
    (32, 256, 128, 10, "resnet", 4_304_387, 1_055_104),
    (64, 64, 64, 1000, "resnet", 17_974_915, 11_165_441),
    (128, 64, 64, 1000, "resnet", 41_996_931, 30_041_857),
    (128, 64, 64, 0, "resnet", 32_150_787, 29_017_857),
    (32, 64, 64, 0, "cnn", 3_813_379, 2_935_873)])
def test_parameter_counts(size, width_g, width_d, n_classes, arch, g, d):
    with torch.device("meta"):
        assert n_parameters(model.Generator(size, 3, 128, width_g, n_classes, arch)) == g
        assert n_parameters(model.Discriminator(size, 3, width_d, n_classes, arch)) == d


@pytest.mark.parametrize("arch", ["resnet", "cnn"])
@pytest.mark.parametrize("size, channels", [(32, 1), (48, 3), (64, 3), (128, 3)])
def test_shapes(size, channels, arch):
    with torch.device("meta"):
        n_classes = 7 if arch == "resnet" else 0
        G = model.Generator(size, channels, 6, 2, n_classes, arch)
        D = model.Discriminator(size, channels, 2, n_classes, arch)
        y = torch.zeros(3, dtype=torch.int64) if n_classes else None
        x = G(torch.empty(3, 6), y)
        assert x.shape == (3, channels, size, size) and D(x, y).shape == (3,)


def test_initialisation():
    torch.manual_seed(0)
    G, D = model.Generator(width=64), model.Discriminator(width=64, n_classes=50, norm="none")
    for m, gain in [(G.blocks[0].conv1, 2), (D.features[1].conv2, 2), (G.blocks[0].shortcut, 1),
                    (D.features[0].shortcut, 1), (G.image[2], 1), (G.project, 1), (D.embed, 1)]:
        out, of, *area = m.weight.shape
        variance = gain * 2 / ((out + of) * np.prod(area))
        assert m.weight.var().item() == pytest.approx(variance, rel=0.15)
        assert m.weight.abs().max().item() == pytest.approx((3 * variance) ** 0.5, rel=0.02)
    assert all((p == 0).all() for net in (G, D) for name, p in net.named_parameters()
               if name.endswith("bias"))
    G = model.Generator(width=16, arch="cnn")
    assert G.project.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_block_of_d_by_hand():
    """The shortcut sees x, not its ReLU; first pool then convolve is convolve then pool; the first
    block does it with the image as it is; hidden channels are those that come in."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8, 8)
    for first, pool in ((False, True), (True, True), (False, False)):
        block, before = model.DownBlock(6, 6, pool, first), x.clone()
        h = block.conv2(F.relu(block.conv1(x if first else F.relu(x))))
        right = F.avg_pool2d(h + block.shortcut(x), 2) if pool else h + x
        assert torch.allclose(block(x), right, atol=1e-5) and torch.equal(x, before)
    assert model.DownBlock(6, 9).conv1.out_channels == 6
    assert model.DownBlock(6, 9, first=True).conv1.out_channels == 9
    first, *others = (m for m in model.Discriminator(width=4).features
                      if isinstance(m, model.DownBlock))
    assert first.first and [(b.first, b.pool) for b in others] == [
        (False, True), (False, False), (False, False)]


def test_the_slopes_of_the_activations():
    slopes = {m.negative_slope for m in model.Discriminator(width=2, arch="cnn").modules()
              if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}


def test_d_sums_over_places_and_projects():
    """<embedding of y, features>, 1802.05637 Eq. 3; the features are sums, not means."""
    torch.manual_seed(0)
    D = model.Discriminator(width=4, n_classes=3).eval()
    x, y = torch.randn(5, 3, 32, 32), torch.tensor([0, 2, 1, 1, 0])
    h = D.features(x).sum((2, 3))
    by_hand = [D.logit.weight[0] @ h[i] + D.embed.weight[y[i]] @ h[i] for i in range(5)]
    assert torch.allclose(D(x, y), torch.stack(by_hand), atol=1e-5)
    assert not torch.allclose(D(x, y), D(x, y.roll(1)), atol=1e-3)
    u = D.embed.parametrizations.weight[0].u
    assert u.shape == (3,)  # the matrix is (n_classes, features)


def test_classes_are_neither_forgotten_nor_ignored():
    for n_classes, y in ((3, None), (0, torch.tensor([0, 1]))):
        G, D = model.Generator(width=4, n_classes=n_classes), model.Discriminator(
            width=4, n_classes=n_classes)
        for net, x in (G, torch.zeros(2, 128)), (D, torch.zeros(2, 3, 32, 32)):
            with pytest.raises(AssertionError, match="n_classes"):
                net(x, y)


def test_batch_norm_of_a_class():
    torch.manual_seed(0)
    norm = model.BatchNorm(4, 3)
    x, y = torch.randn(6, 4, 5, 5), torch.tensor([0, 1, 2, 2, 1, 0])
    assert torch.allclose(norm(x, y), F.batch_norm(x, None, None, training=True, eps=2e-5))
    with torch.no_grad():
        norm.gamma[1], norm.beta[1] = 3, -2
    one, other = norm(x, y), model.BatchNorm(4)(x)
    assert torch.allclose(one[y == 1], 3 * other[y == 1] - 2, atol=1e-5)
    assert torch.allclose(one[y != 1], other[y != 1], atol=1e-5)
    G = model.Generator(width=4, n_classes=3)
    plain = {name for name, m in G.named_modules()
             if isinstance(m, model.BatchNorm) and m.affine}
    assert plain == {"image.0"}  # the last one has no classes


# Spectral normalisation

@pytest.mark.parametrize("shape", [(7, 3, 3, 3), (5, 40), (9, 4)])
def test_sigma_is_the_svds(shape):
    torch.manual_seed(0)
    W = torch.randn(shape, dtype=torch.float64)
    norm = model.SpectralNorm(W).double()
    for _ in range(300):
        W_bar = norm(W)
    assert torch.allclose(W_bar, W / torch.linalg.svdvals(W.flatten(1))[0], rtol=1e-6)
    with torch.no_grad():
        W[0] *= 5  # it follows the weights, one iteration a pass
    far = [(torch.linalg.svdvals(norm(W).flatten(1))[0] - 1).item() for _ in range(30)]
    assert far[0] > 1e-3 and all(b <= a + 1e-12 for a, b in zip(far, far[1:], strict=False))


def test_the_gradient_goes_through_sigma():
    """d sigma / d W = u v' [Eqs. 10-12]: as by finite differences of W / sigma, sigma by SVD."""
    torch.manual_seed(0)
    W = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    norm, c = model.SpectralNorm(W).double(), torch.randn_like(W)
    for _ in range(500):
        norm(W)
    gradient, = torch.autograd.grad((norm(W) * c).sum(), W)

    def f(W):
        return (W / torch.linalg.svdvals(W.flatten(1))[0] * c).sum()

    u, _, v = torch.linalg.svd(W.detach().flatten(1), full_matrices=False)
    sigma = (u[:, 0] @ W.detach().flatten(1) @ v[0])
    eq12 = c / sigma - (c * W.detach()).sum() / sigma ** 2 * torch.outer(u[:, 0], v[0]).view_as(W)
    assert torch.allclose(gradient, eq12, atol=1e-8)
    for i in (0, 17, 40):
        h = torch.zeros(W.numel(), dtype=torch.float64)
        h[i] = 1e-6
        slope = (f(W + h.view_as(W)) - f(W - h.view_as(W))) / 2e-6
        assert gradient.flatten()[i].item() == pytest.approx(slope.item(), abs=1e-7)


@pytest.mark.parametrize("arch, n_classes", [("resnet", 5), ("cnn", 0)])
def test_all_layers_of_d_and_none_of_g(arch, n_classes):
    torch.manual_seed(0)
    D = model.Discriminator(width=4, n_classes=n_classes, arch=arch).double()
    G = model.Generator(width=4, arch=arch)
    layers = [m for m in D.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
    norms = [m for m in D.modules() if isinstance(m, model.SpectralNorm)]
    assert len(layers) == len(norms) == (12 if arch == "resnet" else 8)
    assert not [m for m in G.modules() if isinstance(m, model.SpectralNorm)]
    for _ in range(1000):
        weights = [m.weight for m in layers]
    for W in weights:
        assert torch.linalg.svdvals(W.flatten(1))[0].item() == pytest.approx(1, abs=1e-3)


def test_one_iteration_a_training_pass_none_in_eval():
    torch.manual_seed(0)
    D = model.Discriminator(width=4)
    assert len([name for name in D.state_dict() if name.endswith(".u")]) == 11  # saved
    assert not [name for name, _ in D.named_parameters() if name.endswith(".u")]  # not trained
    W = D.features[0].conv1.parametrizations.weight
    u, M = W[0].u.clone(), W.original.detach().flatten(1)
    x = torch.randn(2, 3, 32, 32)
    D.eval()(x)
    assert torch.equal(W[0].u, u)
    for _ in range(3):
        D.train()(x)
        v = M.T @ u / (M.T @ u).norm()  # Eqs. 18, 19
        u = M @ v / (M @ v).norm()
        assert torch.allclose(W[0].u, u, atol=1e-6)


def test_weight_normalisation():
    D = model.Discriminator(width=4, norm="weight")
    W = D.features[1].conv1.weight.flatten(1)
    assert torch.allclose(W.norm(dim=1), torch.ones(4))


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 2
    hinge = sum(max(0, 1 - a) for a in real.tolist()) / 50
    hinge += sum(max(0, 1 + a) for a in fake.tolist()) / 50
    assert train.d_loss(real, fake).item() == pytest.approx(hinge)
    assert train.g_loss(fake).item() == pytest.approx(-fake.mean().item())  # no hinge for G
    log = torch.log(real.sigmoid()).mean() + torch.log(1 - fake.sigmoid()).mean()
    assert train.d_loss(real, fake, False).item() == pytest.approx(-log.item())
    assert train.g_loss(fake, False).item() == pytest.approx(-fake.sigmoid().log().mean().item())


# A step

@pytest.mark.parametrize("flags", [
    "--conditional --n-dis 3 --decay 4", "--no-hinge --n-dis 1 --beta1 0.5",
    "--norm none --clip 0.03 --arch cnn --n-dis 2"])
def test_steps_are_the_authors_algorithm(tmp_path, monkeypatch, flags):
    """G first, on twice the images; then n_dis updates of D on new data, noise and classes."""
    start, keep = [], train.Run.keep
    monkeypatch.setattr(train.Run, "keep", lambda run, *sets, G, D, **parts: (
        start.extend(copy.deepcopy((G, D))), keep(run, *sets, G=G, D=D, **parts)))
    with float64():
        args = train.parse_args(
            tiny("sngan", tmp_path / "run", "--steps", 3, *SMALL, *flags.split()))
        train.train(args)
        G, D = start
        load = data.load_labelled if args.conditional else data.load_images
        batches = load("digits", 32).batches(4, seed=0)
        opt_g, opt_d = (Adam(net.parameters(), args.beta1, 0.9) for net in (G, D))

        def classes(n):
            return (torch.randint(10, (n,)),) if args.conditional else ()

        rows = []
        for step in (1, 2, 3):
            torch.manual_seed(step)
            lr = 1e-3 * (4 - step) / 3 if args.decay else 1e-3  # over all 3 steps
            y = classes(8)
            fake = D(G(torch.randn(8, 6), *y), *y)
            loss_g = -fake.mean() if args.hinge else -fake.sigmoid().log().mean()
            opt_g.step(loss_g, lr)
            for _ in range(args.n_dis):
                x, *y = next(batches) if args.conditional else (next(batches),)
                y_fake = classes(4)
                x_fake = G(torch.randn(4, 6), *y_fake).detach()
                real, fake = D(x, *y), D(x_fake, *y_fake)
                loss_d = ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
                          if args.hinge else
                          -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean())
                opt_d.step(loss_d, lr)
                with torch.no_grad():
                    for p in D.parameters() if args.clip else ():
                        p.clamp_(-0.03, 0.03)
            rows.append([t.mean().item() for t in (loss_d, loss_g, real, fake)])
        assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D)
    assert not args.clip or all(p.abs().max() <= 0.03 for p in D.parameters())


def test_classes_of_fakes_are_all_alike():
    y = train.sample_y(20_000, 10)
    assert y.bincount(minlength=10).min() > 1800 and len(y.bincount()) == 10  # class 9 too
    assert train.sample_y(3, 0) is None


def test_resume_with_a_schedule_is_exact(tmp_path):
    flags = (*SMALL, "--conditional", "--decay", 4, "--steps", 4)
    assert main("sngan", *tiny("sngan", tmp_path / "a", *flags)) == 0
    assert main("sngan", *tiny("sngan", tmp_path / "b", *flags, "--steps", 2, "--decay", 2)) == 0
    assert main("sngan", "--out", tmp_path / "a", "--resume", "--steps", 5) == 0
    lr = torch.load(tmp_path / "a/ckpt.pt", weights_only=True)["opt_d"]["param_groups"][0]["lr"]
    assert lr == pytest.approx(1e-3 / 4)  # the last of 4 steps


def test_classes_need_the_residual_networks(tmp_path, capfd):
    assert main("sngan", *tiny("sngan", tmp_path, "--conditional", "--arch", "cnn")) == 2
    assert "--arch resnet" in capfd.readouterr().err


# sample.py

@pytest.fixture(scope="module")
def runs(small_data, tmp_path_factory):
    """Checkpoints with classes, and of the three norms."""
    out, paths = tmp_path_factory.mktemp("runs"), {}
    for name, flags in {"classes": ["--conditional"], "wn": ["--norm", "weight"],
                        "sn": [], "wc": ["--norm", "none", "--clip", 0.01]}.items():
        assert main("sngan", *tiny("sngan", out / name, *SMALL, "--steps", 2, *flags)) == 0
        paths[name] = out / name / "ckpt.pt"
    return paths


def test_rows_are_classes(runs, monkeypatch):
    grids = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: (x, options)}))
    sample.main(["--ckpt", str(runs["classes"]), "--classes", "7", "3", "--frames", "2"])
    x, options = grids["classes.png"]
    G, ckpt = sample.load_generator(runs["classes"])
    assert options["captions"] == ["7", "3"] and len(x) == 20
    torch.manual_seed(0)
    z, y = torch.randn(20, 6), torch.tensor([ckpt["classes"].index("3")] * 10)
    assert torch.allclose(x[10:], G(z[10:], y), atol=1e-5)
    with pytest.raises(SystemExit):
        sample.main(["--ckpt", str(runs["sn"]), "--classes", "3"])


def test_names_of_single_files_tell_the_class(runs, tmp_path):
    sample.main(["--ckpt", str(runs["classes"]), "--n", "3", "--each", str(tmp_path / "all")])
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [
        "000000-0.png", "000001-1.png", "000002-2.png"]


def test_fig_3(runs, tmp_path, monkeypatch):
    tables = []
    monkeypatch.setattr(sample, "save_curves", lambda path, rows:
                        tables.append((path.name, Path(rows).read_text())))
    sample.main(["--ckpt", str(runs["sn"]), "--out", str(tmp_path), "--frames", "2",
                 "--against", str(runs["wn"]), str(runs["wc"])])
    (name, text), = tables
    head, *rows = text.splitlines()
    assert (name, head) == ("fig3.png", "layer,spectral,weight,clip 0.01")
    assert len(rows) == 10 * 51  # ten convolutions
    assert list(map(float, rows[51].split(","))) == [2, 1, 1, 1]  # a layer's largest
    ckpt = sample.load_generator(runs["wn"])[1]
    W = ckpt["D"]["features.0.conv2.parametrizations.weight.original"].flatten(1)
    s = torch.linalg.svdvals(W / W.norm(dim=1, keepdim=True)) ** 2
    assert float(rows[51 + 49].split(",")[2]) == pytest.approx((s[-1] / s[0]).item(), abs=1e-5)


def authors_file(path, G, last, n_classes):
    """G as the authors' code would have saved it, by the names of its links."""
    arrays = {"l1/W": G.project.weight, "l1/b": G.project.bias}
    end = f"{'c' if last == 5 else 'l'}{last}"
    arrays |= {f"{end}/W": G.image[2].weight, f"{end}/b": G.image[2].bias}
    norms = {f"b{last}": G.image[0]}
    for i, block in enumerate(G.blocks, 2):
        for theirs, m in (("c1", block.conv1), ("c2", block.conv2), ("c_sc", block.shortcut)):
            arrays |= {f"block{i}/{theirs}/W": m.weight, f"block{i}/{theirs}/b": m.bias}
        norms |= {f"block{i}/b1": block.norm1, f"block{i}/b2": block.norm2}
    for name, m in norms.items():
        arrays |= {f"{name}/avg_mean": m.running_mean, f"{name}/avg_var": m.running_var,
                   f"{name}/N": torch.tensor(0)}
        arrays |= ({f"{name}/gamma": m.weight, f"{name}/beta": m.bias} if m.affine else
                   {f"{name}/gammas/W": m.gamma, f"{name}/betas/W": m.beta})
    np.savez(path, **{name: a.detach().numpy() for name, a in arrays.items()})


@pytest.mark.parametrize("size, last, n_classes", [(128, 7, 11), (64, 6, 3), (32, 5, 0)])
def test_the_authors_generator(tmp_path, size, last, n_classes):
    torch.manual_seed(0)
    G = model.Generator(size, 3, 128, 2, n_classes)
    with torch.no_grad():
        for tensor in [*G.parameters(), *(b for b in G.buffers() if b.ndim)]:
            tensor.copy_(torch.rand_like(tensor))
    authors_file(tmp_path / "G.npz", G, last, n_classes)
    z = torch.randn(3, 128)
    y = torch.tensor([0, n_classes - 1, 1]) if n_classes else None
    G2, _ = sample.load_generator(sample.official(tmp_path / "G.npz"))
    assert torch.equal(G2(z, y), G.eval()(z, y))
    if n_classes == 11:
        sample.main(["--official", str(tmp_path / "G.npz"), "--classes", "10", "2", "--out",
                     str(tmp_path / "out"), "--frames", "2"])
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            "samples.png", "classes.png", "walk.gif"}
        with pytest.raises(SystemExit):  # there is no D to be compared
            sample.main(["--official", str(tmp_path / "G.npz"), "--out", str(tmp_path / "none"),
                         "--against", str(tmp_path / "G.pt")])
        assert not (tmp_path / "none").exists()


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("damage", ["pickle", "missing", "shape", "text", "gone"])
def test_other_files_are_refused(tmp_path, monkeypatch, capfd, damage):
    monkeypatch.chdir(tmp_path)
    authors_file("G.npz", model.Generator(32, 3, 128, 2), 5, 0)
    with np.load("G.npz") as file:
        arrays = dict(file)
    if damage == "pickle":
        arrays["l1/W"] = np.array([Evil()], dtype=object)
    elif damage == "missing":
        del arrays["block3/c2/W"]
    elif damage == "shape":
        arrays["block3/c2/W"] = arrays["block3/c2/W"][:1]
    np.savez("G.npz", **arrays)
    if damage == "text":
        (tmp_path / "G.npz").write_text("hello")
    with pytest.raises(SystemExit):
        sample.main(["--official", "nowhere.npz" if damage == "gone" else "G.npz"])
    err = capfd.readouterr().err
    assert err.startswith("error: --official") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["G.npz"]  # nothing was executed
