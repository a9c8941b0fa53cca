"""Fig. 1 of WGAN-GP: what a critic learns of points in the plane, clipped and with the penalty.

    python wgan_gp/toy.py                                    8 and 25 Gaussians and the Swiss roll
    python wgan_gp/toy.py --data swissroll --clip 0.1        one of them, other bounds
    python wgan_gp/toy.py --train-g                          the fakes are those of a G that learns

As in the paper the fakes are the data plus N(0, 1) noise, and only the critic learns: in the first
row with its weights clipped, as in WGAN, in the second with the gradient penalty. Lines join points
of equal score, which rises from blue to yellow; data are orange, fakes green.
"""
import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import fail  # noqa: E402
from common.images import write_image  # noqa: E402

SETS = ("gaussians8", "gaussians25", "swissroll")
EDGE = 2.5  # a panel shows [-EDGE, EDGE]^2
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


def mlp(d_out: int) -> nn.Sequential:
    """(n, 2) -> (n, d_out): three hidden layers of 512 ReLUs. [authors' code]"""
    net = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                        nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, d_out))
    for layer in net[:-1:2]:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return net


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[D(x_fake)] - E[D(x)], from scores (n,): Eq. 3, first term."""
    return fake.mean() - real.mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))], from scores (n,). [Alg. 1, line 12]"""
    return -fake.mean()


def gradient_penalty(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor) -> torch.Tensor:
    """E[(|grad D(x_hat)|_2 - 1)^2], x_hat = eps x + (1 - eps) x_fake. Eq. 3, second term."""
    eps = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device)  # one a sample: U[0, 1]
    x_hat = (eps * x + (1 - eps) * x_fake).detach().requires_grad_()
    grad, = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


def learn(data: str, clip: float | None, args: argparse.Namespace) -> Image.Image:
    """A critic's training, with weights in [-clip, clip] or with the penalty, and its panel."""
    torch.manual_seed(args.seed)
    G, D = mlp(2), mlp(1).append(nn.Flatten(0))
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
    with torch.no_grad():
        x = points(data, 500)
        return panel(D, x, fakes(x))


def panel(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor, side: int = 250) -> Image.Image:
    """D's level sets, and points of the data and of the fakes. Drawn at twice the size."""
    axis = torch.linspace(-EDGE, EDGE, side // 2)
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


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    add = p.add_argument
    add("--data", nargs="+", default=SETS, choices=SETS, help="the columns")
    add("--out", type=Path, default="runs/wgan_gp/fig1.png", help="the picture")
    add("--clip", type=number(float, 1e-9), default=0.01, help="of the first row's critic [WGAN]")
    add("--lambda-gp", type=number(float, 0), default=0.1, help="of the second row's "
        "[authors' code]; a Departure: Alg. 1 has 10, which learns far slower")
    add("--train-g", action="store_true", help="train a G too, one update a step")
    add("--n-critic", type=number(int, 1), default=5, help="critic updates a step [Alg. 1]")
    add("--batch-size", type=number(int, 1), default=256, help="points [authors' code]")
    add("--steps", type=number(int, 1), default=500, help="authors' code: 100,000")
    add("--seed", type=number(int, 0), default=0, help="of weights and points")
    args = p.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [[learn(data, clip, args) for data in args.data] for clip in (args.clip, None)]
    (side, _), pad, font = rows[0][0].size, 8, ImageFont.load_default(15)
    sheet = Image.new("RGB", (pad + len(args.data) * (side + pad), 2 * (side + 30) + pad), "white")
    for r, (row, text) in enumerate(zip(rows, (f"weights clipped at {args.clip}",
                                               "gradient penalty"), strict=True)):
        for c, image in enumerate(row):
            sheet.paste(image, (pad + c * (side + pad), 30 + r * (side + 30)))
        ImageDraw.Draw(sheet).text((pad, 7 + r * (side + 30)), text, "black", font)
    write_image(args.out, pil_to_tensor(sheet) / 127.5 - 1)  # atomically
    print(f"wrote {args.out}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out")
