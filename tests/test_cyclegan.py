"""cyclegan/: networks, least squares, cycles, the pool, the schedule, translating files."""
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from conftest import (
    Watch,
    assert_resume_refused,
    kinds,
    load,
    main,
    n_parameters,
    tiny,
)
from PIL import Image
from torch import nn
from torch.nn.functional import l1_loss

from common import data
from common.images import read_image

model, train, sample = (load("cyclegan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data")
SMALL = ("--width", 4, "--n-blocks", 1, "--size", 16, "--sample-every", 100, "--save-every", 100)


class WatchAll(Watch):
    """Tells G from F and D_X from D_Y, by the order in which train() builds them."""

    def _wrap(self, monkeypatch, module, name, kind):
        build, names = getattr(module, kind), iter(["G", "F"] if name == "G" else ["D_X", "D_Y"])

        def built(*args, **kwargs):
            own = next(names)
            self.nets[own] = net = build(*args, **kwargs)
            net.register_forward_hook(lambda net, x, y: self._passed(own, net, x[0], y))
            return net

        monkeypatch.setattr(module, kind, built)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """train() with these flags, and what happened in it."""
    def go(*flags):
        with monkeypatch.context() as patch:
            watch = WatchAll(patch, train, torch.optim.Adam)
            train.train(train.parse_args(tiny("cyclegan", tmp_path / "run", *SMALL, *flags)))
        return watch
    return go


@pytest.fixture(scope="module")
def ckpt(small_data, tmp_path_factory):
    """The checkpoint of a finished run. No test changes it."""
    out = tmp_path_factory.mktemp("cyclegan") / "run"
    assert main("cyclegan", *tiny("cyclegan", out, *SMALL, "--steps", 2)) == 0
    return out / "ckpt.pt"


def rows(out) -> list[list[float]]:
    """log.csv without its header."""
    return [[float(v) for v in line.split(",")]
            for line in (out / "log.csv").read_text().splitlines()[1:]]


# The networks

def test_the_papers_setting(tmp_path):
    args = train.parse_args(["--paper", "--out", str(tmp_path)])
    assert (args.size, args.width, args.n_blocks, args.batch_size) == (256, 64, 9, 1)
    assert (args.lr, args.beta1, args.pool) == (2e-4, 0.5, 50)
    assert (args.lambda_cycle, args.lambda_identity) == (10, 0)
    assert args.steps == 200 * 1334


def test_parameter_counts():
    with torch.device("meta"):
        G, D = model.Generator(), model.Discriminator()
        assert n_parameters(G) == 11_378_179 and n_parameters(D) == 2_764_737
        assert n_parameters(model.Generator(n_blocks=6)) == 7_837_699
        assert 2 * (n_parameters(G) + n_parameters(D)) == 28_285_832


def test_layers_of_the_generator():
    """c7s1, d128, d256, R256 x 9, u128, u64, c7s1-3; reflection only at the first, R and last."""
    G = model.Generator()
    reflect, conv, up = nn.ReflectionPad2d, nn.Conv2d, nn.ConvTranspose2d
    norm, relu = nn.InstanceNorm2d, nn.ReLU
    assert kinds(G) == [
        reflect, conv, norm, relu, *[conv, norm, relu] * 2,
        *[reflect, conv, norm, relu, reflect, conv, norm] * 9,
        *[up, norm, relu] * 2, reflect, conv, nn.Tanh]
    convs = [m for m in G.modules() if isinstance(m, (conv, up))]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
            for m in convs] == [
        (3, 64, 7, 1, 0), (64, 128, 3, 2, 1), (128, 256, 3, 2, 1), *[(256, 256, 3, 1, 0)] * 18,
        (256, 128, 3, 2, 1), (128, 64, 3, 2, 1), (64, 3, 7, 1, 0)]
    assert all(m.bias is not None for m in convs)
    assert [m.padding[0] for m in G.modules() if isinstance(m, reflect)] == [3, *[1] * 18, 3]
    assert not any(m.affine or m.track_running_stats or m.eps != 1e-5
                   for m in G.modules() if isinstance(m, norm))


