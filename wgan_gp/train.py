"""WGAN-GP: Improved Training of Wasserstein GANs. Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville.
NIPS 2017, arXiv 1704.00028.

    python wgan_gp/train.py                                  drawn digits, minutes on two cores
    python wgan_gp/train.py --data path/to/images --size 64  your own pictures
    python wgan_gp/train.py --paper                          the paper's CIFAR-10, residual networks
    python wgan_gp/train.py --resume                         goes on where the last run stopped

What this paper changes: WGAN's critic has to be 1-Lipschitz. Instead of clipping its weights, a
penalty holds the norm of its gradient at 1, on points between the data and the samples.
"""
import argparse
import io
import math
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from model import Critic, Generator
from torch import nn
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_images  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "wgan_gp"
PAPER = dict(          # --paper: Table 3's unsupervised CIFAR-10
    data="cifar10",
    size=32,
    arch="resnet",     # [App. F]
    width=128,         # [App. F]
    batch_size=64,     # [App. F]
    lr=2e-4,           # [App. F]
    lr_decay=True,     # [App. F]
    steps=100_000,     # [App. F]
)
SCALE = ", ".join(f"{name} {value}" for name, value in PAPER.items())


def number(kind: type, low: float, high: float = math.inf):
    """An argparse type: an int or float in [low, high)."""
    def parse(text: str):
        if not low <= kind(text) < high:
            raise argparse.ArgumentTypeError(f"{text} is not in [{low}, {high})")
        return kind(text)
    parse.__name__ = kind.__name__  # for argparse's own message
    return parse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags given now > the checkpoint's (--resume) > PAPER (--paper) > the defaults below."""
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=lambda prog:
        argparse.ArgumentDefaultsHelpFormatter(prog, max_help_position=32, width=100))
    p.error = fail  # one line, without the usage
    add = p.add_argument
    add("--data", default="digits", help="digits, faces, mnist, cifar10, lsun/..., or a folder")
    add("--data-root", default=str(ROOT / "data"), help="where downloaded sets are kept")
    add("--out", default=f"runs/{NAME}", help="the folder of this run")
    add("--size", type=int, default=28, choices=(16, 28, 32, 64),
        help="height and width; paper: 28 for MNIST, 32 for CIFAR-10")
    add("--arch", default="dcgan", choices=("dcgan", "resnet"),
        help="the authors' small networks, or those for CIFAR-10 [App. F]")
    add("--width", type=number(int, 1), default=32, help="channels at the image (dcgan; 64: "
        "authors' code) or in all layers (resnet; 128 [App. F])")
    add("--z-dim", type=number(int, 1), default=128, help="length of z [authors' code]")
    add("--batch-size", type=number(int, 1), default=32, help="m [Alg. 1]; 50 for MNIST [authors' "
        "code], 64 for CIFAR-10 [App. F]")
    add("--n-critic", type=number(int, 1), default=5, help="critic updates a step [Alg. 1]")
    add("--lambda-gp", type=number(float, 0), default=10.0, help="weight of the penalty [Alg. 1]")
    add("--lr", type=number(float, 0), default=1e-4, help="alpha, Adam's learning rate [Alg. 1]")
    add("--lr-decay", action="store_true", help="lower it linearly to 0 at --steps [App. F]")
    add("--beta1", type=number(float, 0, 1), default=0.0, help="Adam's beta1 [Alg. 1]")
    add("--beta2", type=number(float, 0, 1), default=0.9, help="Adam's beta2 [Alg. 1]")
    add("--steps", type=number(int, 1), default=2000, help="updates of G; an epoch is images / "
        "(batch size * n-critic) of them")
    add("--log-every", type=number(int, 1), default=25, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=25, help="steps between sample grids")
    add("--save-every", type=number(int, 1), default=250, help="steps between checkpoints")
    add("--workers", type=number(int, 0), default=4, help="readers of a set too large to keep")
    add("--seed", type=number(int, 0, 2**32), default=0, help="of weights, noise, the data's order")
    add("--device", default=str(torch.accelerator.current_accelerator())
        if torch.accelerator.is_available() else "cpu", help="cuda, mps or cpu; the best there is")
    add("--skip-bad", action="store_true", help="leave unreadable images out, do not stop")
    add("--paper", action="store_true", help=f"the paper's scale: {SCALE}")
    add("--resume", action="store_true", help="go on from OUT/ckpt.pt; flags given now override")
    args = p.parse_args(argv)
    ckpt = Path(args.out) / "ckpt.pt"
    if args.paper:
        p.set_defaults(**PAPER)
    if args.resume:
        p.set_defaults(**load_checkpoint(ckpt)["args"])
    elif ckpt.exists():
        fail(f"{ckpt.resolve()} exists: --resume goes on with that run, --out DIR starts another")
    return p.parse_args(argv)


def pick_device(name: str) -> torch.device:
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as e:
        fail(f"--device {name}: {str(e).splitlines()[0]}")


