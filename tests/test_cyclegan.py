"""cyclegan/: networks, least squares, cycles, the pool, the schedule, translating files."""
from pathlib import Path

import numpy as np
import pytest
import torch
from algorithm import Adam, assert_same_run, float64
from conftest import (
    assert_input_is_checked,
    assert_resume_refused,
    kinds,
    load,
    main,
    n_parameters,
    tiny,
)
from PIL import Image
from torch import nn

from common import data
from common.images import read_image

model, train, sample = (load("cyclegan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data", "place")
SMALL = "--width", 4, "--n-blocks", 1, "--size", 16


def trained(out, *flags):
    train.train(train.parse_args(tiny("cyclegan", out, *SMALL, "--sample-every", 100, *flags)))


@pytest.fixture(scope="module")
def ckpt(small_data, tmp_path_factory):
    """The checkpoint of a finished run. No test changes it."""
    out = tmp_path_factory.mktemp("cyclegan") / "run"
    trained(out, "--steps", 2)
    return out / "ckpt.pt"


def translated(*args) -> int:
    return main("cyclegan", *args, script="sample.py")


# The networks

def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    assert (args.data, args.size, args.width, args.n_blocks) == ("horse2zebra", 256, 64, 9)
    assert (args.lr, args.beta1, args.pool, args.batch_size) == (2e-4, 0.5, 50, 1)
    assert (args.lambda_cycle, args.lambda_identity) == (10, 0)
    assert args.steps == 200 * 1334
    assert args.steps // args.sample_every == args.steps // args.save_every == 100


def test_parameter_counts():
    with torch.device("meta"):
        G, D = model.Generator(), model.Discriminator()
        assert n_parameters(G) == 11_378_179 and n_parameters(D) == 2_764_737
        assert n_parameters(model.Generator(n_blocks=6)) == 7_837_699


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
    assert [m.padding[0] for m in G.modules() if isinstance(m, reflect)] == [3, *[1] * 18, 3]
    assert not any(m.affine or m.track_running_stats or m.eps != 1e-5
                   for m in G.modules() if isinstance(m, norm))


def test_layers_of_the_discriminator():
    D = model.Discriminator()
    conv, norm, relu = nn.Conv2d, nn.InstanceNorm2d, nn.LeakyReLU
    assert kinds(D) == [conv, relu, *[conv, norm, relu] * 3, conv]  # no sigmoid, none at c1
    assert {m.negative_slope for m in D.net if isinstance(m, relu)} == {0.2}
    with pytest.raises(ValueError, match="16"):
        model.Discriminator(8)


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
    for net in (model.Generator(3, 3, 32, 2), model.Discriminator(256, 3, 16)):
        for m in net.modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.06)
                assert (m.bias == 0).all()


# The losses, the schedule, the pool

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
    """Half of what it returns is old; each image is returned or kept, and none twice."""
    torch.manual_seed(0)
    pool = train.Pool(50, torch.device("cpu"))
    first = images(*range(50)).requires_grad_()
    assert torch.equal(pool.query(first), first) and len(pool.images) == 50
    first.data.zero_()  # the pool has its own
    assert torch.stack(pool.images)[:, 0, 0, 0].tolist() == list(range(50))
    new = images(*range(50, 2050))
    shown = torch.cat([pool.query(part) for part in new.split(20)])
    assert 900 < (shown != new)[:, 0, 0, 0].sum() < 1100 and not shown.requires_grad
    kept = torch.stack(pool.images)
    new.zero_(), shown.zero_()
    everything = set(kept[:, 0, 0, 0].tolist())
    assert len(everything) == 50 and min(everything) < 2000 and torch.equal(
        kept, torch.stack(pool.images))


# The algorithm