@pytest.mark.parametrize("size, field, side", [
    (256, 70, 30), (128, 70, 14), (64, 34, 14), (32, 34, 6), (16, 16, 6)])
def test_discriminator_judges_patches(size, field, side):
    """The scores' number, and the pixels that one of them depends on but for the statistics."""
    D = model.Discriminator(size, 3, 2)
    assert D(torch.randn(2, 3, size, size)).shape == (2, 1, side, side)
    for i, m in enumerate(D.net):
        if isinstance(m, nn.InstanceNorm2d):
            D.net[i] = nn.Identity()  # its mean sees the whole image
        elif isinstance(m, nn.Conv2d):
            nn.init.ones_(m.weight)
    x = torch.ones(1, 3, 256, 256, requires_grad=True)  # larger than any field
    scores = D(x)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    seen = (x.grad[0].sum(0) != 0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [field, field]


def test_layers_of_the_discriminator():
    D = model.Discriminator()
    conv, norm, relu = nn.Conv2d, nn.InstanceNorm2d, nn.LeakyReLU
    assert kinds(D) == [conv, relu, *[conv, norm, relu] * 3, conv]  # no sigmoid, none at c1
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
            for m in D.net if isinstance(m, conv)] == [
        (3, 64, 4, 2, 1), (64, 128, 4, 2, 1), (128, 256, 4, 2, 1), (256, 512, 4, 1, 1),
        (512, 1, 4, 1, 1)]
    assert {m.negative_slope for m in D.net if isinstance(m, relu)} == {0.2}
    with pytest.raises(ValueError, match="16"):
        model.Discriminator(8)


def test_a_residual_layer_adds_and_does_not_rectify():
    layer = model.Residual(4)
    for p in layer.parameters():
        nn.init.zeros_(p)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("net", [model.Generator(3, 1, 4, 2), model.Discriminator(16, 3, 4)])
def test_no_image_depends_on_its_neighbours(net):
    x = torch.randn(3, 3, 16, 16)
    assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-5)
    assert torch.allclose(net(x), net.eval()(x), atol=1e-6)  # its own statistics, always


def test_initialisation():
    torch.manual_seed(0)
    nets = model.Generator(3, 3, 32, 2), model.Discriminator(256, 3, 16)
    for m in itertools.chain(*(net.modules() for net in nets)):
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.06)
            assert (m.bias == 0).all()


def test_channels_and_range():
    torch.manual_seed(0)
    G = model.Generator(3, 1, 4, 1)
    nn.init.normal_(G.net[-2].weight)
    x = G(torch.randn(2, 3, 24, 16))
    assert x.shape == (2, 1, 24, 16) and -1 <= x.min() < -0.9 and 0.9 < x.max() <= 1


# The losses, the schedule, the pool, the windows

def test_losses_are_the_papers():
    """Each score of the map counts by itself: not the square of a mean, but the mean of squares."""
    real, fake = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    value = (sum((v - 1) ** 2 for v in real.flatten()) / 48
             + sum(v ** 2 for v in fake.flatten()) / 48)
    assert train.d_loss(real, fake).item() == pytest.approx(value.item() / 2)  # App. 7.1
    value = sum((v - 1) ** 2 for v in fake.flatten()) / 48
    assert train.g_loss(fake).item() == pytest.approx(value.item())


@pytest.mark.parametrize("length", [1, 7])
def test_learning_rate_is_the_papers(length):
    """200 epochs: 100 constant ones, then 1, 0.99, ... 0.01."""
    rates = [train.learning_rate(2e-4, step, 200 * length) for step in range(1, 200 * length + 1)]
    expected = [1 - max(0, epoch - 100) / 100 for epoch in range(200) for _ in range(length)]
    assert rates == pytest.approx([2e-4 * factor for factor in expected])


