"""biggan/: the networks, Eq. 3, whole steps against the algorithm, several processes as one, z
truncated, standing statistics, the author's names."""
import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from algorithm import assert_same_run, assert_same_weights, join_two, start_two
from conftest import FORK, load, main, n_parameters, tiny
from torch import nn

from common import data

model, train, sample = (load("biggan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 8, "--z-chunk", 2, "--embed-dim", 4, "--standing", 2, "--sample-every", 100,
         "--save-every", 100)


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    with torch.device("meta"):
        G = model.Generator(args.size, 3, args.z_chunk, args.width, 1000, args.embed_dim,
                            args.attention, args.arch, args.eps)
        D = model.Discriminator(args.size, 3, args.width, 1000, args.attention, args.arch)
    assert (n_parameters(G), n_parameters(D)) == (70_433_988, 87_982_370)
    assert (args.batch_size, args.n_dis, args.lr, args.ttur * args.lr) == (2048, 2, 5e-5, 2e-4)
    assert (args.beta1, args.beta2, args.eps, args.ortho, args.ema) == (
        0, 0.999, 1e-4, 1e-4, 0.9999)


@pytest.mark.parametrize("size, arch, width, z_chunk, n_classes, embed, at, g, d", [
    (128, "biggan", 64, 20, 1000, 128, 64, 31_978_628, 39_448_258),
    (128, "deep", 128, 128, 1000, 128, 64, 50_244_484, 34_590_210),
    (256, "biggan", 96, 20, 1000, 128, 128, 82_097_604, 98_635_298 + 590_592),
    (512, "biggan", 96, 20, 1000, 128, 64, 82_468_068, 98_801_378 + 590_592 + 9_312)])
def test_parameter_counts(size, arch, width, z_chunk, n_classes, embed, at, g, d):
    """(At 256 and 512 px of compare_gan's D, which has no 1x1 convolution, 590,592 and 9,312, where
    a block keeps its channels; ours, as the author's, has; D's attention is at 64 px.)"""
    with torch.device("meta"):
        G = model.Generator(size, 3, z_chunk, width, n_classes, embed, at, arch)
        D = model.Discriminator(size, 3, width, n_classes, min(at, 64), arch)
    assert (n_parameters(G), n_parameters(D)) == (g, d)


@pytest.mark.parametrize("arch", ["biggan", "deep"])
@pytest.mark.parametrize("size, channels, at", [(32, 1, 16), (64, 3, 0), (128, 3, 32), (256, 3, 8),
                                                (512, 3, 128)])
def test_shapes(size, channels, at, arch):
    with torch.device("meta"):
        G = model.Generator(size, channels, 2, 8, 7, 4, at, arch)
        D = model.Discriminator(size, channels, 8, 7, at, arch)
        y = torch.zeros(3, dtype=torch.int64)
        assert G.z_dim == (2 if arch == "deep" else 2 * len(model.UP[size]))
        x = G(torch.empty(3, G.z_dim), y)
        assert x.shape == (3, channels, size, size) and D(x, y).shape == (3,)
    for net in (G, D):
        assert sum(isinstance(m, model.SelfAttention) for m in net.modules()) == (at > 0)


def lively(net: nn.Module) -> nn.Module:
    """In float64 and in evaluation, each tensor of it of weight, u where its iterations end."""
    for p in net.double().requires_grad_(False).parameters():
        p.normal_() if p.ndim != 1 else p.uniform_(-1, 1)
    weights = {layer.parametrizations.weight[0]: layer.parametrizations.weight.original
               for layer in net.modules() if hasattr(layer, "parametrizations")}
    for m in net.modules():
        if isinstance(m, model.BatchNorm):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
        if isinstance(m, model.SpectralNorm):
            W = weights[m].flatten(1)
            m.u.copy_(torch.linalg.svd(W, full_matrices=False)[0][:, 0])
    return net.eval()


class Plain:
    """The same functions once more, from a network's tensors by their names."""

    def __init__(self, net: nn.Module):
        self.p = net.state_dict()

    def weight(self, name):
        W = self.p[f"{name}.parametrizations.weight.original"]
        return W / torch.linalg.svdvals(W.flatten(1))[0]

    def conv(self, name, x):
        return F.conv2d(x, self.weight(name), self.p.get(f"{name}.bias"), padding="same")

    def norm(self, name, x, c):
        """Batch norm, its gain and bias linear in c; then ReLU."""
        mean, var = (self.p[f"{name}.running_{what}"][:, None, None] for what in ("mean", "var"))
        gain, bias = (c @ self.weight(f"{name}.to_{what}").T for what in ("gain", "bias"))
        return ((x - mean) / (var + 1e-4).sqrt() * (1 + gain[..., None, None])
                + bias[..., None, None]).relu()

    def attention(self, name, x):
        out = []
        for one in x[:, None]:
            f, g, h = (self.conv(f"{name}.{part}", one) for part in ("query", "key", "value"))
            f, g, h = f[0].flatten(1), *(F.max_pool2d(m, 2)[0].flatten(1) for m in (g, h))
            o = torch.stack([h @ (f[:, i] @ g).softmax(0) for i in range(f.shape[1])], 1)
            out.append(self.conv(f"{name}.out", o.view(1, -1, *x.shape[2:])))
        return x + self.p[f"{name}.gamma"] * torch.cat(out)

    def g(self, z, y, deep):
        e, n = self.p["shared.weight"][y], z.shape[1] // 4
        first = torch.cat([z, e], 1) if deep else z[:, :n]
        x = (first @ self.weight("project").T + self.p["project.bias"]).view(len(z), -1, 4, 4)
        for i in range(3):
            c = torch.cat([z if deep else z[:, n * (i + 1):n * (i + 2)], e], 1)
            for j in range(2) if deep else ():
                a = f"blocks.{i}.{j}"
                h = self.norm(f"{a}.norm2", self.conv(f"{a}.conv1", self.norm(f"{a}.norm1", x, c)),
                              c)
                h, x = (up(h), up(x)) if j else (h, x)  # the second one doubles the size
                h = self.norm(f"{a}.norm3", self.conv(f"{a}.conv2", h), c)
                h = self.norm(f"{a}.norm4", self.conv(f"{a}.conv3", h), c)
                h = self.conv(f"{a}.conv4", h)
                x = x[:, :h.shape[1]] + h
            if not deep:
                a = f"blocks.{i}.0"
                h = self.conv(f"{a}.conv1", up(self.norm(f"{a}.norm1", x, c)))
                h = self.conv(f"{a}.conv2", self.norm(f"{a}.norm2", h, c))
                x = self.conv(f"{a}.shortcut", up(x)) + h
            if i == 1:  # 16x16
                x = self.attention(f"blocks.1.{1 + deep}", x)
        mean, var, gain, bias = (self.p[f"image.0.{what}"][:, None, None] for what in (
            "running_mean", "running_var", "weight", "bias"))
        return self.conv("image.2", ((x - mean) / (var + 1e-4).sqrt() * gain + bias).relu()).tanh()

    def d(self, x, y, deep):
        number = 0
        if deep:
            x, number = self.conv("features.0", x), 1
        for i in range(3 if deep else 4):
            for j in range(1 + deep):
                a, h, number = f"features.{number}", x, number + 1
                for k in range(1, 5 if deep else 3):
                    if k == 4 and i < 3 and not j:
                        h = F.avg_pool2d(h.relu(), 2)
                    h = self.conv(f"{a}.conv{k}", h.relu() if deep or i or k > 1 else h)
                if i < 3 and not j:
                    x, h = F.avg_pool2d(x, 2), h if deep else F.avg_pool2d(h, 2)
                if f"{a}.shortcut.bias" in self.p:
                    s = self.conv(f"{a}.shortcut", x)
                    x = torch.cat([x, s], 1) if deep else s
                x = x + h
            if i == 0:  # 16x16
                x, number = self.attention(f"features.{number}", x), number + 1
        h = x.relu().sum((2, 3))
        return (h @ self.weight("logit").T)[:, 0] + self.p["logit.bias"] + (
            self.weight("embed")[y] * h).sum(1)


def up(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("arch", ["biggan", "deep"])
def test_networks_once_more(arch, monkeypatch):
    monkeypatch.setitem(model.DOWN, 32, (1, 2, 4, 4))  # at the end as many, as at 128 px
    torch.manual_seed(0)
    G = lively(model.Generator(32, 3, 2 if arch == "biggan" else 8, 8, 5, 3, 16, arch))
    D = lively(model.Discriminator(32, 3, 8, 5, 16, arch))
    z, y = torch.randn(3, 8, dtype=torch.float64), torch.tensor([4, 0, 2])
    x = G(z, y)
    assert torch.allclose(x, Plain(G).g(z, y, arch == "deep"), rtol=1e-9)
    assert torch.allclose(D(x, y), Plain(D).d(x, y, arch == "deep"), rtol=1e-9)


def test_spectral_norm_of_all_layers_but_g_s_embedding():
    """One iteration a training pass, none in evaluation; Fig. 3 has what it found."""
    torch.manual_seed(0)
    G, D = model.Generator(32, 1, 2, 8, 5, 3, 16), model.Discriminator(32, 1, 8, 5, 16)
    assert {name for net in (G, D) for name, p in net.named_parameters()
            if p.ndim > 1 and not name.endswith("weight.original")} == {"shared.weight"}
    layers = [m for m in D.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
    with torch.no_grad():
        for m in layers:
            m.parametrizations.weight.original.normal_()
    x, y = torch.randn(2, 1, 32, 32), torch.tensor([0, 4])
    W = layers[3].parametrizations.weight
    u, M = W[0].u.clone(), W.original.detach().flatten(1)
    D.eval()(x, y)
    assert torch.equal(W[0].u, u)
    D.train()(x, y)
    v = F.normalize(M.T @ u, dim=0)
    assert torch.allclose(W[0].u, F.normalize(M @ v, dim=0), atol=1e-6)
    for _ in range(300):  # each use of a weight is an iteration
        for m in layers:
            assert m.weight.shape
    top = [torch.linalg.svdvals(m.parametrizations.weight.original.flatten(1))[0] for m in layers]
    assert torch.allclose(model.top_singular_values(D), torch.stack(top), rtol=1e-3)


def test_orthogonal_at_the_start():
    torch.manual_seed(0)
    G, D = model.Generator(32, 1, 2, 8, 5, 3, 16), model.Discriminator(32, 1, 8, 5, 16)
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        if p.ndim > 1:
            W = p.flatten(1) if len(p) <= p[0].numel() else p.flatten(1).T
            assert torch.allclose(W @ W.T, torch.eye(len(W)), atol=1e-4), name
        else:
            assert (p == (name == "image.0.weight")).all()


# The losses

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 2
    hinge = sum(max(0, 1 - a) for a in real.tolist()) + sum(max(0, 1 + a) for a in fake.tolist())
    assert train.d_loss(real, fake).item() == pytest.approx(hinge / 50)
    assert train.g_loss(fake).item() == pytest.approx(-fake.mean().item())


def test_orthogonal_regularisation():
    """Eq. 3 and its gradient, 4 W (W'W * (1 - I)) for W (rest, out), of every matrix of G but its
    embedding; none for filters that are orthogonal, whatever their lengths."""
    torch.manual_seed(0)
    G = model.Generator(32, 1, 2, 8, 5, 3, 16).double()
    with torch.no_grad():
        for p in G.parameters():
            p.normal_()
    loss, total = train.orthogonality(G), 0
    loss.backward()
    for name, p in G.named_parameters():
        if p.ndim < 2 or name == "shared.weight":
            assert p.grad is None
            continue
        W = p.detach().flatten(1).T
        off = (W.T @ W) * (1 - torch.eye(len(p), dtype=W.dtype))
        total += off.square().sum()
        assert torch.allclose(p.grad.flatten(1).T, 4 * W @ off)
    assert loss.item() == pytest.approx(total.item())
    one = nn.Linear(6, 4)
    nn.init.orthogonal_(one.weight)
    one.weight.data *= torch.tensor([1, 2, 3, 4.0])[:, None]
    assert train.orthogonality(one.double()).item() == pytest.approx(0, abs=1e-4)


# A step

@pytest.mark.parametrize("flags", ["--n-dis 2 --ortho 0.1", "--accumulate 2 --arch deep --n-dis 1"])
def test_steps_are_the_papers_algorithm(sharp, tmp_path, monkeypatch, flags):
    """n_dis updates of D, each on new data, noise and classes; one of G with Eq. 3; the mean of
    G's weights. A part of a batch has the statistics of a batch of its own."""
    start, keep = [], train.Run.keep
    monkeypatch.setattr(train.Run, "keep", lambda run, *sets, G, D, **parts: (
        start.extend(copy.deepcopy((G, D))), keep(run, *sets, G=G, D=D, **parts)))
    args = train.parse_args(tiny("biggan", tmp_path / "run", *SMALL, "--steps", 2, "--lr", 0.02,
                                 "--ttur", 4, "--ema", 0.8, *flags.split()))
    train.train(args)
    (G, D), k, n_z = start, args.accumulate, 2 if args.arch == "deep" else 2 * 4
    parts = [slice(i * 4 // k, (i + 1) * 4 // k) for i in range(k)]
    ema = {name: p.detach().clone() for name, p in G.named_parameters()}
    batches = data.load_labelled("digits", 32).batches(4, seed=0)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.999))
                    for net, lr in ((G, 0.02), (D, 0.08)))
    rows = []
    for step in (1, 2):
        torch.manual_seed(step)
        for _ in range(args.n_dis):
            x, y = next(batches)
            z, y_fake, losses = torch.randn(4, n_z), torch.randint(10, (4,)), []
            for part in parts:
                fake = G(z[part], y_fake[part]).detach()
                logits = D(torch.cat([x[part], fake]), torch.cat([y[part], y_fake[part]]))
                real, fake = logits[:4 // k], logits[4 // k:]
                losses.append((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
            opt_d.zero_grad()
            torch.stack(losses).mean().backward()
            opt_d.step()
        z, y_fake = torch.randn(4, n_z), torch.randint(10, (4,))
        loss_g = torch.stack([-D(G(z[i], y_fake[i]), y_fake[i]).mean() for i in parts])
        ortho = 0
        for name, p in G.named_parameters():
            if p.ndim > 1 and name != "shared.weight":
                gram = p.flatten(1) @ p.flatten(1).T
                ortho = ortho + args.ortho * (gram * (1 - torch.eye(len(gram)))).square().sum()
        opt_g.zero_grad()
        (loss_g.mean() + ortho).backward()
        opt_g.step()
        ema = {name: 0.8 * ema[name] + 0.2 * p.detach() for name, p in G.named_parameters()}
        sigmas = [max(m.sigma for m in net.modules() if hasattr(m, "sigma"))
                  for net in (G, D)]
        rows.append([t.mean().item() for t in (losses[-1], loss_g[-1] + ortho, real, fake, ortho,
                                               *sigmas)])
    G_ema = copy.deepcopy(G)
    G_ema.load_state_dict(G.state_dict() | ema)
    assert_same_run(tmp_path / "run", rows, 1e-9, G=G, D=D, G_ema=G_ema)
    spectra = torch.load(tmp_path / "run/ckpt.pt", weights_only=True)["spectra"].view(2, -1)
    assert spectra[:, 0].tolist() == [1, 2]
    assert torch.allclose(spectra[1, 1:], torch.cat(
        [torch.stack([m.sigma for m in net.modules() if hasattr(m, "sigma")])
         for net in (G, D)]))


def test_classes_of_fakes_are_all_alike():
    y = train.sample_y(20_000, 10)
    assert y.bincount(minlength=10).min() > 1800 and len(y.bincount()) == 10  # class 9 too


def test_parts_are_equal(tmp_path, capfd):
    assert main("biggan", *tiny("biggan", tmp_path / "run", "--batch-size", 6, "--accumulate",
                                4)) == 2
    err = capfd.readouterr().err
    assert "multiple of 4" in err and err.count("\n") == 1 and not (tmp_path / "run").exists()


# Several processes

@pytest.mark.skipif(not FORK, reason="needs a fork server")
def test_two_processes_are_one(sharp, tmp_path):
    """Batch norm's statistics and their gradients are those of the whole batch; parts of a batch
    are as many batches, of both processes each."""
    flags = (*SMALL, "--steps", 2, "--lr", 0.02, "--accumulate", 2, "--batch-size", 8)
    two = start_two("biggan", *tiny("biggan", tmp_path / "two", *flags), eps=0.01)
    train.train(train.parse_args(tiny("biggan", tmp_path / "one", *flags)))
    join_two(two)
    one, two = (torch.load(tmp_path / f"{n}/ckpt.pt", weights_only=True) for n in ("one", "two"))
    assert_same_weights(one, two)
    assert (tmp_path / "two/samples/000002.png").exists()


# Sampling

@pytest.mark.parametrize("threshold, deviation", [(2, 0.8796), (1, 0.5396), (0.5, 0.2837),
                                                  (0.04, 0.0231), (0, 1)])
def test_truncation_draws_again(threshold, deviation):
    torch.manual_seed(0)
    z = sample.sample_z(4000, 5, truncation=threshold)
    assert not threshold or 0.99 * threshold < z.abs().max() <= threshold
    assert z.std().item() == pytest.approx(deviation, rel=0.03) and z.mean().abs() < deviation / 20


def test_standing_statistics():
    """Of each batch norm's input, the mean over batches of its mean and variance; with them the
    pictures of a batch are as by its own; and no u moves."""
    torch.manual_seed(0)
    G, seen = model.Generator(32, 3, 2, 8, 5, 3, 16).double().requires_grad_(False), {}
    for name, m in G.named_modules():
        if isinstance(m, model.BatchNorm):
            m.register_forward_pre_hook(lambda m, x, name=name: seen.setdefault(name, []).append(
                (x[0].mean((0, 2, 3)), x[0].var((0, 2, 3)))))
    batches = [(torch.randn(20, 8).double(), torch.randint(5, (20,))) for _ in range(3)]
    u = {name: b.clone() for name, b in G.named_buffers() if name.endswith(".u")}
    G.stand(batches)
    assert len(seen) == 7
    for name, statistics in seen.items():
        mean, var = (torch.stack(part).mean(0) for part in zip(*statistics, strict=True))
        m = G.get_submodule(name)
        assert torch.allclose(m.running_mean, mean) and torch.allclose(m.running_var, var)
    assert all(torch.equal(G.get_buffer(name), b) for name, b in u.items())
    seen.clear()
    G.stand(batches[:1])(*batches[0])
    for stood, sampled in seen.values():
        assert torch.allclose(stood[0], sampled[0], atol=1e-2)
        assert torch.allclose(stood[1], sampled[1], rtol=1e-2)


@pytest.fixture(scope="module")
def run(small_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("biggan") / "run"
    assert main("biggan", *tiny("biggan", out, *SMALL, "--steps", 4, "--log-every", 2)) == 0
    return out / "ckpt.pt"


def test_figures(run, tmp_path, monkeypatch):
    grids, tables = {}, {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **options:
                        grids.update({path.name: (x, options)}))
    monkeypatch.setattr(sample, "save_curves", lambda path, rows:
                        tables.update({path.name: Path(rows).read_text().splitlines()}))
    sample.main(["--ckpt", str(run), "--classes", "7", "3", "--frames", "2", "--seed", "5",
                 "--truncation", "0.5", "--out", str(tmp_path)])
    G, ckpt = sample.load_generator(run)

    # Rows of classes, and Fig. 2: truncated z, and the statistics that belong to it
    x, options = grids["classes.png"]
    assert options["captions"] == ["7", "3"] and len(x) == 20
    stood = sample.stand(copy.deepcopy(G), ckpt, 0.5)
    torch.manual_seed(5)
    z, y = sample.sample_z(20, 8, truncation=0.5), torch.tensor([7] * 10 + [3] * 10)
    assert torch.allclose(x, stood(z, y), atol=1e-5)
    assert not torch.allclose(x, G(z, y), atol=1e-4)
    x, options = grids["fig2.png"]
    assert options["captions"] == ["2", "1", "0.5", "0.04"]
    torch.manual_seed(5)
    z = sample.sample_z(10, 8, truncation=0.5)
    assert torch.allclose(x[20:30], stood(z, torch.tensor([7, 3] * 5)), atol=1e-5)
    assert x[30::2].std(0).mean() < x[:10:2].std(0).mean()

    # Between points, between classes, and both
    torch.manual_seed(5)
    z, (x, options) = sample.sample_z(9, 8), grids["between.png"]
    x, y = x.unflatten(0, (9, 9)), torch.tensor([7, 3, 7, 3, 7, 3])
    assert options["captions"] == ["z"] * 3 + ["class"] * 3 + ["both"] * 3
    for i in range(3):
        a, b = G(z[[i, i + 3, i, i + 3]], torch.stack([y[i], y[i], y[i + 3], y[i + 3]])).split(2)
        for row, ends in ((i, [a[0], a[1]]), (3 + i, [a[0], b[0]]), (6 + i, [a[0], b[1]])):
            assert torch.allclose(x[row, [0, 8]], torch.stack(ends), atol=1e-5)
    middle = G.paint(z[:1], (G.shared.weight[7] + G.shared.weight[3])[None] / 2)
    assert torch.allclose(x[3, 4], middle[0], atol=1e-5)

    # Fig. 3: the layers from z on, and from the image on
    for file, net, n, end in (("fig3-g.png", "G", 15, "image.2"), ("fig3-d.png", "D", 18, "embed")):
        head, *rows = tables[file]
        assert head == "step," + ",".join(map(str, range(1, n + 1))) and len(rows) == 2
        last = ckpt[net][f"{end}.parametrizations.weight.0.sigma"].item()
        assert [float(rows[1].split(",")[i]) for i in (0, -1)] == [4, pytest.approx(last)]


def test_generate_leaves_g_as_it_is(run):
    G, ckpt = sample.load_generator(run)
    parts = [torch.cat(list(sample.generate(G, ckpt, 6, 0, None, t))) for t in (0, 0.5, 0)]
    assert torch.equal(parts[0], parts[2]) and not torch.allclose(parts[0], parts[1], atol=1e-3)
    torch.manual_seed(0)
    assert torch.allclose(parts[0], G(torch.randn(6, 8), torch.arange(6)), atol=1e-5)


@pytest.mark.parametrize("flags, says", [
    ("--truncation 0.001", "0.01 or more"), ("--truncation nan", "looked for a number"),
    ("--classes 3 11", "--classes 11")])
def test_wrong_flags(run, tmp_path, capfd, flags, says):
    assert main("biggan", "--ckpt", run, "--out", tmp_path / "out", *flags.split(),
                script="sample.py") == 2
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


# The author's files

def authors_file(G: nn.Module) -> dict[str, torch.Tensor]:
    """G as the first author's code would have saved it."""
    theirs = {"shared.weight": G.shared.weight}

    def put(name, m, bias=True):
        W = m.parametrizations.weight
        theirs.update({f"{name}.weight": W.original, f"{name}.u0": W[0].u[None],
                       f"{name}.sv0": W[0].sigma} | ({f"{name}.bias": m.bias} if bias else {}))

    def put_norm(name, m):
        theirs.update({f"{name}.stored_mean": m.running_mean, f"{name}.stored_var": m.running_var})

    put("linear", G.project)
    for i, layers in enumerate(G.blocks):
        for j, m in enumerate(layers):
            a = f"blocks.{i}.{j}"
            if isinstance(m, model.SelfAttention):
                theirs[f"{a}.gamma"] = m.gamma
                for name, conv in (("theta", m.query), ("phi", m.key), ("g", m.value),
                                   ("o", m.out)):
                    put(f"{a}.{name}", conv, bias=False)
                continue
            deep = isinstance(m, model.DeepUpBlock)
            for k in range(1, 5 if deep else 3):
                norm = getattr(m, f"norm{k}")
                put(f"{a}.conv{k}", getattr(m, f"conv{k}"))
                put(f"{a}.bn{k}.gain", norm.to_gain, bias=False)
                put(f"{a}.bn{k}.bias", norm.to_bias, bias=False)
                put_norm(f"{a}.bn{k}", norm)
            if not deep:
                put(f"{a}.conv_sc", m.shortcut)
    put("output_layer.2", G.image[2])
    put_norm("output_layer.0", G.image[0])
    theirs |= {"output_layer.0.gain": G.image[0].weight, "output_layer.0.bias": G.image[0].bias}
    return {name: t.detach().clone() for name, t in theirs.items()}


@pytest.mark.parametrize("size, arch, z_chunk, at", [
    (128, "biggan", 4, 64), (128, "deep", 9, 64), (256, "biggan", 2, 0), (32, "deep", 6, 16)])
def test_the_authors_generator(tmp_path, monkeypatch, size, arch, z_chunk, at):
    torch.manual_seed(0)
    G = model.Generator(size, 3, z_chunk, 8, 11, 5, at, arch)
    with torch.no_grad():
        for tensor in [*G.parameters(), *(b for b in G.buffers() if b.ndim)]:
            tensor.copy_(torch.rand_like(tensor))
    theirs = authors_file(G)
    assert (size, arch) != (128, "biggan") or len(theirs) == 166  # as in the released files
    torch.save(theirs, tmp_path / "G_ema.pth", _use_new_zipfile_serialization=False)  # of 2019
    path = sample.official(tmp_path / "G_ema.pth")
    ckpt = torch.load(path, weights_only=True)
    torch.testing.assert_close(ckpt["G_ema"], G.state_dict(), rtol=0, atol=0)
    names = "size", "arch", "z_chunk", "attention", "width", "embed_dim"
    assert [ckpt["args"][name] for name in names] == [size, arch, z_chunk, at, 8, 5]
    if size == 32:
        monkeypatch.setattr(sample, "THRESHOLDS", (1,))
        sample.main(["--official", str(tmp_path / "G_ema.pth"), "--classes", "10", "2", "--out",
                     str(tmp_path / "out"), "--frames", "2"])
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            "samples.png", "classes.png", "walk.gif", "between.png", "fig2.png"}


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("damage", ["pickle", "missing", "shape", "list", "gone"])
def test_other_files_are_refused(tmp_path, monkeypatch, capfd, damage):
    monkeypatch.chdir(tmp_path)
    theirs = authors_file(model.Generator(32, 3, 2, 8, 5, 3, 16))
    if damage == "missing":
        del theirs["blocks.1.0.conv_sc.weight"]
    elif damage == "shape":
        theirs["blocks.1.0.bn2.gain.u0"] = theirs["blocks.1.0.bn2.gain.u0"][:, 1:]
    torch.save({"pickle": Evil(), "list": [1, 2]}.get(damage, theirs), "G.pth")
    with pytest.raises(SystemExit):
        sample.main(["--official", "nowhere.pth" if damage == "gone" else "G.pth"])
    err = capfd.readouterr().err
    assert err.startswith("error: --official") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["G.pth"]  # nothing was executed
