"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks. Karras,
Laine, Aila. CVPR 2019, arXiv 1812.04948.

    python stylegan/train.py                                      drawn faces, minutes on two cores
    python stylegan/train.py --data path/to/images --size 64      your own pictures
    python stylegan/train.py --paper --data path/to/ffhq          the paper's own scale, FFHQ
    torchrun --nproc_per_node=8 stylegan/train.py --paper --data path/to/ffhq     on eight GPUs
    python stylegan/train.py --resume                             goes on where the last run stopped

What this paper changes: G. Its input z becomes w, the style of every layer; what the layers work on
starts as a constant, and detail comes from noise (model.py). D and the growing are ProGAN's.
"""
import argparse
import copy
import io
import math
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from model import SIZES, Discriminator, Generator, n_layers, sample_noise, up
from torch import nn
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_images  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "stylegan"
PAPER = dict(          # --paper: config F on FFHQ, on eight GPUs
    size=1024,         # [Sec. 2]
    fmap_base=8192,    # [authors' code]
    fmap_max=512,      # [Fig. 1]
    z_dim=512,         # [Fig. 1]
    w_dim=512,         # [Fig. 1]
    mapping_layers=8,  # [Fig. 1]
    mirror=True,       # [App. C]
    noise_lr=1.0,      # [authors' code]
    batch_size=32,     # [authors' code]
    gamma=10.0,        # [App. C]
    lr=1e-3,           # [App. C]
    ema_kimg=10.0,     # [authors' code]
    kimg=25_000.0,     # [App. C]
    phase_kimg=600.0,  # [authors' code]
)
SCALE = ", ".join(f"{name} {value}" for name, value in PAPER.items())
LR_FACTOR = {128: 1.5, 256: 2, 512: 3, 1024: 3}  # of --lr; below 128 it is 1 [authors' code]
BUCKET = 2**23  # numbers in a message between processes [ours]


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
    add("--data", default="faces", help="faces, digits, mnist, cifar10, lsun/..., or a folder")
    add("--data-root", default=str(ROOT / "data"), help="where downloaded sets are kept")
    add("--out", default=f"runs/{NAME}", help="the folder of this run")
    add("--size", type=int, default=32, choices=SIZES, help="at the end; paper: 1024 [Sec. 2]")
    add("--config", default="F", choices=tuple("BCDEF"), help="a row of the ablation [Table 1]")
    add("--fmap-base", type=number(int, 1), default=512,
        help="a layer has 2 fmap-base / its size channels; paper: 8192 [authors' code]")
    add("--fmap-max", type=number(int, 1), default=64, help="but at most; paper: 512 [Fig. 1]")
    add("--z-dim", type=number(int, 1), default=128, help="length of z; paper: 512 [Fig. 1]")
    add("--w-dim", type=number(int, 1), default=128, help="length of w; paper: 512 [Fig. 1]")
    add("--mapping-layers", type=number(int, 0), default=2, help="from z to w. Departure: 2, for "
        "runs too short to train the mapping, of which eight would make all w alike; paper: 8 "
        "[Fig. 1, Table 4]")
    add("--mixing", type=number(float, 0, 1.001), default=0.9,
        help="how often a batch takes its styles from two z [Table 2]")
    add("--noise-lr", type=number(float, 0), default=0.1, help="factor of the learning rate of B, "
        "the strength of the noise. Departure: 0.1, or at first noise draws what styles have not "
        "learnt yet; 1 [authors' code]")
    add("--mirror", action="store_true", help="flip half of the images [App. C]")
    add("--batch-size", type=number(int, 1), default=8,
        help="at --size, and at each half of it below 64 twice as many; 32 [authors' code, 8 GPUs]")
    add("--accumulate", type=number(int, 1), default=1,
        help="parts in which a batch is computed, for less memory; the result is the same [ours]")
    add("--loss", default="logistic", choices=("logistic", "wgan-gp"),
        help="with R1; wgan-gp: for CelebA-HQ [Sec. 2.1]")
    add("--gamma", type=number(float, 0), default=1.0,
        help="R1's weight. Departure: 1, for pictures of few pixels; paper: 10 [App. C]")
    add("--lambda-gp", type=number(float, 0), default=10.0, help="wgan-gp's penalty [ProGAN]")
    add("--lr", type=number(float, 0), default=2e-3,
        help="Adam's learning rate up to 64x64, then up to three times that. Departure: 0.002, for "
        "some thousand updates; paper: 0.001 [App. C]")
    add("--ema-kimg", type=number(float, 0.001), default=1.0,
        help="thousands of images in which the mean of G forgets half. Departure: 1, for runs of "
        "some ten; paper: 10 [authors' code]")
    add("--kimg", type=number(float, 0.001), default=80.0,
        help="thousands of images shown to D; paper: 25,000 [App. C]")
    add("--phase-kimg", type=number(float, 0), default=12.0, help="thousands at one resolution, "
        "then of fading to the next; 0: all at --size; paper: 600 [authors' code]")
    add("--steps", type=number(int, 1), help="updates of G; by default what --kimg takes")
    add("--log-every", type=number(int, 1), default=25, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=100, help="steps between sample grids")
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


def join(device: str) -> tuple[int, int]:
    """(rank, world): which process this is of how many. torchrun tells by the environment."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if dist.get_rank() > 0:
        sys.stdout = open(os.devnull, "w")  # only the first process speaks, and writes the files
    return dist.get_rank(), dist.get_world_size()