def load_checkpoint(path: Path) -> dict:
    """Tensors and plain types only: nothing that a file holds is executed."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        paper = ckpt["paper"]
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: start the run without --resume")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of ours ({type(e).__name__})")
    if paper != NAME:
        fail(f"{path.resolve()} is a checkpoint of {paper}, not of {NAME}")
    return ckpt


def save_checkpoint(path: Path, ckpt: dict) -> None:
    """Written beside, flushed, renamed: a kill or a full disk leaves the last good file."""
    buffer, tmp = io.BytesIO(), path.with_suffix(".tmp")
    torch.save(ckpt, buffer)  # in memory first: a full disk is then a plain OSError
    try:
        with open(tmp, "wb") as f:
            f.write(buffer.getbuffer())
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def show(line: str) -> None:
    """A status line: rewritten in place on a terminal, one below the other in a file."""
    tty = sys.stdout.isatty()
    print(f"\r\x1b[K{line}" if tty else line, end="" if tty else "\n", flush=True)


def check_finite(step: int, ckpt: Path, **terms: torch.Tensor) -> None:
    """Ends the run before a NaN is saved."""
    for name, value in terms.items():
        if not value.isfinite().all():
            fail(f"{name} is not finite at step {step}; last good checkpoint: {ckpt.resolve()}")


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal. [authors' code]"""
    return torch.randn(n, z_dim, device=device)


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


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor) -> torch.Tensor:
    """G(z). Departure: batch norm's running averages, so no picture depends on another."""
    x = G.eval()(z)
    G.train()
    return x


def train(args: argparse.Namespace) -> None:
    if args.data in ("gaussians8", "gaussians25", "swissroll"):
        fail(f"--data {args.data} is no set of images: python wgan_gp/toy.py --data {args.data}")
    out, device = Path(args.out), pick_device(args.device)
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    data = load_images(args.data, args.size, root=args.data_root, device=device,
                       workers=args.workers, skip_bad=args.skip_bad)

    torch.manual_seed(args.seed)
    z_fixed = sample_z(64, args.z_dim).to(device)  # one set of pictures through the run
    G = Generator(args.size, data.channels, args.z_dim, args.width, args.arch).to(device)
    D = Critic(args.size, data.channels, args.width, args.arch).to(device)
    betas = args.beta1, args.beta2
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=betas)
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=betas)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume")}
    settings["data"] = data.name  # of a folder, its absolute path
    parts = {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}  # all that training changes

    path, log = out / "ckpt.pt", out / "log.csv"
    first, log_bytes = 1, 0
    if args.resume:
        ckpt = load_checkpoint(path)
        first, log_bytes, z_fixed = ckpt["step"] + 1, ckpt["log_bytes"], ckpt["z_fixed"].to(device)
        try:
            for name, part in parts.items():
                part.load_state_dict(ckpt[name])
        except (RuntimeError, ValueError):
            fail(f"{path} does not fit: a run keeps its size, arch, width, z-dim and channels")
        for group in opt_g.param_groups + opt_d.param_groups:
            group.update(lr=args.lr, betas=betas)  # flags given now override
    batches = data.batches(args.batch_size, args.seed, start=(first - 1) * args.n_critic)

    def save(step: int, **losses: torch.Tensor) -> None:
        check_finite(step, path, **losses, G=parameters_to_vector(G.parameters()),
                     D=parameters_to_vector(D.parameters()))
        save_checkpoint(path, {
            "paper": NAME, "step": step, "log_bytes": log.stat().st_size, "z_fixed": z_fixed,
            "args": settings, "channels": data.channels,
            **{name: part.state_dict() for name, part in parts.items()}})

    (out / "samples").mkdir(parents=True, exist_ok=True)
    with open(log, "a" if args.resume else "w") as f:
        f.truncate(min(f.tell(), log_bytes))  # rows later than the checkpoint will come again
        if f.tell() == 0:
            f.write("step,loss_d,loss_g,estimate,penalty\n")
    save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, args.steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone
        if args.lr_decay:
            for group in opt_g.param_groups + opt_d.param_groups:
                group["lr"] = args.lr * (1 - (step - 1) / args.steps)

        # Update D: n_critic times, each on new data and new noise  [Alg. 1, lines 2-10]
        for _ in range(args.n_critic):
            x = next(batches)
            with torch.no_grad():
                x_fake = G(sample_z(args.batch_size, args.z_dim, device))
            real, fake = D(x), D(x_fake)
            loss_gp = args.lambda_gp * gradient_penalty(D, x, x_fake)
            loss_d = d_loss(real, fake) + loss_gp
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()

        # Update G: on new noise  [Alg. 1, lines 11-12]
        D.requires_grad_(False)
        x_fake = G(sample_z(args.batch_size, args.z_dim, device))
        loss_g = g_loss(D(x_fake))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        D.requires_grad_(True)

        # Report
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g)
            values = [v.item() for v in (loss_d, loss_g, real.mean() - fake.mean(), loss_gp)]
            with open(log, "a") as f:
                print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((args.steps - step) / speed))
            show("step {}/{}  loss_d {:.3f}  loss_g {:.3f}  estimate {:.3f}  penalty {:.3f}".format(
                step, args.steps, *values) + f"  {speed * len(x):.0f} images/s  ETA {eta}")
        if step % args.sample_every == 0 or step == args.steps:
            save_grid(out / f"samples/{step:06d}.png", sample(G, z_fixed))
            save_curves(out / "losses.png", log)
        if step % args.save_every == 0 or step == args.steps or stop:
            save(step, loss_d=loss_d, loss_g=loss_g)
        if stop:
            print(f"\nstopped after step {step}: --resume goes on")
            sys.exit(128 + stop[0])
    if frames := sorted((out / "samples").glob("[0-9]*.png"), key=lambda path: int(path.stem)):
        save_gif(out / "samples.gif", frames)
    print(f"\ndone: step {max(first - 1, args.steps)}, see {out}/samples.gif, {NAME}/sample.py")


if __name__ == "__main__":
    args = parse_args()
    try:
        train(args)
    except KeyboardInterrupt:  # before the first step
        sys.exit(130)
    except torch.OutOfMemoryError:
        fail(f"out of memory: lower --batch-size ({args.batch_size}) or --size ({args.size})")
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out; a checkpoint in {args.out} is still whole")
