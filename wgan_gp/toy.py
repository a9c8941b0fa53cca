"""Fig. 1 of WGAN-GP: what clipping makes of a critic of points in the plane, and what the penalty.

    python wgan_gp/toy.py                                    Fig. 1a: level sets, of three data sets
    python wgan_gp/toy.py --data swissroll --clip 0.1        one of them, other bounds
    python wgan_gp/toy.py --train-g                          the fakes are those of a G that learns
    python wgan_gp/toy.py --deep                             Fig. 1b: gradients, weights

Fig. 1a: the fakes are the data plus N(0, 1) noise, and only the critic learns: in the first row
with its weights clipped, as in WGAN, in the second with the gradient penalty. Lines join points of
equal score, which rises from blue to yellow; data are orange, fakes green.
Fig. 1b: G and critic of twelve layers on the Swiss roll, by Algorithm 1. Left, how the gradient of
the critic's loss fares on its way back through the layers; right, where the critic's weights end.
"""
import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import fail
from common.images import write_image

SETS = ("gaussians8", "gaussians25", "swissroll")
EDGE = 2.5  # a panel shows [-EDGE, EDGE]^2
COLOURS = "#0072b2", "#56b4e9", "#009e73", "#d55e00"
BLUE, YELLOW = torch.tensor([190.0, 205, 235]), torch.tensor([255.0, 248, 205])


def number(kind: type, low: float, high: float = math.inf):
    """An argparse type: an int or float in [low, high)."""
    def parse(text: str):
        if not low <= kind(text) < high:
            raise argparse.ArgumentTypeError(f"{text} is not in [{low}, {high})")
        return kind(text)
    parse.__name__ = kind.__name__  # for argparse's own message
    return parse


def points(data: str, n: int) -> torch.Tensor:
    """n points (n, 2) of a toy set. [authors' code]"""
    if data == "gaussians8":  # on a circle
        angle = torch.randint(8, (n,)) * (math.pi / 4)
        centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
        return (centres + 0.02 * torch.randn(n, 2)) / 2 ** 0.5
    if data == "gaussians25":  # on a square grid
        return (2.0 * torch.randint(-2, 3, (n, 2)) + 0.05 * torch.randn(n, 2)) / 2 ** 1.5
    t = 1.5 * math.pi * (1 + 2 * torch.rand(n))  # the roll seen along its axis
    return (torch.stack([t * t.cos(), t * t.sin()], 1) + 0.25 * torch.randn(n, 2)) / 7.5


def mlp(d_out: int, hidden: int = 3, width: int = 512) -> nn.Sequential:
    """(n, 2) -> (n, d_out): hidden layers of ReLUs, as He et al. begin; the last as Glorot does.
    [authors' code]"""
    widths = [2] + hidden * [width]
    net = nn.Sequential()
    for d_in, d in pairwise(widths):
        net.extend([nn.Linear(d_in, d), nn.ReLU()])
        nn.init.kaiming_uniform_(net[-2].weight, nonlinearity="relu")
    net.append(nn.Linear(widths[-1], d_out))
    nn.init.xavier_uniform_(net[-1].weight)
    for layer in net[::2]:
        nn.init.zeros_(layer.bias)
    return net


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[D(x_fake)] - E[D(x)], from scores (n,): Eq. 3, "original critic loss"."""
    return fake.mean() - real.mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))], from scores (n,). [Alg. 1, line 12]"""
    return -fake.mean()


def gradient_penalty(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor) -> torch.Tensor:
    """E[(|grad D(x_hat)|_2 - 1)^2], x_hat = eps x + (1 - eps) x_fake. Eq. 3, "our gradient penalty"
    without its factor lambda; x and x_fake (n, ...) are constants in it."""
    eps = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device)  # U[0, 1], one a sample
    x_hat = (eps * x + (1 - eps) * x_fake).detach().requires_grad_()
    grad, = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


