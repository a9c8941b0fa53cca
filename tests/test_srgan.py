"""srgan/: SRResNet and D, two stages in one run, the content losses, PSNR and SSIM, tiles."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm import Adam, assert_same_run, float64
from conftest import assert_resume_refused, kinds, load, main, n_parameters, tiny
from PIL import Image
from torch import nn

from common import data
from common.images import read_image

model, train, sample = (load("srgan", module) for module in ("model", "train", "sample"))
pytestmark = pytest.mark.usefixtures("small_data", "place")
SMALL = "--width", 2, "--n-blocks", 1, "--sample-every", 100


def trained(*flags):
    """A run in run/ of these flags."""
    train.train(train.parse_args(tiny("srgan", "run", *SMALL, *flags)))


def picture(*shape) -> torch.Tensor:
    """Smooth noise in [-1, 1], which reaches both ends."""
    x = F.interpolate(torch.randn(*shape) * 2, scale_factor=4, mode="bicubic")
    return x.clamp(-1, 1)


def a_g(**options) -> nn.Module:
    """A G of which every part shows: weights, slopes and running averages are no round numbers."""
    torch.manual_seed(0)
    G = model.Generator(3, 4, **options)
    for name, t in G.state_dict().items():
        if t.is_floating_point() and t.ndim == 1:
            t.copy_(torch.rand_like(t) + 0.2 * ("weight" in name))
    return G.eval().requires_grad_(False)


# The networks

def test_the_papers_setting():
    args = train.parse_args(["--paper"])
    assert (args.size, args.scale, args.batch_size) == (96, 4, 16)
    assert (args.width, args.n_blocks) == (64, 16)
    assert (args.lr_mse, args.lr, args.beta1) == (1e-4, 1e-4, 0.9)
    assert (args.steps_mse, args.decay_at, args.steps) == (1e6, 1.1e6, 1.2e6)
    assert (args.content, args.lambda_vgg, args.lambda_adv) == ("vgg54", 0.006, 1e-3)


@pytest.mark.parametrize("net, options, count", [
    ("Generator", {}, 1_548_547), ("Generator", {"scale": 2}, 1_400_771),
    ("Generator", {"width": 32, "n_blocks": 4}, 173_315),
    ("Discriminator", {}, 23_563_649), ("Discriminator", {"size": 64}, 13_077_889),
    ("Discriminator", {"size": 32}, 6_786_433), ("VGG19", {}, 20_024_384)])
def test_parameter_counts(net, options, count):
    with torch.device("meta"):
        assert n_parameters(getattr(model, net)(**options)) == count


def test_shapes_and_layers():
    conv, norm, prelu, leaky = nn.Conv2d, nn.BatchNorm2d, nn.PReLU, nn.LeakyReLU
    with torch.device("meta"):
        for scale in (2, 4, 8):
            G = model.Generator(1, 2, 2, scale)
            assert G(torch.empty(2, 1, 5, 7)).shape == (2, 1, 5 * scale, 7 * scale)
        for size in (16, 48, 96):
            assert model.Discriminator(size, 3, 2)(torch.empty(2, 3, size, size)).shape == (2,)
        with pytest.raises(ValueError, match="16, 32, 48"):
            model.Discriminator(40)
        with pytest.raises(ValueError, match="2, 4 or 8"):
            model.Generator(scale=3)
        G, D = model.Generator(n_blocks=2), model.Discriminator()
    assert kinds(G) == [conv, prelu, *[conv, norm, prelu, conv, norm] * 2, conv, norm,
                        *[conv, nn.PixelShuffle, prelu] * 2, conv]
    assert kinds(D) == [conv, leaky, *[conv, norm, leaky] * 7, nn.Flatten, nn.Linear, leaky,
                        nn.Linear]
    assert [m.stride[0] for m in D.modules() if isinstance(m, conv)] == [1, 2] * 4
    assert {m.num_parameters for m in G.modules() if isinstance(m, prelu)} == {64}
    assert {m.eps for m in (*G.modules(), *D.modules()) if isinstance(m, norm)} == {1e-5}


def test_generator_is_fig_4():
    """Skips around each block and around all, nothing after a sum, [0, 1] inside, no tanh."""
    def norm(x, bn):
        mean, std = bn.running_mean[:, None, None], (bn.running_var + bn.eps).sqrt()[:, None, None]
        return (x - mean) / std * bn.weight[:, None, None] + bn.bias[:, None, None]

    def prelu(x, m):
        return torch.where(x > 0, x, m.weight[:, None, None] * x)

    def conv(x, m):
        return F.conv2d(x, m.weight, m.bias, padding=m.weight.shape[2] // 2)

    G, x = a_g(n_blocks=2), picture(2, 3, 2, 2)
    y = x0 = prelu(conv((x + 1) / 2, G.first[0]), G.first[1])
    for block in G.blocks[:2]:
        c1, n1, slope, c2, n2 = block.net
        y = y + norm(conv(prelu(norm(conv(y, c1), n1), slope), c2), n2)
    y = norm(conv(y, G.blocks[2]), G.blocks[3]) + x0
    for i in (0, 3):
        n, c, h, w = y.shape  # of four times the channels, c: twice the rows and the columns
        y = conv(y, G.up[i]).view(n, c, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        y = prelu(y.reshape(n, c, 2 * h, 2 * w), G.up[i + 2])
    torch.testing.assert_close(G(x), conv(y, G.up[6]))
    assert G(100 * x).abs().max() > 1


def test_reach():
    """How far an output pixel sees, in pixels of the input: reach is enough, and not by far."""
    for scale in (2, 4, 8):
        G = a_g(n_blocks=2, scale=scale)
        x = torch.rand(1, 3, 41, 41, requires_grad=True)
        for at in range(20 * scale, 21 * scale):
            G(x)[0, 0, at, 20 * scale].backward()
        seen = 20 - x.grad.abs().sum((0, 1, 3)).nonzero().min().item()
        assert G.reach - 1 <= seen <= G.reach


# VGG19

@pytest.fixture
def vgg_file(place):
    """What torchvision's file has: the names, the classifier too; with weights that are random."""
    torch.manual_seed(0)
    state, index, c_in = {}, 0, 3
    for c, n in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(n):
            state[f"features.{index}.weight"] = torch.randn(c, c_in, 3, 3) * (2 / c_in / 9) ** 0.5
            state[f"features.{index}.bias"] = torch.randn(c) * 0.1
            index, c_in = index + 2, c
        index += 1
    assert list(state)[-1] == "features.34.bias"
    state["classifier.6.bias"] = torch.zeros(1000)
    torch.save(state, place / "vgg19.pth")
    return state