@pytest.mark.parametrize("cycle, identity", [(10, 0), (3, 0.5)])
def test_three_steps(monkeypatch, cycle, identity):
    """Sec. 3, 4 and 5.2, written out again; in step 3 the pools of 50 are full."""
    def windows(x):
        top, left = torch.randint(3, (2, len(x))).tolist()
        mirrored = (torch.rand(len(x)) < 0.5).tolist()
        return torch.stack([one[:, t:t + 16, s:s + 16].flip(2) if m else one[:, t:t + 16, s:s + 16]
                            for one, t, s, m in zip(x, top, left, mirrored, strict=True)])

    def past(pool, fakes):
        shown = []
        for fake in fakes.detach():
            if len(pool) < 50:
                pool.append(fake)
                shown.append(fake)
            elif torch.rand(()) < 0.5:
                i = int(torch.randint(50, ()))
                shown.append(pool[i])
                pool[i] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)

    def l1(a, b):
        return (a - b).abs().mean()

    def d_loss(real, fake):
        return 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake ** 2).mean()

    monkeypatch.setattr(train, "learning_rate", lambda lr, step, steps: lr * step / steps)
    with float64():
        trained("run", "--steps", 3, "--batch-size", 20, "--seed", 4, "--lambda-cycle", cycle,
                "--lambda-identity", identity)
        torch.manual_seed(4)
        G, F = model.Generator(3, 3, 4, 1), model.Generator(3, 3, 4, 1)
        D_X, D_Y = model.Discriminator(16, 3, 4), model.Discriminator(16, 3, 4)
        opt_g = Adam([*G.parameters(), *F.parameters()], 0.5)
        opt_d = Adam([*D_X.parameters(), *D_Y.parameters()], 0.5)
        batches = [half.batches(20, seed=4) for half in data.load_unpaired("faces", 18)]
        pool_x, pool_y, rows = [], [], []
        for step in (1, 2, 3):
            torch.manual_seed(4 * 1_000_003 + step)
            x, y = (windows(next(half)) for half in batches)
            x_fake, y_fake = F(y), G(x)
            real_y = D_Y(y)
            fake_x, fake_y = D_X(past(pool_x, x_fake)), D_Y(past(pool_y, y_fake))
            loss_d = d_loss(D_X(x), fake_x) + d_loss(real_y, fake_y)
            opt_d.step(loss_d, 2e-4 * step / 3)

            back = l1(F(y_fake), x) + l1(G(x_fake), y)
            loss_g = ((D_Y(y_fake) - 1) ** 2).mean() + ((D_X(x_fake) - 1) ** 2).mean()
            loss_g = loss_g + cycle * back + cycle * identity * (l1(G(y), y) + l1(F(x), x))
            opt_g.step(loss_g, 2e-4 * step / 3)
            rows.append([v.mean().item() for v in (loss_d, loss_g, back, real_y, fake_y)])
        # Adam makes much of the rounding in a gradient that is 0: a bias's before a norm
        assert_same_run(Path("run"), rows, 1e-7, G=G, F=F, D_X=D_X, D_Y=D_Y)
        saved = torch.load("run/ckpt.pt", weights_only=True)
    for kept, pool in ((saved["pool_x"], pool_x), (saved["pool_y"], pool_y)):
        assert torch.allclose(torch.stack(kept["images"]), torch.stack(pool), atol=1e-7)


def test_resume_keeps_full_pools_and_the_schedule(monkeypatch):
    monkeypatch.setattr(train, "learning_rate", lambda lr, step, steps: lr * step / steps)
    trained("whole", "--steps", 8, "--batch-size", 1, "--pool", 2, "--keep-every", 5)
    Path("part").mkdir()
    Path("whole/ckpt-000005.pt").replace("part/ckpt.pt")
    trained("part", "--resume", "--steps", 8, "--batch-size", 1)
    whole, part = (torch.load(f"{out}/ckpt.pt", weights_only=True) for out in ("whole", "part"))
    for pool in ("pool_x", "pool_y"):
        assert len(whole[pool]["images"]) == 2
        assert all(map(torch.equal, whole[pool]["images"], part[pool]["images"]))
    for net in ("G", "F", "D_X", "D_Y"):
        assert all(map(torch.equal, whole[net].values(), part[net].values()))