def learn(data: str, clip: float | None, args: argparse.Namespace) -> tuple:
    """A critic trained with weights in [-clip, clip], or with the penalty; points, and fakes."""
    torch.manual_seed(args.seed)
    G, D = mlp(2, args.hidden, args.width), mlp(1, args.hidden, args.width).append(nn.Flatten(0))
    if clip:
        opt_g, opt_d = (torch.optim.RMSprop(net.parameters(), lr=5e-5) for net in (G, D))
    else:
        opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.0, 0.9))
                        for net in (G, D))

    def fakes(x: torch.Tensor) -> torch.Tensor:
        return G(torch.randn_like(x)) if args.train_g else x + torch.randn_like(x)

    for step in range(1, args.steps + 1):
        for _ in range(args.n_critic):
            x = points(data, args.batch_size)
            x_fake = fakes(x).detach()
            loss_d = d_loss(D(x), D(x_fake))
            if not clip:
                loss_d = loss_d + args.lambda_gp * gradient_penalty(D, x, x_fake)
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
            if clip:
                with torch.no_grad():
                    for p in D.parameters():
                        p.clamp_(-clip, clip)
        if args.train_g:
            loss_g = g_loss(D(fakes(x)))
            opt_g.zero_grad()
            loss_g.backward()
            opt_g.step()
        if step % 50 == 0 or step == args.steps:
            print(f"{data} {f'clip {clip}' if clip else 'penalty'}  step {step}/{args.steps}  "
                  f"loss_d {loss_d.item():.5f}", flush=True)
    x = points(data, 500)
    return D, x, fakes(x).detach()


def gradient_norms(D: nn.Sequential, x: torch.Tensor, x_fake: torch.Tensor) -> list[float]:
    """|grad of d_loss|_2 by the critic's input, by each hidden layer's output, and by its score."""
    h = [torch.cat([x, x_fake]).requires_grad_()]
    for i in range(0, len(D), 2):  # Linear and ReLU, at last Linear and Flatten
        h.append(D[i:i + 2](h[-1]))
    grads = torch.autograd.grad(d_loss(*h[-1].chunk(2)), h)
    return [grad.double().norm().item() for grad in grads]  # its square underflows in float32


def weights(D: nn.Sequential) -> torch.Tensor:
    return torch.cat([layer.weight.detach().flatten() for layer in D[::2]])