@pytest.mark.parametrize("phi, last, shape", [("vgg22", 7, (1, 128, 16, 16)),
                                              ("vgg54", 34, (1, 512, 2, 2))])
def test_vgg_features(vgg_file, phi, last, shape):
    """After the ReLU of the convolution `last`, before the pooling; from ImageNet's mean and
    standard deviation; with a gradient for G's image alone, and weights that stay."""
    args = train.parse_args(["--vgg", "vgg19.pth", "--content", phi])
    vgg = train.load_vgg(args, torch.device("cpu"))
    assert not vgg.training and not any(p.requires_grad for p in vgg.parameters())
    x, x_fake = picture(2, 3, 8, 8).split(1)

    def features(x):
        y = ((x + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225])[:, None, None]
        for i in range(last + 1):
            if i in (4, 9, 18, 27):
                y = F.max_pool2d(y, 2)
            if f"features.{i}.weight" in vgg_file:
                y = F.conv2d(y, vgg_file[f"features.{i}.weight"], vgg_file[f"features.{i}.bias"],
                             padding=1).relu()
        return y

    x_fake = x_fake.clone().requires_grad_()
    loss = train.vgg_loss(vgg, x_fake, x)
    assert vgg(x).shape == shape
    theirs = (features(x) - features(x_fake)).square().mean()
    torch.testing.assert_close(loss, theirs)
    ours, = torch.autograd.grad(loss, x_fake)
    torch.testing.assert_close(ours, torch.autograd.grad(theirs, x_fake)[0])
    assert ours.abs().max() > 0
    grey = x[:, :1]
    assert torch.equal(vgg(grey), vgg(grey.expand(-1, 3, -1, -1)))