def test_resume_refuses_another_network(capfd):
    trained("run", "--steps", 1)
    for flags in (("--width", 5), ("--n-blocks", 2), ("--size", 32)):
        assert_resume_refused(train, Path("run"), capfd, flags)


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
def test_the_grid_shows_held_out_images_where_there_are_some(place, parts, used):
    write_folder(place / "set", ["trainA", "trainB", *parts])
    trained("run", "--steps", 1, "--batch-size", 1, "--data", "set")
    saved = torch.load("run/ckpt.pt", weights_only=True)
    for fixed, half in (("x_fixed", "A"), ("y_fixed", "B")):
        files = sorted((place / "set" / f"{used}{half}").iterdir())
        expected = torch.stack([read_image(file, 16) for file in files])
        assert torch.allclose(saved[fixed], expected / 127.5 - 1)


def test_the_grid_of_drawn_faces_shows_held_out_ones(ckpt):
    saved = torch.load(ckpt, weights_only=True)
    x, y = data.load_unpaired("faces", 16, split="test")
    assert torch.equal(saved["x_fixed"], x[:8]) and torch.equal(saved["y_fixed"], y[:8])


def test_grey_and_colour(place, capfd):
    write_folder(place / "set", ["trainA"])
    write_folder(place / "set", ["trainB"], "L")
    flags = "--steps", 1, "--batch-size", 1, "--data", "set"
    with pytest.raises(SystemExit):
        trained("run", *flags, "--lambda-identity", 0.5)
    assert "--lambda-identity" in capfd.readouterr().err
    trained("run", *flags)
    nets, saved = sample.load_generator("run/ckpt.pt")
    assert saved["channels"] == [3, 1]
    G, F = nets["AtoB"], nets["BtoA"]
    assert F(G(saved["x_fixed"])).shape == saved["x_fixed"].shape == (3, 3, 16, 16)
    assert translated("--ckpt", "run/ckpt.pt") == 0
    assert translated("--ckpt", "run/ckpt.pt", "--input", "set/trainB", "--direction", "BtoA",
                      "--out", "out") == 0
    assert Image.open("out/0.png").mode == "RGB"


# sample.py