def average(tensors: list[torch.Tensor], world: int) -> None:
    """Each becomes its mean over all processes. They travel together, in few large messages."""
    if world > 1:
        flat = torch.cat([t.flatten() for t in tensors])
        for bucket in flat.split(BUCKET):
            dist.all_reduce(bucket)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t) / world)


def any_signal(stop: list[int], device: torch.device, world: int) -> int:
    """The one that some process has received, or 0: all of them stop after the same step."""
    number = stop[0] if stop else 0
    if world > 1:
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        number = int(largest)
    return number


def schedule(shown: int, args: argparse.Namespace) -> tuple[int, float, int]:
    """(size, alpha, images a step) after D has been shown so many images. [authors' code]

    8x8 for a phase; for a phase 16x16 fades in, alpha from 0 to 1; 16x16 for a phase; and so on.
    The batch is 256, 128, 64 at 8x8, 16x16, 32x32, then 32, if the last one is to be 32.
    Departure: looked up for every batch, theirs for every fourth.
    """
    phase = round(1000 * args.phase_kimg)
    size, alpha = 8 if phase else args.size, 1.0
    while size < args.size and shown > phase:
        size, alpha = 2 * size, min((shown - phase) / phase, 1.0)
        shown -= 2 * phase
    return size, alpha, args.batch_size * max(1, min(64, args.size) // size)


def count_steps(shown: int, args: argparse.Namespace) -> int:
    """From so many images to those of --kimg."""
    steps = 0
    while shown < 1000 * args.kimg:
        shown += schedule(shown, args)[2]
        steps += 1
    return steps


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal. [authors' code]"""
    return torch.randn(n, z_dim, device=device)


def draw(n: int, size: int, args: argparse.Namespace, device: torch.device, mine: slice):
    """For n images z, z2, the layer from which on z2 rules [Sec. 3.1], and noise. Every process
    draws all of it, as one process alone would, and keeps its own rows."""
    z, z2 = sample_z(n, args.z_dim, device)[mine], sample_z(n, args.z_dim, device)[mine]
    noise = [maps[mine] for maps in sample_noise(n, size, device)]
    crossover = n_layers(size)
    if torch.rand(()) < args.mixing and args.config == "F":
        crossover = int(torch.randint(1, n_layers(size), ()))
    return z, z2, crossover, noise


def shrink(x: torch.Tensor, size: int, alpha: float) -> torch.Tensor:
    """Real images as G draws them: of this size, less sharp while it fades in. [authors' code]"""
    x = F.avg_pool2d(x, x.shape[-1] // size)
    return torch.lerp(up(F.avg_pool2d(x, 2)), x, alpha) if alpha < 1 else x


def d_loss(real: torch.Tensor, fake: torch.Tensor, loss: str = "logistic") -> torch.Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], from logits (n,); or wgan-gp: E[D(G(z))] - E[D(x)] +
    0.001 E[D(x)^2], where the last term keeps D(x) from drifting away. [ProGAN, App. A.1]"""
    if loss == "wgan-gp":
        return fake.mean() - real.mean() + 0.001 * real.square().mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()  # softplus(-a) = -log sigmoid(a)


def g_loss(fake: torch.Tensor, loss: str = "logistic") -> torch.Tensor:
    """-E[log D(G(z))], from logits (n,): the non-saturating loss; or wgan-gp: -E[D(G(z))]."""
    return -fake.mean() if loss == "wgan-gp" else F.softplus(-fake).mean()


def r1(real: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """E[|grad D(x)|^2], real = D(x). [Mescheder et al. 2018; App. C]"""
    grad, = torch.autograd.grad(real.sum(), x, create_graph=True)
    return grad.flatten(1).square().sum(1).mean()


def gradient_penalty(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor, eps: torch.Tensor,
                     alpha: float) -> torch.Tensor:
    """E[(|grad D(x_hat)|_2 - 1)^2], x_hat = eps x_fake + (1 - eps) x. [ProGAN; WGAN-GP, Eq. 3]"""
    x_hat = torch.lerp(x, x_fake, eps).detach().requires_grad_()
    grad, = torch.autograd.grad(D(x_hat, alpha).sum(), x_hat, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


@torch.no_grad()
def track_w(G: Generator, z: torch.Tensor, world: int) -> None:
    """w_avg moves 0.005 of the way to the mean w of this batch. [authors' code]"""
    mean = G.mapping(z).mean(0)
    average([mean], world)
    G.w_avg.lerp_(mean, 0.005)


@torch.no_grad()
def update_ema(G_ema: Generator, G: Generator, beta: float) -> None:
    """Weights: beta theirs + (1 - beta) G's; w_avg is G's. [authors' code, there with D's update:
    a Departure, so that a checkpoint's mean has its last weights]"""
    for p_ema, p in zip(G_ema.parameters(), G.parameters(), strict=True):
        p_ema.lerp_(p, 1 - beta)
    G_ema.w_avg.copy_(G.w_avg)


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor, size: int, alpha: float) -> torch.Tensor:
    """G(z), truncated with psi = 0.7 [Fig. 2], as large as it will be at the end of the run."""
    x = torch.cat([G(part, size=size, alpha=alpha, psi=0.7) for part in z.split(8)])
    return F.interpolate(x, scale_factor=G.size // size)


def train(args: argparse.Namespace) -> None:
    rank, world = join(args.device)
    out, device = Path(args.out), pick_device(args.device)
    if args.batch_size % (4 * args.accumulate * world):
        fail(f"--batch-size {args.batch_size}: minibatch stddev has groups of 4 in every process, "
             f"every part (--accumulate): a multiple of {4 * args.accumulate * world}")
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    data = load_images(args.data, args.size, root=args.data_root, device=device,
                       workers=args.workers, skip_bad=args.skip_bad)

    torch.manual_seed(args.seed)
    z_fixed = sample_z(max(8, min(64, 4096 // args.size)), args.z_dim).to(device)  # [ours]
    maps = args.fmap_base, args.fmap_max
    G = Generator(args.size, data.channels, args.z_dim, args.w_dim, *maps, args.mapping_layers,
                  args.config, args.noise_lr).to(device)
    D = Discriminator(args.size, data.channels, *maps).to(device)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=(0.0, 0.99))  # [App. C]
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=(0.0, 0.99))
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume")}
    settings["data"] = data.name  # of a folder, its absolute path
    parts = {"G": G, "D": D, "G_ema": G_ema, "opt_g": opt_g, "opt_d": opt_d}  # all that changes

    path, log = out / "ckpt.pt", out / "log.csv"
    first, log_bytes, shown = 1, 0, 0  # shown: images, to D
    size, alpha, _ = schedule(shown, args)
    if args.resume:
        ckpt = load_checkpoint(path)
        first, log_bytes, z_fixed = ckpt["step"] + 1, ckpt["log_bytes"], ckpt["z_fixed"].to(device)
        shown, size, alpha = ckpt["shown"], ckpt["size"], ckpt["alpha"]
        try:
            if ckpt["args"]["noise_lr"] != args.noise_lr:  # the noise would change its strength
                raise ValueError
            for name, part in parts.items():
                part.load_state_dict(ckpt[name])
        except (RuntimeError, ValueError):
            fail(f"{path} does not fit: a run keeps its size, config, widths, layers, channels and "
                 "noise-lr")
    steps = args.steps or first - 1 + count_steps(shown, args)
    # The stream is in units of the last size's batch: a function of `shown`, whatever the batch
    batches = data.batches(args.batch_size, args.seed, shown // args.batch_size, rank, world)
    mine = slice(rank, None, world)  # this process's rows of a batch, and their parts
    rows = [slice(i, None, args.accumulate) for i in range(args.accumulate)]

    def save(step: int, **losses: torch.Tensor) -> None:
        check_finite(step, path, **losses, G=parameters_to_vector(G.parameters()),
                     D=parameters_to_vector(D.parameters()))
        save_checkpoint(path, {
            "paper": NAME, "step": step, "log_bytes": log.stat().st_size, "z_fixed": z_fixed,
            "args": settings, "channels": data.channels,
            "shown": shown, "size": size, "alpha": alpha,
            **{name: part.state_dict() for name, part in parts.items()}})

    if rank == 0:
        (out / "samples").mkdir(parents=True, exist_ok=True)
        with open(log, "a" if args.resume else "w") as f:
            f.truncate(min(f.tell(), log_bytes))  # rows later than the checkpoint will come again
            if f.tell() == 0:
                f.write("step,loss_d,loss_g,D(x),D(G(z)),penalty\n")
        save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone
        before = size, alpha < 1
        size, alpha, n = schedule(shown, args)
        if (size, alpha < 1) != before:  # a new phase: Adam starts anew [authors' code]
            opt_g.state.clear()
            opt_d.state.clear()
        for group in opt_g.param_groups + opt_d.param_groups:
            group["lr"] = args.lr * min(LR_FACTOR.get(size, 1), 2 if args.loss == "wgan-gp" else 3)
        x = torch.cat([next(batches) for _ in range(n // args.batch_size)])
        flip, eps = torch.rand(2, n, 1, 1, 1, device=device)[:, mine]
        x = shrink(torch.where(flip < 0.5, x.flip(3), x) if args.mirror else x, size, alpha)

        # Update D: on new noise, in --accumulate parts
        z, z2, crossover, noise = draw(n, size, args, device, mine)
        track_w(G, z, world)
        opt_d.zero_grad()
        for i in rows:
            x_real = x[i].requires_grad_()
            with torch.no_grad():
                x_fake = G(z[i], z2[i], crossover, [m[i] for m in noise], size, alpha)
            real, fake = D(x_real, alpha), D(x_fake, alpha)
            if args.loss == "wgan-gp":
                penalty = args.lambda_gp * gradient_penalty(D, x_real, x_fake, eps[i], alpha)
            else:
                penalty = args.gamma / 2 * r1(real, x_real)
            loss_d = d_loss(real, fake, args.loss) + penalty
            (loss_d / len(rows)).backward()
        average([p.grad for p in D.parameters() if p.grad is not None], world)
        opt_d.step()

        # Update G: likewise
        D.requires_grad_(False)
        z, z2, crossover, noise = draw(n, size, args, device, mine)
        track_w(G, z, world)
        opt_g.zero_grad()
        for i in rows:
            x_fake = G(z[i], z2[i], crossover, [m[i] for m in noise], size, alpha)
            loss_g = g_loss(D(x_fake, alpha), args.loss)
            (loss_g / len(rows)).backward()
        average([p.grad for p in G.parameters() if p.grad is not None], world)
        opt_g.step()
        D.requires_grad_(True)
        update_ema(G_ema, G, 0.5 ** (n / (1000 * args.ema_kimg)))
        shown += n

        # Report: what one process saw in one part
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g)
            values = [v.item() for v in (loss_d, loss_g, real.mean(), fake.mean(), penalty)]
            if rank == 0:
                with open(log, "a") as f:
                    print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((steps - step) / speed))
            phase = f"fading in {alpha:.2f}" if alpha < 1 else "stable"
            show("step {}/{}  {:.1f} kimg  {} px {}  loss_d {:.3f}  loss_g {:.3f}  "
                 "D(x) {:.2f}  D(G(z)) {:.2f}  penalty {:.3f}".format(
                     step, steps, shown / 1000, size, phase, *values)
                 + f"  {speed * n:.0f} images/s  ETA {eta}")
        ending = any_signal(stop, device, world)
        if rank == 0 and (step % args.sample_every == 0 or step == steps):
            save_grid(out / f"samples/{step:06d}.png", sample(G_ema, z_fixed, size, alpha))
            save_curves(out / "losses.png", log)
        if rank == 0 and (step % args.save_every == 0 or step == steps or ending):
            save(step, loss_d=loss_d, loss_g=loss_g)
        if ending:
            print(f"\nstopped after step {step}: --resume goes on")
            sys.exit(128 + ending)
    if rank == 0 and (frames := sorted((out / "samples").glob("[0-9]*.png"),
                                       key=lambda path: int(path.stem))):
        save_gif(out / "samples.gif", frames)
    print(f"\ndone: step {max(first - 1, steps)}, see {out}/samples.gif, {NAME}/sample.py")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    args = parse_args()
    try:
        train(args)
    except KeyboardInterrupt:  # before the first step
        sys.exit(130)
    except torch.OutOfMemoryError:
        fail(f"out of memory: raise --accumulate ({args.accumulate}) or lower --size ({args.size})")
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out; a checkpoint in {args.out} is still whole")