def test_vgg_files_that_are_none(place, capfd):
    (place / "text.pth").write_text("no weights")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "few.pth")
    for flags, says in ((["--vgg", "none.pth"], str(place / "none.pth")), (["--vgg", "text.pth"],
                        "text.pth"), (["--vgg", "few.pth"], "features.0.bias"),
                        (["--content", "vgg22"], "--vgg FILE")):
        assert main("srgan", *tiny("srgan", "run", *flags)) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and says in err
        assert not (place / "run").exists()
    trained("--steps", 1)
    assert "SRGAN-MSE" in capfd.readouterr().out


# The low resolution, the measures

def test_shrink_is_matlabs_bicubic():
    """Keys' kernel with a = -1/2, stretched by the scale, symmetric at the borders; 8 bits. Away
    from the borders, where MATLAB mirrors the image and we leave out what is beyond."""
    def matrix(n, scale, x):  # rows: of each output, the weights of the inputs
        t = ((torch.arange(n)[None] - (torch.arange(n / scale)[:, None] + 0.5) * scale + 0.5)
             / max(scale, 1)).abs()
        w = torch.where(t <= 1, 1.5 * t ** 3 - 2.5 * t ** 2 + 1,
                        torch.where(t < 2, -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2, 0))
        return w / w.sum(1, keepdim=True)

    torch.manual_seed(0)
    x = picture(2, 3, 8, 12).double()
    for scale in (2, 4):
        low = matrix(32, scale, x).double() @ x @ matrix(48, scale, x).double().T
        ours = model.shrink(x, scale)
        assert (ours - low.clamp(-1, 1)).abs().max() < 1.01 / 255  # a half of a step of 2 / 255
        steps = (ours + 1) * 127.5
        assert (steps - steps.round()).abs().max() < 1e-9 and ours.abs().max() <= 1
        high = (matrix(8, 1 / scale, x).double() @ x[:, :, :8, :12]
                @ matrix(12, 1 / scale, x).double().T).clamp(-1, 1)
        assert (model.enlarge(x[:, :, :8, :12], scale) - high).abs().max() < 1.01 / 255


def test_luma_and_psnr():
    """Of files, without 4 pixels of each border; Y of white is 235, of black 16."""
    colours = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    x = colours[:, :, None, None].expand(-1, 3, 20, 24)
    y = model.luma(x)
    assert y.shape == (5, 1, 12, 16)
    assert y[:, 0, 0, 0].tolist() == pytest.approx([235, 16, 81.481, 144.553, 40.966], abs=1e-3)
    assert torch.allclose(model.luma(x[:, :1]), model.luma(x[:, :1].expand(-1, 3, -1, -1)))
    assert torch.equal(model.luma(5 * x), y)  # a file cuts

    torch.manual_seed(0)
    x = (picture(1, 3, 10, 10) * 0.9 * 127.5).round() / 127.5
    brighter = x + 2 / 127.5  # two levels of 255
    assert model.psnr(x, brighter).item() == pytest.approx(
        10 * math.log10(255 ** 2 / (2 / 255 * 219) ** 2), abs=0.01)
    inside = x.clone()
    inside[:, :, 4:-4, 4:-4] = brighter[:, :, 4:-4, 4:-4]
    assert model.psnr(inside, brighter).item() == 100  # what is in the border does not count
    red = x.clone()
    red[:, 0] += 2 / 127.5
    assert model.psnr(x, red).item() == pytest.approx(
        10 * math.log10(255 ** 2 / (2 / 255 * 65.481) ** 2), abs=0.01)


def test_ssim():
    """By windows that are cut out one by one."""
    torch.manual_seed(0)
    x, y = picture(2, 3, 6, 6).double().split(1)
    g = np.exp(-np.arange(-5, 6) ** 2 / 4.5)
    w = np.outer(g, g) / g.sum() ** 2
    a, b, values = model.luma(x)[0, 0].numpy(), model.luma(y)[0, 0].numpy(), []
    for top in range(len(a) - 10):
        for left in range(len(a) - 10):
            p, q = (z[top:top + 11, left:left + 11] for z in (a, b))
            m, n = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - m) ** 2).sum(), (w * (q - n) ** 2).sum()
            c = (w * (p - m) * (q - n)).sum()
            values.append((2 * m * n + 2.55 ** 2) * (2 * c + 7.65 ** 2)
                          / ((m * m + n * n + 2.55 ** 2) * (vp + vq + 7.65 ** 2)))
    assert model.ssim(x, y).item() == pytest.approx(np.mean(values), abs=1e-9)
    assert model.ssim(x, x).item() == pytest.approx(1)