def test_each_and_real(ckpt, place):
    """Translations of the test images, and those of the other set that they should look like."""
    nets, _ = sample.load_generator(ckpt)
    for side, direction in enumerate(("AtoB", "BtoA")):
        assert translated("--ckpt", ckpt, "--n", 99, "--each", f"each{side}", "--seed", 3,
                          "--real", f"real{side}", "--direction", direction) == 0
        test = data.load_unpaired("faces", 16, split="test")
        torch.manual_seed(3)
        expected = nets[direction](test[side][torch.randperm(32)])
        for folder, pictures in ((f"each{side}", expected), (f"real{side}", test[1 - side][:])):
            files = sorted((place / folder).iterdir())
            for file, picture in zip(files, pictures, strict=True):
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
    assert list(padded[0].shape[2:]) == [max(8, -(-s // 4) * 4) for s in (h, w)]
    if (h, w) == (300, 517):
        assert torch.equal(padded[0][..., 517:], x[..., 513:516].flip(3))  # the mirror is 516
    y = sample.translate(model.Generator(3, 1, 4, 1), x)
    assert y.shape == (2, 1, h, w) and y.isfinite().all()


@pytest.fixture
def photos(place):
    """A photograph, a grey one, one with alpha in a sub-folder, and one that is none."""
    (place / "photos" / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(100, 171, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save("photos/photo.png")
    Image.fromarray(pixels[:30, :40, 0]).save("photos/grey.bmp")
    Image.fromarray(pixels[:40, :30]).save("photos/more/alpha.png")
    (place / "photos/text.png").write_text("no image")
    return place / "photos"


def test_input(ckpt, photos, place, capfd):
    args = "--ckpt", ckpt, "--input"
    assert translated(*args, "photos", "--direction", "BtoA", "--out", "out") == 0
    shown = capfd.readouterr().out
    assert "3 of 4" in shown and "text.png" in shown
    nets, _ = sample.load_generator(ckpt)
    made = sorted(str(p.relative_to(place / "out")) for p in (place / "out").rglob("*.*"))
    assert made == ["grey.bmp", "more/alpha.png", "photo.png"]
    for name in made:
        x, y = (read_image(place / folder / name) / 127.5 - 1 for folder in ("photos", "out"))
        assert (y - sample.translate(nets["BtoA"], x[None])[0]).abs().max() < 0.005
    assert translated(*args, "photos/photo.png", "--side", 12, "--out", "alone") == 0
    assert Image.open("alone/photo.png").size == (21, 12)
    assert_input_is_checked("cyclegan", ckpt, place, capfd)


# The authors' files

class OfficialBlock(nn.Module):
    def __init__(self, c, dropout, norm):
        super().__init__()
        extra = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), norm(c), nn.ReLU(True), *extra,
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), norm(c))

    def forward(self, x):
        return x + self.conv_block(x)


class Official(nn.Module):
    """ResnetGenerator of junyanz/pytorch-CycleGAN-and-pix2pix, from its description."""

    def __init__(self, c_in, c_out, c, n_blocks, dropout=False, norm=nn.InstanceNorm2d):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(c_in, c, 7), norm(c), nn.ReLU(True)]
        for i in (1, 2):
            layers += [nn.Conv2d(c * i, c * i * 2, 3, stride=2, padding=1),
                       norm(c * i * 2), nn.ReLU(True)]
        layers += [OfficialBlock(4 * c, dropout, norm) for _ in range(n_blocks)]
        for i in (4, 2):
            layers += [nn.ConvTranspose2d(c * i, c * i // 2, 3, stride=2, padding=1,
                                          output_padding=1), norm(c * i // 2), nn.ReLU(True)]
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
def test_official(n_blocks, dropout, old):
    torch.manual_seed(0)
    theirs = Official(3, 1, 4, n_blocks, dropout).eval()
    state = theirs.state_dict()
    keys = their_keys(n_blocks, second=6 if dropout else 5)
    assert list(state) == keys and (n_blocks != 9 or len(keys) == 48)  # those of the fact card
    if old:
        state["model.2.running_mean"] = torch.full((4,), 9.0)
        state["model.10.conv_block.2.running_var"] = torch.full((16,), 9.0)
        state["model.10.conv_block.2.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, "latest_net_G.pth", _use_new_zipfile_serialization=not old)
    nets, _ = sample.load_generator("latest_net_G.pth")
    x = torch.randn(2, 3, 32, 24)
    assert torch.equal(nets["AtoB"](x), theirs(x)) and nets["BtoA"] is nets["AtoB"]


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


def test_official_command(photos, place, capfd):
    flags = "--official", "net.pth", "--input", "photos", "--out", "out"
    for content, says in (
            (None, "net.pth"), ({"model.model.0.weight": torch.ones(3)}, "pix2pix/sample.py"),
            (Official(3, 3, 4, 2, norm=nn.BatchNorm2d).state_dict(), "has batch norm"),
            ({"model.1.weight": torch.ones(4, 3, 7, 7), "x": Evil()}, "damaged"),
            (Official(3, 2, 4, 2).state_dict(), "2 channels of 3")):
        if content:
            torch.save(content, "net.pth")
        assert translated(*flags) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and says in err
        assert not (place / "out").exists() and not (place / "executed").exists()
    torch.manual_seed(0)
    theirs = Official(3, 3, 4, 2)
    torch.save(theirs.state_dict(), "net.pth")
    assert translated(*flags) == 0
    x, y = (read_image(folder / "more/alpha.png")[None] / 127.5 - 1 for folder in (photos,
            place / "out"))
    with torch.no_grad():  # 30 pixels wide
        expected = theirs(nn.functional.pad(x, (0, 2, 0, 0), "reflect"))[..., :30]
    assert (expected - y).abs().max() < 0.005
    for more in ([], ["--each", "each"], ["--real", "real"]):
        assert translated(*flags[:2], *more) == 2
        assert "--official" in capfd.readouterr().err