@pytest.mark.parametrize("steps", [1, 99, 201, 399, 5500])
def test_learning_rate_of_odd_lengths(steps):
    rates = [train.learning_rate(1.0, step, steps) for step in range(1, steps + 1)]
    assert rates[:steps // 2] == [1.0] * (steps // 2)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == (1.0 if steps < 200 else 0.01)  # in 99 steps there are 99 epochs


def images(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def test_pool():
    torch.manual_seed(0)
    pool = train.Pool(50, torch.device("cpu"))
    first = images(*range(50))
    assert torch.equal(pool.query(first), first) and len(pool.images) == 50
    first.zero_()  # the pool has its own
    n_old = 0
    for value in range(50, 2050):
        before = torch.stack(pool.images)
        assert len(before.unique()) == 50
        shown = pool.query(images(value))
        after = torch.stack(pool.images)
        if shown.unique().item() == value:
            assert torch.equal(before, after)
        else:
            slot, = (before != after)[:, 0, 0, 0].nonzero()
            assert torch.equal(shown, before[slot]) and torch.equal(after[slot], images(value))
            n_old += 1
    assert 900 < n_old < 1100


def test_pool_takes_a_batch_one_by_one():
    torch.manual_seed(0)
    pool = train.Pool(5, torch.device("cpu"))
    old, new = images(*range(5)), images(*range(5, 55))
    pool.query(old)
    x = new.clone().requires_grad_()
    shown = pool.query(x)
    assert shown.shape == new.shape and not shown.requires_grad
    kept = torch.stack(pool.images)[:, 0, 0, 0]
    everything = torch.cat([shown[:, 0, 0, 0], kept])  # each image is shown or kept, none twice
    assert everything.sort().values.tolist() == list(range(55))
    assert 10 < (shown != new)[:, 0, 0, 0].sum() < 40
    assert not any(image.requires_grad for image in pool.images)


def test_windows_are_each_images_own():
    torch.manual_seed(0)
    place = torch.arange(25.0).view(1, 1, 5, 5).expand(400, 2, -1, -1)
    seen = set()
    for x in train.augment(place, 3):
        corner, other = x[0, 0, 0].item(), x[0, 0, 2].item()
        left, mirrored = min(corner, other), other < corner
        window = place[0, :, int(left) // 5:, int(left) % 5:][:, :3, :3]
        assert torch.equal(x, window.flip(2) if mirrored else window)
        seen.add((left, mirrored))
    assert len(seen) == 18  # 3 x 3 places, mirrored and not


# A step

def test_a_step(watched):
    watch = watched("--steps", 2)
    assert watch.order() == " ".join(
        ["F G D_X D_X D_Y D_Y step(D_X,D_Y) F G D_Y D_X step(F,G)"] * 2)
    assert [e.fresh for e in watch.all("step")] == [{"D_X", "D_Y"}, {"F", "G"}] * 2
    for i in range(2):
        (y, x), (again_x, again_y) = [
            [watch.all(name)[2 * i + k].x for name in ("F", "G")] for k in (0, 1)]
        y_fake, x_fake = watch.all("G")[2 * i].y, watch.all("F")[2 * i].y
        assert torch.equal(again_x, y_fake) and torch.equal(again_y, x_fake)  # the two cycles
        for name, real, fake in (("D_X", x, x_fake), ("D_Y", y, y_fake)):
            first, second, third = watch.all(name)[3 * i:3 * i + 3]
            assert torch.equal(first.x, real) and torch.equal(second.x, fake)  # the pool is empty
            assert torch.equal(third.x, fake)
            assert not all(map(torch.equal, second.weights, third.weights))
    assert x.shape == (4, 3, 16, 16)


def test_windows_of_x_and_of_y_are_independent(watched, monkeypatch):
    monkeypatch.setattr(train, "augment", lambda x, size, augment=train.augment: augment(
        torch.arange(18.0 * 18).view(1, 1, 18, 18).expand(len(x), 3, -1, -1) / 200 - 1, size))
    watch = watched("--steps", 1, "--batch-size", 8)
    y, x = (watch.all(name)[0].x for name in ("F", "G"))
    assert not torch.equal(x, y) and len(x.unique(dim=0)) > 4


@pytest.mark.parametrize("weight", [0, 0.5])
def test_values_are_those_of_the_equations(watched, tmp_path, weight):
    watch = watched("--steps", 1, "--lambda-identity", weight)
    x, y = watch.all("G")[0].x, watch.all("F")[0].x
    back_y, back_x = watch.all("G")[1].y, watch.all("F")[1].y
    (real_x, fake_x, for_f), (real_y, fake_y, for_g) = (
        [e.y for e in watch.all(name)] for name in ("D_X", "D_Y"))
    cycle = l1_loss(back_x, x) + l1_loss(back_y, y)
    value = (for_g - 1).square().mean() + (for_f - 1).square().mean() + 10 * cycle
    if weight:  # Sec. 5.2: 0.5 lambda
        like_y, like_x = watch.all("G")[2], watch.all("F")[2]
        assert torch.equal(like_y.x, y) and torch.equal(like_x.x, x)
        value = value + 5 * (l1_loss(like_y.y, y) + l1_loss(like_x.y, x))
    else:
        assert len(watch.all("G")) == len(watch.all("F")) == 2
    loss_d = 0.5 * sum((real - 1).square().mean() + fake.square().mean()
                       for real, fake in ((real_x, fake_x), (real_y, fake_y)))
    row, = rows(tmp_path / "run")
    assert row[1:4] == pytest.approx([loss_d.item(), value.item(), cycle.item()], abs=2e-4)


def test_the_pool_is_for_the_discriminators_alone(watched):
    watch = watched("--steps", 12, "--batch-size", 1, "--pool", 1)
    for net, D in (("F", "D_X"), ("G", "D_Y")):
        made = [e.y for e in watch.all(net)[::2]]
        shown, judged = [[e.x for e in watch.all(D)[k::3]] for k in (1, 2)]
        assert all(map(torch.equal, made, judged))
        old = [i for i in range(12) if not torch.equal(made[i], shown[i])]
        assert 0 < len(old) < 12
        assert all(any(torch.equal(shown[i], m) for m in made[:i]) for i in old)


def test_resume_keeps_full_pools_and_the_schedule(watched, tmp_path, monkeypatch):
    flags = ("--batch-size", 1, "--pool", 2)
    monkeypatch.setattr(train, "learning_rate", lambda lr, step, steps: lr * step / steps)
    rates = [e.group["lr"] for e in watched("--steps", 8, *flags).all("step")]
    assert rates == [2e-4 * step / 8 for step in range(1, 9) for _ in "dg"]
    whole = torch.load(tmp_path / "run" / "ckpt.pt", weights_only=True)
    (tmp_path / "run").rename(tmp_path / "whole")

    def killed(line):
        if line.startswith("step 6/"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "show", killed)
        watched("--steps", 8, *flags, "--save-every", 5)
    watch = watched("--steps", 8, *flags, "--resume")
    assert [e.group["lr"] for e in watch.all("step")] == rates[10:]
    parts = torch.load(tmp_path / "run" / "ckpt.pt", weights_only=True)
    for pool in ("pool_x", "pool_y"):
        assert len(whole[pool]["images"]) == 2
        assert all(map(torch.equal, whole[pool]["images"], parts[pool]["images"]))
    for net in ("G", "F", "D_X", "D_Y"):
        assert all(map(torch.equal, whole[net].values(), parts[net].values()))


@pytest.mark.parametrize("flags", [("--width", 5), ("--n-blocks", 2), ("--size", 32)])
def test_resume_refuses_another_network(watched, tmp_path, capfd, flags):
    watched("--steps", 1)
    assert_resume_refused(train, tmp_path / "run", capfd, flags)


@pytest.mark.parametrize("flags, lr, beta1", [
    ((), 2e-4, 0.5), (("--lr", 1e-3, "--beta1", 0.25), 1e-3, 0.25)])
def test_adam(watched, flags, lr, beta1):
    for step in watched("--steps", 1, *flags).all("step"):
        assert (step.group["lr"], step.group["betas"]) == (lr, (beta1, 0.999))
        assert (step.group["weight_decay"], step.group["eps"]) == (0, 1e-8)


# Data

def write_folder(folder, parts, mode="RGB"):
    """Three pictures of noise in each part."""
    rng = np.random.default_rng(0)
    for part in parts:
        (folder / part).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(256, size=(20, 24, 3), dtype="u1")
            Image.fromarray(pixels).convert(mode).save(folder / part / f"{i}.png")


@pytest.mark.parametrize("parts, used", [
    ([], "train"), (["testA", "testB"], "test"), (["valA", "valB"], "val")])
def test_the_grid_shows_held_out_images_where_there_are_some(watched, tmp_path, parts, used):
    write_folder(tmp_path / "set", ["trainA", "trainB", *parts])
    watched("--steps", 1, "--batch-size", 1, "--data", tmp_path / "set")
    ckpt = torch.load(tmp_path / "run" / "ckpt.pt", weights_only=True)
    for fixed, half in (("x_fixed", "A"), ("y_fixed", "B")):
        files = sorted((tmp_path / "set" / f"{used}{half}").iterdir())
        expected = torch.stack([read_image(file, 16) for file in files])
        assert torch.allclose(ckpt[fixed], expected / 127.5 - 1)


def test_the_grid_of_drawn_faces_shows_held_out_ones(ckpt):
    saved = torch.load(ckpt, weights_only=True)
    x, y = data.load_unpaired("faces", 16, split="test")
    assert torch.equal(saved["x_fixed"], x[:8]) and torch.equal(saved["y_fixed"], y[:8])


def test_grey_and_colour(watched, tmp_path, capfd):
    folder = tmp_path / "set"
    write_folder(folder, ["trainA"])
    write_folder(folder, ["trainB"], "L")
    flags = "--steps", 1, "--batch-size", 1, "--data", folder
    with pytest.raises(SystemExit):
        watched(*flags, "--lambda-identity", 0.5)
    assert "--lambda-identity" in capfd.readouterr().err
    watched(*flags)
    run = tmp_path / "run"
    G, F, saved = sample.load_generators(run / "ckpt.pt")
    assert saved["channels"] == [3, 1]
    assert F(G(saved["x_fixed"])).shape == saved["x_fixed"].shape == (3, 3, 16, 16)
    assert main("cyclegan", "--ckpt", run / "ckpt.pt", script="sample.py") == 0
    assert main("cyclegan", "--ckpt", run / "ckpt.pt", "--input", folder / "trainB", "--direction",
                "BtoA", "--out", tmp_path / "out", script="sample.py") == 0
    assert Image.open(tmp_path / "out" / "0.png").mode == "RGB"


# sample.py

def test_each_writes_translated_test_images(ckpt, tmp_path):
    G, F, _ = sample.load_generators(ckpt)
    for side, net in enumerate((G, F)):
        direction = ("AtoB", "BtoA")[side]
        assert main("cyclegan", "--ckpt", ckpt, "--n", 99, "--each", tmp_path / direction, "--seed",
                    3, "--direction", direction, script="sample.py") == 0
        x = data.load_unpaired("faces", 16, split="test")[side]
        torch.manual_seed(3)
        expected = net(x[torch.randperm(len(x))])
        files = sorted((tmp_path / direction).iterdir())
        assert len(files) == len(x) == 32
        for file, picture in zip(files, expected, strict=True):
            assert (read_image(file) / 127.5 - 1 - picture).abs().max() < 0.005


@pytest.mark.parametrize("h, w", [
    (300, 517), (16, 16), (4, 4), (5, 9), (1, 1), (1, 30), (33, 8), (7, 6)])
def test_translate_pads_and_crops(h, w):
    padded = []

    def net(x):
        padded.append(x)
        return x

    x = torch.randn(2, 3, h, w)
    assert torch.equal(sample.translate(net, x), x)
    side = [max(8, -(-s // 4) * 4) for s in (h, w)]
    assert list(padded[0].shape[2:]) == side
    if (h, w) == (300, 517):
        assert torch.equal(padded[0][..., 517:], x[..., 513:516].flip(3))  # the mirror is 516
    y = sample.translate(model.Generator(3, 1, 4, 1), x)
    assert y.shape == (2, 1, h, w) and y.isfinite().all()


@pytest.fixture
def photos(tmp_path):
    """A photograph, a grey one, one with alpha, one in a sub-folder, and two that are none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(300, 517, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save(folder / "photo.png")
    Image.fromarray(pixels[:30, :40, 0]).save(folder / "grey.JPG")
    Image.fromarray(pixels[:40, :30]).save(folder / "alpha.png")
    Image.fromarray(pixels[:5, :21, :3]).save(folder / "more" / "flat.bmp")
    (folder / "cut.jpg").write_bytes((folder / "grey.JPG").read_bytes()[:300])
    (folder / "text.png").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_a_folder_is_translated(ckpt, photos, tmp_path, capfd):
    run = partial(main, "cyclegan", "--ckpt", ckpt, "--input", photos, script="sample.py")
    assert run("--direction", "BtoA", "--out", tmp_path / "out") == 0
    shown = capfd.readouterr().out
    assert "4 of 6" in shown and "cut.jpg" in shown and "text.png" in shown
    made = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
    assert [str(p) for p in made] == ["alpha.png", "grey.JPG", "more/flat.bmp", "photo.png"]
    _, F, _ = sample.load_generators(ckpt)
    for name in made:
        x, y = (read_image(folder / name) / 127.5 - 1 for folder in (photos, tmp_path / "out"))
        expected = sample.translate(F, x[None])[0]
        assert y.shape == x.shape
        assert (y - expected).abs().mean() < (0.15 if name.suffix == ".JPG" else 0.005)


def test_a_file_is_translated(ckpt, photos, tmp_path):
    run = partial(main, "cyclegan", "--ckpt", ckpt, "--input", script="sample.py")
    assert run(photos / "photo.png", "--out", tmp_path / "out") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.png"]
    G, _, _ = sample.load_generators(ckpt)
    x, y = (read_image(folder / "photo.png")[None] / 127.5 - 1
            for folder in (photos, tmp_path / "out"))
    assert (y - sample.translate(G, x)).abs().max() < 0.005


def test_resized_first(ckpt, photos, tmp_path):
    assert main("cyclegan", "--ckpt", ckpt, "--input", photos / "photo.png", "--side", 12,
                "--out", tmp_path / "out", script="sample.py") == 0
    assert Image.open(tmp_path / "out" / "photo.png").size == (21, 12)


@pytest.mark.parametrize("source", ["photos", "photos/photo.png"])
def test_the_originals_are_not_overwritten(ckpt, photos, tmp_path, monkeypatch, capfd, source):
    monkeypatch.chdir(tmp_path)
    before = (photos / "photo.png").read_bytes()
    assert main("cyclegan", "--ckpt", ckpt, "--input", source, "--out", "photos",
                script="sample.py") == 2
    assert "overwritten" in capfd.readouterr().err
    assert (photos / "photo.png").read_bytes() == before


# The authors' files

class OfficialBlock(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        extra = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU(True), *extra,
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c))

    def forward(self, x):
        return x + self.conv_block(x)


class Official(nn.Module):
    """ResnetGenerator of junyanz/pytorch-CycleGAN-and-pix2pix, from its description."""

    def __init__(self, c_in, c_out, c, n_blocks, dropout=False):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(c_in, c, 7), nn.InstanceNorm2d(c),
                  nn.ReLU(True)]
        for i in (1, 2):
            layers += [nn.Conv2d(c * i, c * i * 2, 3, stride=2, padding=1),
                       nn.InstanceNorm2d(c * i * 2), nn.ReLU(True)]
        layers += [OfficialBlock(4 * c, dropout) for _ in range(n_blocks)]
        for i in (4, 2):
            layers += [nn.ConvTranspose2d(c * i, c * i // 2, 3, stride=2, padding=1,
                                          output_padding=1),
                       nn.InstanceNorm2d(c * i // 2), nn.ReLU(True)]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(c, c_out, 7),
                                   nn.Tanh())

    def forward(self, x):
        return self.model(x)


def their_keys(n_blocks, second=5) -> list[str]:
    last = 10 + n_blocks
    layers = ["1", "4", "7", *(f"{i}.conv_block.{k}" for i in range(10, last) for k in (1, second)),
              str(last), str(last + 3), str(last + 7)]
    return [f"model.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


@pytest.mark.parametrize("n_blocks, dropout, old", [
    (9, False, False), (6, False, True), (2, True, False)])
def test_official_files(tmp_path, n_blocks, dropout, old):
    torch.manual_seed(0)
    theirs = Official(3, 1, 4, n_blocks, dropout).eval()
    state = theirs.state_dict()
    keys = their_keys(n_blocks, second=6 if dropout else 5)
    assert list(state) == keys and (n_blocks != 9 or len(keys) == 48)  # those of the fact card
    if old:
        state["model.2.running_mean"] = torch.full((4,), 9.0)
        state["model.10.conv_block.2.running_var"] = torch.full((16,), 9.0)
        state["model.10.conv_block.2.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, tmp_path / "latest_net_G.pth")
    ours = sample.load_official(tmp_path / "latest_net_G.pth")
    named = ours.state_dict()
    assert len(named) == len(keys)
    for key, (_, value) in zip(keys, named.items(), strict=True):  # the layers' order is theirs
        assert torch.equal(state[key], value), key
    second = state[f"model.10.conv_block.{6 if dropout else 5}.weight"]
    assert torch.equal(named["net.10.net.5.weight"], second)
    x = torch.randn(2, 3, 32, 24)
    assert torch.equal(ours(x), theirs(x))


def test_official_command(tmp_path, photos):
    torch.manual_seed(0)
    theirs = Official(3, 3, 4, 2)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    assert main("cyclegan", "--official", tmp_path / "latest_net_G.pth", "--input",
                photos / "alpha.png", "--out", tmp_path / "out", script="sample.py") == 0
    x = read_image(photos / "alpha.png")[None] / 127.5 - 1
    y = read_image(tmp_path / "out" / "alpha.png")[None] / 127.5 - 1
    with torch.no_grad():  # 30 pixels wide
        expected = theirs(nn.functional.pad(x, (0, 2, 0, 0), "reflect"))[..., :30]
    assert (expected - y).abs().max() < 0.005


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("content, says", [
    (None, "no file"), ("text", "damaged"), ({"model.model.0.weight": torch.ones(3)}, "ResNet"),
    ({"model.1.weight": torch.ones(4, 3, 7, 7), "x": Evil()}, "damaged")])
def test_other_files_are_refused(tmp_path, photos, monkeypatch, capfd, content, says):
    monkeypatch.chdir(tmp_path)
    if content == "text":
        (tmp_path / "net.pth").write_text("hello")
    elif content:
        torch.save(content, "net.pth")
    assert main("cyclegan", "--official", "net.pth", "--input", "photos", "--out", "out",
                script="sample.py") == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and says in err and str(tmp_path / "net.pth") in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("flags", [
    "--official net.pth", "--official net.pth --out out", "--official net.pth --input photos",
    "--input photos", "--input photos --side 0"])
def test_flags_that_need_others(photos, tmp_path, monkeypatch, capfd, flags):
    monkeypatch.chdir(tmp_path)
    assert main("cyclegan", *flags.split(), script="sample.py") == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert ("--side" if "side" in flags else "--out") in err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