# The losses and the algorithm

def test_losses_are_the_textbooks():
    real, fake = torch.randn(2, 9, dtype=torch.float64) * 5
    D_real, D_fake = torch.sigmoid(real), torch.sigmoid(fake)
    assert train.d_loss(real, fake).item() == pytest.approx(
        -(D_real.log().mean() + (1 - D_fake).log().mean()).item())
    assert train.g_loss(fake).item() == pytest.approx(-D_fake.log().mean().item())
    a = torch.full((4,), 200.0)
    assert train.d_loss(a, -a).item() == 0 and train.d_loss(-a, a).item() == 400
    x, x_fake = torch.tensor([[1.0, 0]]), torch.tensor([[3.0, 0]])  # nothing is cut to [-1, 1]
    assert train.mse_loss(x_fake, x).item() == 2


@pytest.mark.parametrize("phi", ["mse", "vgg22"])
def test_five_steps(phi, vgg_file, monkeypatch):
    """Two of SRResNet, then SRGAN from its weights, D before G on one x_fake, at a tenth of the
    rate from the fifth on; stopped after the second, and so across the stages, and the fourth.
    What leaves [-1, 1] is not cut."""
    def loud(*shape):
        G = model.Generator(*shape)
        G.up[-1].weight.data *= 20
        return G

    monkeypatch.setattr(train, "Generator", loud)
    flags = ["--vgg", "vgg19.pth", "--content", phi] if phi != "mse" else []
    with float64():
        stages = "--steps-mse", 2, "--decay-at", 4, "--lr-mse", 1e-3, "--scale", 2, *flags
        trained(*stages, "--steps", 2, "--seed", 3, "--batch-size", 2)
        for last in (4, 5):
            train.train(train.parse_args(["--resume", f"--steps={last}", "--out=run"]))

        batches, rows = data.load_crops("faces", 32).subset(0, 54).batches(2, seed=3), []
        held = data.load_crops("faces", 32)[54:]  # the last sixth
        torch.manual_seed(3)
        R, G = (loud(3, 2, 1, 2) for _ in "RG")
        D, vgg = model.Discriminator(32, 3, 2), model.VGG19("vgg22")
        vgg.load_state_dict(vgg_file, strict=False)
        opt_r, opt_g, opt_d = (Adam(net.parameters(), 0.9) for net in (R, G, D))
        for step in range(1, 6):
            x = next(batches)
            x_low = model.shrink(x, 2)
            row = [1, 0, 0, 0, 0, 0.5, 0.5]
            if step <= 2:
                row[2] = row[3] = loss = F.mse_loss(R(x_low), x)
                opt_r.step(loss, 1e-3)
            else:
                if step == 3:
                    G.load_state_dict(R.state_dict())
                lr = 1e-4 if step < 5 else 1e-5
                x_fake = G(x_low)
                assert x_fake.abs().max() > 1.2
                real, fake = torch.sigmoid(D(x)), torch.sigmoid(D(x_fake.detach()))
                loss_d = -real.log().mean() - (1 - fake).log().mean()
                opt_d.step(loss_d, lr)
                content = F.mse_loss(x_fake, x)
                if phi != "mse":
                    content = 0.006 * F.mse_loss(vgg(x_fake), vgg(x))
                loss = content - 1e-3 * torch.sigmoid(D(x_fake)).log().mean()  # D is the new one
                opt_g.step(loss, lr)
                row = [2, loss_d, loss, content, 0, real.mean(), fake.mean()]
            net = (R if step <= 2 else G).eval()
            row[4] = model.psnr(net(model.shrink(held, 2)), held).mean()
            net.train()
            rows.append([torch.as_tensor(v).item() for v in row])
        assert_same_run(Path("run"), rows, 1e-7, R=R, G=G, D=D)


def test_srresnet_stays(place):
    """It is in the checkpoint after the second stage, and where that has not begun it is both."""
    trained("--steps", 2)
    R, G = sample.load_generator("run/ckpt.pt")[0].values()
    assert all(map(torch.equal, R.state_dict().values(), G.state_dict().values()))
    before = R.state_dict()
    train.train(train.parse_args(["--resume", "--steps=4", "--out=run"]))
    R, G = sample.load_generator("run/ckpt.pt")[0].values()
    assert all(map(torch.equal, R.state_dict().values(), before.values()))
    assert not all(map(torch.equal, R.parameters(), G.parameters()))
    assert not R.training and not G.training


