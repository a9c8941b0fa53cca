"""WGAN: Wasserstein GAN. Arjovsky, Chintala, Bottou. ICML 2017, arXiv 1701.07875.

    python wgan/train.py                                     drawn digits, minutes on two cores
    python wgan/train.py --data path/to/images --size 64     your own pictures
    python wgan/train.py --paper --data lsun/bedroom         the paper's own scale
    python wgan/train.py --resume                            goes on where the last run stopped

What this paper changes: D becomes a critic, trained nearly to its optimum between two updates of
G; it estimates the Wasserstein distance of data and samples, which falls as the samples improve.
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
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_images  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "wgan"
PAPER = dict(          # --paper
    size=64,           # [Sec. 4]
    width=64,          # [authors' code]
    steps=236_956,     # [authors' code]: 25 epochs of LSUN's 3,033,042 bedrooms, 5 batches a step
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
    add("--size", type=int, default=32, choices=(16, 32, 64, 128, 256),
        help="height and width; paper: 64 [Sec. 4]")
    add("--width", type=number(int, 1), default=32, help="channels at the image; paper: 64 "
        "[authors' code]; --arch mlp has 512 units [Fig. 7]")
    add("--arch", default="dcgan", choices=("dcgan", "nobn", "mlp"), help="G of Fig. 5, 6 or 7")
    add("--z-dim", type=number(int, 1), default=100, help="length of z [authors' code]")
    add("--batch-size", type=number(int, 1), default=64, help="m [Alg. 1]")
    add("--n-critic", type=number(int, 1), default=5, help="updates of D per update of G [Alg. 1]")
    add("--authors-schedule", action="store_true", help="100 updates of D in steps 1 to 25, and in "
        "every 500th from 1 on, which the paper does not mention [authors' code]")
    add("--clip", type=number(float, 0), default=0.01, help="c: D stays in [-c, c] [Alg. 1]")
    add("--lr", type=number(float, 0), default=5e-5, help="alpha, RMSProp's learning rate [Alg. 1]")
    add("--steps", type=number(int, 1), default=3000, help="updates of G; an epoch has images / "
        "(batch size * n-critic), --paper 25 epochs [authors' code]")
    add("--log-every", type=number(int, 1), default=5, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=50, help="steps between sample grids")
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
    """E[f(G(z))] - E[f(x)], from scores (n,): minus the estimate. Eq. 3, negated for descent."""
    return fake.mean() - real.mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[f(G(z))], from scores (n,): the part of the estimate that G can change. [Alg. 1]"""
    return -fake.mean()


def critic_updates(step: int, n_critic: int, authors_schedule: bool) -> int:
    """Updates of D in `step`, counted from 1: n_critic, or 100 now and then. [authors' code]"""
    return 100 if authors_schedule and (step <= 25 or step % 500 == 1) else n_critic


@torch.no_grad()
def clip(D: Critic, c: float) -> None:
    """w <- clip(w, -c, c), for every parameter: the cube on which f is K-Lipschitz. [Alg. 1]"""
    for w in D.parameters():
        w.clamp_(-c, c)


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor) -> torch.Tensor:
    """G(z). Departure: batch norm's running averages, so no picture depends on another."""
    x = G.eval()(z)
    G.train()
    return x


def train(args: argparse.Namespace) -> None:
    out, device = Path(args.out), pick_device(args.device)
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    data = load_images(args.data, args.size, root=args.data_root, device=device,
                       workers=args.workers, skip_bad=args.skip_bad)

    torch.manual_seed(args.seed)
    z_fixed = sample_z(64, args.z_dim).to(device)  # one set of pictures through the run
    G = Generator(args.size, data.channels, args.z_dim, args.width, args.arch).to(device)
    D = Critic(args.size, data.channels, args.width).to(device)
    opt_g = torch.optim.RMSprop(G.parameters(), lr=args.lr)  # no momentum [Sec. 4]
    opt_d = torch.optim.RMSprop(D.parameters(), lr=args.lr)
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
            fail(f"{path} does not fit: a run keeps its arch, size, width, z-dim and channels")
        for group in opt_g.param_groups + opt_d.param_groups:
            group.update(lr=args.lr)  # flags given now override
    schedule = args.n_critic, args.authors_schedule
    seen = sum(critic_updates(step, *schedule) for step in range(1, first))
    batches = data.batches(args.batch_size, args.seed, start=seen)

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
            f.write("step,loss_g,estimate\n")
    save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, args.steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone

        # Update D: n_critic times, each on new data and new noise  [Alg. 1, lines 2-8]
        for _ in range(critic_updates(step, *schedule)):
            x = next(batches)
            x_fake = G(sample_z(args.batch_size, args.z_dim, device)).detach()
            loss_d = d_loss(D(x), D(x_fake))  # two passes: batch norm must not mix real and fake
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
            clip(D, args.clip)

        # Update G: on new noise  [Alg. 1, lines 9-11]
        D.requires_grad_(False)
        loss_g = g_loss(D(G(sample_z(args.batch_size, args.z_dim, device))))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        D.requires_grad_(True)

        # Report
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g)
            values = [v.item() for v in (loss_g, -loss_d)]
            with open(log, "a") as f:
                print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((args.steps - step) / speed))
            show("step {}/{}  loss_g {:.4f}  estimate {:.4f}".format(
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
