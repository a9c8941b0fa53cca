"""GAN: Generative Adversarial Nets. Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair,
Courville, Bengio. NIPS 2014, arXiv 1406.2661.

    python gan/train.py                                      drawn digits, minutes on two cores
    python gan/train.py --data path/to/images --size 32      your own pictures
    python gan/train.py --paper                              the paper's MNIST
    python gan/train.py --resume                             goes on where the last run stopped

What this paper changes: G learns from no likelihood at all, but from D, a second network trained
at the same time to tell its samples from the data.
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
import torch.nn.functional as F
from model import Discriminator, Generator
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import NAMES, fail, load_images  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "gan"
PAPER = dict(          # --paper
    data="mnist",      # [Sec. 5]
    size=28,
    steps=125_000,     # 250 epochs: the end of the momentum schedule. No stopping rule is given
    lr=0.1,            # [authors' code]
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
    add("--size", type=int, default=28, choices=(16, 28, 32, 48, 64),
        help="height and width; paper: 28 [Sec. 5]")
    add("--width", type=number(int, 1), default=1200, help="units of G's layers [authors' code]")
    add("--units", type=number(int, 1), default=240, help="D's maxout units [authors' code]")
    add("--pieces", type=number(int, 1), default=5, help="pieces of a maxout unit [authors' code]")
    add("--z-dim", type=number(int, 1), default=100, help="length of z [authors' code]")
    add("--batch-size", type=number(int, 1), default=100, help="m [Alg. 1; 100: authors' code]")
    add("--k", type=number(int, 1), default=1, help="updates of D per update of G [Alg. 1]")
    add("--saturating", action="store_true", help="G descends log(1 - D(G(z))) [Alg. 1], which the "
        "paper itself gives up for -log D(G(z)) [Sec. 3]")
    add("--lr", type=number(float, 0), default=0.2, help="SGD's initial rate. Departure: 0.2, for "
        "at the authors' 0.1 some seeds never leave the start: G saturates, and D wins")
    add("--steps", type=number(int, 1), default=6000, help="updates of G; 500 are MNIST's epoch")
    add("--log-every", type=number(int, 1), default=100, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=250, help="steps between sample grids")
    add("--save-every", type=number(int, 1), default=1000, help="steps between checkpoints")
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
    """z (n, z_dim), uniform in (-sqrt 3, sqrt 3): unit variance. [authors' code]"""
    return (torch.rand(n, z_dim, device=device) * 2 - 1) * 3 ** 0.5


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], from logits (n,). Eq. 1, negated for descent."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()  # softplus(-a) = -log sigmoid(a)


def g_loss(fake: torch.Tensor, saturating: bool = False) -> torch.Tensor:
    """-E[log D(G(z))] [Sec. 3], a Departure from Alg. 1, or saturating: E[log(1 - D(G(z)))]."""
    return -F.softplus(fake).mean() if saturating else F.softplus(-fake).mean()


def learning_rate(lr: float, updates: int) -> float:
    """lr / 1.000004^updates, not below 1e-6. [authors' code]"""
    return max(lr / 1.000004 ** updates, 1e-6)


def momentum(epoch: float) -> float:
    """0.5, and from epoch 1 to 250 linearly to 0.7. [authors' code]"""
    return 0.5 + 0.2 * min(max((epoch - 1) / 249, 0.0), 1.0)


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor) -> torch.Tensor:
    return G(z)


def train(args: argparse.Namespace) -> None:
    out, device = Path(args.out), pick_device(args.device)
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    data = load_images(args.data, args.size, root=args.data_root, device=device,
                       workers=args.workers, skip_bad=args.skip_bad)
    if args.data in NAMES:  # MNIST's last 10,000 choose Parzen's sigma; a folder is in class order
        data = data.subset(0, len(data) - len(data) // 6)

    torch.manual_seed(args.seed)
    z_fixed = sample_z(64, args.z_dim).to(device)  # one set of pictures through the run
    G = Generator(args.size, data.channels, args.z_dim, args.width).to(device)
    D = Discriminator(args.size, data.channels, args.units, args.pieces).to(device)
    G.init_output_bias(data[:10_000].mean(0))
    opt_g = torch.optim.SGD(G.parameters(), lr=args.lr, momentum=0.5)
    opt_d = torch.optim.SGD(D.parameters(), lr=args.lr, momentum=0.5)
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
            fail(f"{path} does not fit: a run keeps its size, widths, z-dim and image channels")
    batches = data.batches(args.batch_size, args.seed, start=(first - 1) * args.k)

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
            f.write("step,loss_d,loss_g,D(x),D(G(z))\n")
    save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, args.steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone
        lr = learning_rate(args.lr, step - 1)
        m = momentum((step - 1) * args.k * args.batch_size / len(data))
        opt_g.param_groups[0].update(lr=lr, momentum=m)
        opt_d.param_groups[0].update(lr=lr / 2, momentum=m)  # Departure: their code halves loss_d

        # Update D: k times, each on new data and new noise  [Alg. 1]
        for _ in range(args.k):
            x = next(batches)
            x_fake = G(sample_z(args.batch_size, args.z_dim, device)).detach()
            real, fake = D(x), D(x_fake)
            loss_d = d_loss(real, fake)
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()

        # Update G: on new noise  [Alg. 1]
        D.requires_grad_(False)
        x_fake = G(sample_z(args.batch_size, args.z_dim, device))
        loss_g = g_loss(D(x_fake), args.saturating)
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        D.requires_grad_(True)

        # Report
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g)
            values = [v.mean().item() for v in (loss_d, loss_g, real.sigmoid(), fake.sigmoid())]
            with open(log, "a") as f:
                print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((args.steps - step) / speed))
            show("step {}/{}  loss_d {:.3f}  loss_g {:.3f}  D(x) {:.2f}  D(G(z)) {:.2f}".format(
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