def test_the_second_stage_may_begin_earlier_but_not_again(capfd):
    """With SRResNet's weights of that moment, whatever number of steps was meant for it."""
    trained("--steps", 2, "--steps-mse", 9, "--lr", 0.0)
    train.train(train.parse_args(["--resume", "--steps=3", "--steps-mse=1", "--out=run"]))
    ckpt = torch.load("run/ckpt.pt", weights_only=True)
    assert all(torch.equal(ckpt["R"][name], ckpt["G"][name]) for name in ckpt["R"]
               if "running" not in name and "num" not in name)  # at a rate of 0
    with pytest.raises(SystemExit):
        train.train(train.parse_args(["--resume", "--steps-mse=9", "--out=run"]))
    assert "stage 2 has begun" in capfd.readouterr().err


def test_resume_refuses_another_network(capfd):
    trained("--steps", 1)
    for flags in (("--size", 48), ("--scale", 2), ("--width", 3), ("--n-blocks", 2)):
        assert_resume_refused(train, Path("run"), capfd, flags)


@pytest.mark.parametrize("n, n_train, n_held", [(12, 10, 2), (5, 5, 5), (700, 600, 100)])
def test_held_out(place, monkeypatch, n, n_train, n_held):
    """The last sixth, 100 at most; of five pictures none could be."""
    monkeypatch.setattr(data, "N_CROPPED", n)
    seen, batches = [], data.Data.batches
    monkeypatch.setattr(data.Data, "batches",
                        lambda self, *a, **k: seen.append(self) or batches(self, *a, **k))
    trained("--steps", 1, "--batch-size", 2)
    _, ckpt = sample.load_generator("run/ckpt.pt")
    held = sample.held_out(ckpt)
    assert (len(seen[0]), len(held)) == (n_train, n_held)
    assert torch.equal(held[:12], ckpt["x_fixed"])
    assert n == 5 or not set(held._rows) & set(seen[0]._rows)


# sample.py

def sampled(*args) -> int:
    return main("srgan", "--ckpt", "run/ckpt.pt", *args, script="sample.py")


@pytest.mark.parametrize("h, w", [(70, 90), (32, 33), (5, 65)])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_have_no_seams(h, w, scale):
    """Tiles of 32 pixels make the image that one pass makes, but for rounding."""
    G, x = a_g(n_blocks=1, scale=scale), (torch.rand(1, 3, h, w) * 2 - 1)
    whole, sizes = sample.to_uint8(G(x)[0]), []
    G.register_forward_hook(lambda net, x, y: sizes.append(x[0].shape[2:]))
    off = (sample.upscale(G, x, tile=32).int() - whole.int()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 1e-3
    assert max(max(size) for size in sizes) <= 32 + 2 * G.reach
    assert len(sizes) == math.ceil(h / 32) * math.ceil(w / 32)


def test_figures(monkeypatch):
    trained("--steps", 4)
    grids = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, **_: grids.update({path.name: x}))
    monkeypatch.setattr(sample, "figure", lambda path, rows, scale: grids.update({path.name: rows}))
    sample.main(["--ckpt", "run/ckpt.pt"])
    nets, ckpt = sample.load_generator("run/ckpt.pt")
    x = ckpt["x_fixed"]
    low, bicubic, srresnet, srgan, hr = grids["samples.png"].unflatten(0, (len(x), 5)).unbind(1)
    x_low = model.shrink(x, 4)
    assert torch.equal(low[:, :, 2::4, 3::4], x_low) and torch.equal(hr, x)
    assert torch.equal(bicubic, model.enlarge(x_low, 4))
    for net, y in zip(nets.values(), (srresnet, srgan), strict=True):
        assert torch.allclose(y, model.to_8_bits(net(x_low)), atol=1.01 * 2 / 255)
    pictures, values = grids["fig2.png"][1]
    assert torch.equal(pictures[3], srgan[1])
    assert values[2].tolist() == pytest.approx(
        [model.psnr(srresnet, x)[1].item(), model.ssim(srresnet, x)[1].item()], abs=1e-4)