def panel(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor, side: int = 250) -> Image.Image:
    """D's level sets, and points of the data and of the fakes. Drawn at twice the size."""
    axis = torch.linspace(-EDGE, EDGE, side // 2)
    with torch.no_grad():
        v = D(torch.cartesian_prod(-axis, axis).flip(1)).unflatten(0, (1, 1, side // 2, -1))
    v = F.interpolate(v, size=(2 * side + 1, 2 * side + 1), mode="bicubic", align_corners=True)
    v = ((v - v.min()) / (v.max() - v.min()))[0, 0, :, :, None]
    level = (v * 12).floor()
    line = (level[1:, :-1] != level[:-1, :-1]) | (level[:-1, 1:] != level[:-1, :-1])
    colour = torch.lerp(BLUE, YELLOW, v[:-1, :-1]) * torch.where(line, 0.55, 1.0)
    image = Image.fromarray(colour.byte().numpy())
    draw = ImageDraw.Draw(image)
    for z, fill in ((x_fake, "#2a9d4a"), (x, "#e8760a")):
        for a, b in ((z * torch.tensor([1, -1]) / EDGE + 1) * side).tolist():
            draw.ellipse((a - 3, b - 3, a + 3, b + 3), fill)
    return image.reduce(2)


def plot_norms(norms: dict[str, list[float]], w: int = 520, h: int = 330) -> Image.Image:
    """Norms over the layers, input first, on a logarithmic scale. Drawn at twice the size."""
    sheet = Image.new("RGB", (2 * w, 2 * h), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    logs = {name: torch.tensor(values).log10().tolist() for name, values in norms.items()}
    low, high = (5 * edge(f(map(f, logs.values())) / 5) for f, edge in (
        (min, math.floor), (max, math.ceil)))

    def at(layer: float, value: float) -> tuple[float, float]:
        n = len(next(iter(logs.values()))) - 1
        return (100 + layer / n * (2 * w - 130), 70 + (high - value) / (high - low) * (2 * h - 170))

    for value in range(low, high + 1, 5):
        draw.line([at(0, value), (2 * w - 30, at(0, value)[1])], "#dddddd", 2)
        draw.text((90, at(0, value)[1]), f"1e{value}", "black", font, anchor="rm")
    for i, (name, values) in enumerate(logs.items()):
        draw.line([at(*point) for point in enumerate(values)], COLOURS[i], 5)
        draw.text((100 + 230 * i, 20), name, COLOURS[i], font)
    for layer in range(len(values)):
        draw.text((at(layer, 0)[0], 2 * h - 90), str(layer), "black", font, anchor="ma")
    draw.text((w, 2 * h - 50), "layer of the critic (0: its input)", "black", font, anchor="ma")
    return sheet.reduce(2)


def plot_weights(w: torch.Tensor, text: str, edge: float, side: int = 250) -> Image.Image:
    """A histogram of weights in [-edge, edge]."""
    sheet = Image.new("RGB", (side, side * 2 // 3), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    base, counts = sheet.height - 20, torch.histc(w, 50, -edge, edge)
    for i, share in enumerate((counts / counts.max()).tolist()):
        draw.rectangle((i * side // 50, base - share * (base - 24), (i + 1) * side // 50 - 2, base),
                       COLOURS[0])
    draw.text((side // 2, 4), text, "black", font, anchor="ma")
    for x, value, anchor in ((0, -edge, "la"), (side // 2, 0, "ma"), (side, edge, "ra")):
        draw.text((x, base + 4), f"{value:g}", "black", font, anchor=anchor)
    return sheet


def fig_1a(args: argparse.Namespace) -> Image.Image:
    rows = [[panel(*learn(data, clip, args)) for data in args.data] for clip in (args.clip, None)]
    (side, _), pad, font = rows[0][0].size, 8, ImageFont.load_default(15)
    sheet = Image.new("RGB", (pad + len(args.data) * (side + pad), 2 * (side + 30) + pad), "white")
    for r, (row, text) in enumerate(zip(rows, (f"weights clipped at {args.clip}",
                                               "gradient penalty"), strict=True)):
        for c, image in enumerate(row):
            sheet.paste(image, (pad + c * (side + pad), 30 + r * (side + 30)))
        ImageDraw.Draw(sheet).text((pad, 7 + r * (side + 30)), text, "black", font)
    return sheet


def fig_1b(args: argparse.Namespace) -> Image.Image:
    """Departure: 128 units a layer. Sec. 3.2 gives no width, and the norms look alike."""
    args.train_g, args.hidden, args.width = True, 11, 128  # twelve layers [Sec. 3.2]
    norms, sheet = {}, Image.new("RGB", (790, 340), "white")
    for clip in (0.001, 0.01, 0.1, None):  # [Sec. 3.2]
        D, x, x_fake = learn("swissroll", clip, args)
        name = f"clip {clip}" if clip else "gradient penalty"
        norms[name] = gradient_norms(D, x, x_fake)
        print(f"{name}: gradient norms {', '.join(f'{v:.1e}' for v in norms[name])}", flush=True)
        if clip == 0.01:
            sheet.paste(plot_weights(weights(D), name, 0.02), (530, 5))
    sheet.paste(plot_weights(weights(D), name, 0.5), (530, 175))
    sheet.paste(plot_norms(norms), (0, 5))
    return sheet


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    add = p.add_argument
    add("--deep", action="store_true", help="draw Fig. 1b")
    add("--data", nargs="+", default=SETS, choices=SETS, help="the columns")
    add("--out", type=Path, help="the picture; default: runs/wgan_gp/fig1a.png or fig1b.png")
    add("--clip", type=number(float, 1e-9), default=0.01, help="of the first row's critic [WGAN]")
    add("--lambda-gp", type=number(float, 0), default=0.1, help="of the second row's "
        "[authors' code]; a Departure: Alg. 1 has 10, which learns far slower")
    add("--train-g", action="store_true", help="train a G too, one update a step")
    add("--n-critic", type=number(int, 1), default=5, help="critic updates a step [Alg. 1]")
    add("--batch-size", type=number(int, 1), default=256, help="points [authors' code]")
    add("--steps", type=number(int, 1), default=500, help="authors' code: 100,000")
    add("--seed", type=number(int, 0), default=0, help="of weights and points")
    p.set_defaults(hidden=3, width=512)  # [authors' code]
    args = p.parse_args(argv)
    args.out = args.out or Path(f"runs/wgan_gp/fig1{'b' if args.deep else 'a'}.png")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = fig_1b(args) if args.deep else fig_1a(args)
    write_image(args.out, pil_to_tensor(sheet) / 127.5 - 1)  # atomically
    print(f"wrote {args.out}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out")