@pytest.fixture
def photos(place):
    """A photograph of 45x70, a grey one of the same name, one with alpha below, a damaged one."""
    (place / "photos" / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(45, 70, 4), dtype="u1")
    Image.fromarray(pixels[..., :3]).save("photos/one.JPG", "jpeg")
    Image.fromarray(pixels[:31, :33, 0]).save("photos/one.png")
    Image.fromarray(pixels[:24, :20]).save("photos/more/alpha.png")
    (place / "photos/bad.jpg").write_bytes(b"no picture")
    return place / "photos"


def test_input(photos, place, capfd, monkeypatch):
    trained("--steps", 4)
    nets, _ = sample.load_generator("run/ckpt.pt")
    for flags, name in (([], "SRGAN"), (["--srresnet"], "SRResNet")):
        assert sampled("--input", "photos", "--out", name, *flags) == 0
        said = capfd.readouterr().out
        assert "wrote 3 of 4" in said and "bad.jpg" in said
        sizes = {str(p.relative_to(place / name)): Image.open(p).size
                 for p in (place / name).rglob("*.*")}
        assert sizes == {"one.png": (280, 180), "one.png.png": (132, 124),
                         "more/alpha.png": (80, 96)}
        alpha = Image.open("photos/more/alpha.png")
        white = Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha)
        x = torch.from_numpy(np.array(white.convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
        theirs = sample.to_uint8(nets[name](x)[0]).permute(1, 2, 0).numpy()
        ours = np.array(Image.open(place / name / "more/alpha.png"))
        assert abs(theirs.astype(int) - ours).max() <= 1
    before = sorted(place.rglob("*"))
    for flags, says in (("--input photos", "--out"), ("--input photos --out photos", "overw"),
                        ("--input photos --table photos --out out", "one of them"),
                        ("--srresnet --table photos --out out", "--srresnet"),
                        ("--input photos --each out", "--each"),
                        ("--input nothing --out out", "nothing")):
        assert sampled(*flags.split()) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and says in err
    assert sorted(place.rglob("*")) == before


def test_each(place):
    """Held-out crops by SRGAN, or by SRResNet."""
    trained("--steps", 4, "--lr", 0.01)
    nets, ckpt = sample.load_generator("run/ckpt.pt")
    held = sample.held_out(ckpt)
    x = next(held.batches(len(held), seed=0))
    made = {}
    for flags, name in (([], "SRGAN"), (["--srresnet"], "SRResNet")):
        assert sampled("--n", 2, "--each", name, *flags) == 0
        made[name] = torch.stack([read_image(path) for path in sorted((place / name).iterdir())])
        expected = sample.to_uint8(nets[name](model.shrink(x, 4)).clamp(-1, 1))[:2]
        assert torch.equal(made[name].byte(), expected)
    assert not torch.equal(*made.values())


def test_grey_networks(photos, place):
    """Grey pictures make G grey, and then colours go, too."""
    (place / "photos/one.JPG").unlink()
    (place / "grey").mkdir()
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(256, size=(40, 40), dtype="u1")).save(
            f"grey/{i}.png")
    trained("--steps", 3, "--data", "grey")
    assert sampled("--input", "photos", "--out", "large") == 0
    with Image.open("large/one.png") as im:
        assert (im.mode, im.size) == ("L", (132, 124))


def test_table(photos, place, capfd):
    trained("--steps", 3)
    assert sampled("--table", "photos/one.JPG", "--out", "table") == 0
    said = capfd.readouterr().out.splitlines()
    line = next(line for line in said if line.startswith("one.JPG"))
    x = torch.from_numpy(np.array(Image.open("photos/one.JPG"))).permute(2, 0, 1)[None]
    x = (x / 127.5 - 1)[:, :, :44, :68]  # multiples of the scale
    bicubic = model.enlarge(model.shrink(x, 4), 4)
    value = f"{model.psnr(bicubic, x).item():.2f} / {model.ssim(bicubic, x).item():.4f}"
    assert line.count("/") == 4 and value in line
    assert any("mean" in line for line in said) and Path("table/one.png").exists()
    assert sampled("--table", "photos/more", "--out", "small", "--n", 1) == 0
    Image.fromarray(np.zeros((19, 40), "u1")).save("photos/more/small.png")
    assert sampled("--table", "photos/more", "--out", "small") == 2
    assert "20 and more" in capfd.readouterr().err
