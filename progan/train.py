"""ProGAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation. Karras, Aila,
Laine, Lehtinen. ICLR 2018, arXiv 1710.10196.

    python progan/train.py                                      drawn faces, minutes on two cores
    python progan/train.py --data path/to/images --size 64      your own pictures
    python progan/train.py --paper --data path/to/celeba-hq     the paper's own scale
    torchrun --nproc_per_node=8 progan/train.py --paper --table authors --batch-size 32
        --stddev-group 4 --data path/to/celeba-hq               the authors' batches for eight GPUs
    python progan/train.py --resume                             goes on where the last run stopped

What this paper changes: training begins at 4x4, and layers for twice the size fade in, again and
again, in G, D and the real images. The loss is WGAN-GP's; three layers are new (model.py).
The paper ends at the ruled line; below it is the run: flags, files, messages.
"""
import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import SIZES, Discriminator, Generator, n_maps, up
from torch import nn

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import load_images

NAME = "progan"
OF_16 = {256: 14, 512: 6, 1024: 3}  # images a step; below 256 it is 16 [App. A.1]
LR_FACTOR = {128: 1.5, 256: 2, 512: 3, 1024: 3}  # of --lr; below 128 it is 1 [authors' 2nd code]


def settings(add) -> None:
    #    flag              here    --paper  what it is [where the paper has it]
    add("--data",       "faces", "celeba-hq", "a set by its name, or a folder [Sec. 6.3]")
    add("--size",            32,     1024, "height and width at the end [Sec. 2]", SIZES)
    add("--config",         "g",      "g", "a row of the ablation; h is g, for longer [Table 1]",
        tuple("defg"))
    add("--fmap-base",      256,     8192, "a layer has 2 FMAP_BASE / its size channels "
        "[authors' code]")
    add("--fmap-max",        64,      512, "but at most [Table 2]")
    add("--z-dim",          128,      512, "length of z [Table 2]")
    add("--mirror",       False,     True, "flip half of the images [authors' code]")
    add("--batch-size",       8,       16, "images a step [App. A.1]")
    add("--table",      "paper",  "paper", "images and rate by size. paper: from 256 on 14, 6, 3 "
        "of 16 as many [App. A.1]; authors: BATCH at SIZE and from 64 on, each half below "
        "twice as many, from 128 on up to 3 times LR [authors' second code, eight GPUs]",
        ("paper", "authors"))
    add("--stddev-group",    16,       16, "samples that minibatch stddev compares, at most; 16: "
        "all [Sec. 3]; 4 [authors' second code]")
    add("--accumulate",       1,        1, "parts of a batch, one after the other: less memory, "
        "the same result [ours]")
    add("--lr",            1e-3,     1e-3, "Adam's learning rate [App. A.1]")
    add("--lambda-gp",     10.0,     10.0, "weight of the penalty [App. A.1]")
    add("--gamma",          1.0,      1.0, "norm of the gradient that it asks for; 750 for "
        "CIFAR-10 [Sec. 6.5]", low=1e-6)
    add("--drift",         1e-3,     1e-3, "weight of E[D(x)^2] [App. A.1]")
    add("--ema",           0.99,    0.999, "decay of the mean of G, a step. Departure: 0.99, for "
        "some thousand steps [App. A.1]", below=1)
    add("--kimg",          68.0,     19e3, "thousands of images shown to D [authors' code]",
        low=0.001, below=1e9)
    add("--phase-kimg",     6.0,    800.0, "thousands at one resolution, then of fading to the "
        "next; 0: all at SIZE [App. A.1]")
    add("--steps",            0,        0, "updates of G; 0: what --kimg takes", low=0)
    add("--log-every",       25,       25, "steps between rows of log.csv")
    add("--sample-every",   100,     5000, "steps between sample grids")
    add("--save-every",     250,     1000, "steps between checkpoints")


def images(size: int, args: argparse.Namespace) -> int:
    """A step, at this size: see --table."""
    if args.table == "authors":
        return args.batch_size * max(1, min(64, args.size) // size)
    return max(1, args.batch_size * OF_16.get(size, 16) // 16)


def schedule(shown: int, args: argparse.Namespace) -> tuple[int, float, int]:
    """(size, alpha, images a step) after D has been shown so many images. [App. A.1]

    4x4 for a phase; for a phase 8x8 fades in, alpha from 0 to 1; 8x8 for a phase; and so on.
    """
    phase = round(1000 * args.phase_kimg)
    size, alpha = 4 if phase else args.size, 1.0
    while size < args.size and shown > phase:
        size, alpha = 2 * size, min((shown - phase) / phase, 1.0)
        shown -= 2 * phase
    return size, alpha, images(size, args)


class Plan:
    """The rest of a run: its last step, and, for the ETA, plan[step], the work done by then: of a
    step its images times the numbers in a picture's feature maps. [ours]"""

    def __init__(self, step: int, shown: int, args: argparse.Namespace):
        self.steps, self.work = [step], [0.0]  # where the size changes
        while True:
            size, _, n = schedule(shown, args)
            k = args.steps - step if args.steps else math.ceil((1000 * args.kimg - shown) / n)
            if size < args.size:
                phases = 2 * (size // 4).bit_length() - 1
                k = min(k, (phases * round(1000 * args.phase_kimg) - shown) // n + 1)
            if k <= 0:
                break
            maps = [s * s * n_maps(s, args.fmap_base, args.fmap_max)
                    for s in (4, *SIZES) if s <= size]
            step, shown = step + k, shown + k * n
            self.steps.append(step)
            self.work.append(self.work[-1] + k * n * sum(maps))
        self.last = step

    def __getitem__(self, step: int) -> float:
        return float(np.interp(step, self.steps, self.work))


def check_groups(args: argparse.Namespace, world: int) -> int:
    """Every part of a batch, in every process, must hold whole groups of minibatch stddev. Returns
    the largest number of images that divides a step's at all sizes."""
    sizes = [s for s in (4, *SIZES) if s <= args.size]
    unit = math.gcd(*(images(s, args) for s in sizes))
    for s in sizes:
        n = images(s, args)
        group = min(args.stddev_group, n)
        if n % (group * args.accumulate * world) or unit % world:
            fail(f"--batch-size {args.batch_size}: {n} images a step at {s}x{s} do not make "
                 f"{args.accumulate * world} parts (--accumulate, processes) of whole groups of "
                 f"{group}: change --batch-size, --stddev-group or --table")
    return unit


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal. [authors' code]"""
    return torch.randn(n, z_dim, device=device)


def shrink(x: torch.Tensor, size: int, alpha: float) -> torch.Tensor:
    """Real images as G draws them: of this size, less sharp while it fades in. [Fig. 2]"""
    x = F.avg_pool2d(x, x.shape[-1] // size)
    return torch.lerp(up(F.avg_pool2d(x, 2)), x, alpha) if alpha < 1 else x


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[D(x_fake)] - E[D(x)], from scores (n,). WGAN-GP paper, Eq. 3, first term."""
    return fake.mean() - real.mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))], from scores (n,)."""
    return -fake.mean()


def gradient_penalty(D: nn.Module, x: torch.Tensor, x_fake: torch.Tensor, u: torch.Tensor,
                     alpha: float, gamma: float, final: int) -> torch.Tensor:
    """E[(|grad D(x_hat)|_2 - gamma)^2 / gamma^2], x_hat = (1 - u) x + u x_fake. [WGAN-GP paper,
    Eq. 3; gamma: Sec. 6.5] The gradient is by the pixels of the final size, to which the authors'
    code blows up all images: as D averages them, its norm is size / final that by x_hat's own."""
    x_hat = torch.lerp(x, x_fake, u).requires_grad_()
    grad, = torch.autograd.grad(D(x_hat, alpha).sum(), x_hat, create_graph=True)
    norm = grad.flatten(1).norm(dim=1) * (x.shape[-1] / final)
    return (norm / gamma - 1).square().mean()


def drift(real: torch.Tensor) -> torch.Tensor:
    """E[D(x)^2]: keeps the scores near 0, where nothing else does. [App. A.1]"""
    return real.square().mean()


@torch.no_grad()
def update_ema(G_ema: Generator, G: Generator, beta: float) -> None:
    """Weights: beta theirs + (1 - beta) G's. [App. A.1]"""
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - beta)


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor, size: int, alpha: float) -> torch.Tensor:
    """G(z), as large as it will be at the end of the run."""
    x = torch.cat([G(part, size, alpha) for part in z.split(8)])
    return F.interpolate(x, scale_factor=G.size // size)


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    unit = check_groups(args, run.world)
    data = load_images(args.data, args.size, **run.reading)
    torch.manual_seed(args.seed)
    z_fixed = sample_z(max(8, min(64, 4096 // args.size)), args.z_dim).to(run.device)  # [ours]
    maps = args.fmap_base, args.fmap_max, args.config
    G = Generator(args.size, data.channels, args.z_dim, *maps).to(run.device)
    D = Discriminator(args.size, data.channels, *maps, args.stddev_group).to(run.device)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=(0.0, 0.99))  # [App. A.1]
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=(0.0, 0.99))
    size, alpha, n = schedule(0, args)
    run.keep(data, values={"size": size, "alpha": alpha, "shown": 0},  # shown: images, to D
             facts={"config": args.config},  # else weights would change their scale
             G=G, D=D, G_ema=G_ema, opt_g=opt_g, opt_d=opt_d, z_fixed=z_fixed)

    # The stream is in units that divide every batch: a function of `shown`, whatever the batch
    shown = run.values["shown"]
    if schedule(shown, args)[:2] < (run.values["size"], run.values["alpha"]):
        fail(f"--phase-kimg {args.phase_kimg}: would shrink the networks of {run.path.resolve()}")
    batches = data.batches(unit, args.seed, shown // unit, run.rank, run.world)
    parts = [slice(run.rank + run.world * i, None, run.world * args.accumulate)
             for i in range(args.accumulate)]  # of a batch: this process's rows
    plan = Plan(run.step, shown, args)
    for _ in run.steps(plan.last, plan):
        before = run.values["size"], run.values["alpha"] < 1
        size, alpha, n = schedule(shown, args)
        if (size, alpha < 1) != before:  # a new phase: Adam starts anew [authors' code]
            opt_g.state.clear()
            opt_d.state.clear()
        for group in opt_g.param_groups + opt_d.param_groups:
            group["lr"] = args.lr * (LR_FACTOR.get(size, 1) if args.table == "authors" else 1)
        x = torch.cat([shrink(next(batches), size, alpha) for _ in range(n // unit)])
        flip = torch.rand(n, 1, 1, 1, device=run.device)[run.rank::run.world] < 0.5
        x = torch.where(flip, x.flip(3), x) if args.mirror else x

        # Update D: on new noise, in --accumulate parts
        z = sample_z(n, args.z_dim, run.device)
        u = torch.rand(n, 1, 1, 1, device=run.device)
        opt_d.zero_grad()
        for i, rows in enumerate(parts):
            x_real = x[i::args.accumulate]
            with torch.no_grad():
                x_fake = G(z[rows], size, alpha)
            real, fake = D(x_real, alpha), D(x_fake, alpha)
            penalty = args.lambda_gp * gradient_penalty(D, x_real, x_fake, u[rows], alpha,
                                                        args.gamma, args.size)
            loss_d = d_loss(real, fake) + penalty + args.drift * drift(real)
            (loss_d / args.accumulate).backward()
        run.average(p.grad for p in D.parameters())
        opt_d.step()

        # Update G: likewise
        D.requires_grad_(False)
        z = sample_z(n, args.z_dim, run.device)
        opt_g.zero_grad()
        for rows in parts:
            loss_g = g_loss(D(G(z[rows], size, alpha), alpha))
            (loss_g / args.accumulate).backward()
        run.average(p.grad for p in G.parameters())
        opt_g.step()
        D.requires_grad_(True)
        update_ema(G_ema, G, args.ema)

        shown, run.images = shown + n, n
        run.values = {"size": size, "alpha": alpha, "shown": shown}
        run.report({"loss_d": loss_d, "loss_g": loss_g, "estimate": -d_loss(real, fake),
                    "penalty": penalty},  # what one process saw in one part
                   lambda: sample(G_ema, z_fixed, run.values["size"], run.values["alpha"]))


# ----------------------------------------------------------------------------------------------
# The run: files, flags, messages, in one process or several. The same text in every folder that
# torchrun starts, dcgan's but for the processes: whoever edits it in stylegan/train.py copies it to
# the others with `python tests/copy_run.py`.

import atexit
import hashlib
import io
import math
import os
import shlex
import shutil
import signal
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta

import torch.distributed as dist
from torch.nn.utils import parameters_to_vector

from common.data import BadFile, fail, portable
from common.images import numbered, save_curves, save_gif, save_grid, write_bytes


class Run:
    """A run and its folder --out: ckpt.pt, log.csv, losses.png, samples/. Made before the data are
    read; `keep` is told what training changes, `steps` are the loop, `report` ends a step."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.out, self.step, self.log_bytes = args, Path(args.out), 0, 0
        self.path, self.log = self.out / "ckpt.pt", self.out / "log.csv"
        self.images, self.stop = args.batch_size, []  # images a step; a signal that came
        self.rank, self.world = join(args.device)
        near = next(p for p in (self.out, *self.out.absolute().parents) if p.exists())
        if not (near.is_dir() and os.access(near, os.W_OK)):
            fail(f"--out {self.out}: {near} is no folder that may be written to")
        self.lock = lock(self.out) if self.rank == 0 else None
        if self.rank == 0 and self.path.exists() and not args.resume:
            fail(f"{self.path.resolve()} exists: --resume goes on, --out DIR starts another run")
        try:
            probe = torch.zeros(1, device=args.device)
            probe.item()  # "meta" has no numbers
        except Exception as e:  # each backend raises its own kinds
            fail(f"--device {args.device}: {str(e).splitlines()[0]}")
        self.device = probe.device
        torch.backends.cudnn.benchmark = True  # shapes stay. TF32 as torch has it: in convolutions
        self.reading = {"root": args.data_root, "device": self.device, "workers": args.workers,
                        "skip_bad": args.skip_bad}
        scale = f"a small setting; --paper: {SCALE}"
        if all(getattr(args, k) == v for k, v in PAPER.items() if k != "data" and "every" not in k):
            scale = f"the paper's scale, with steps for {PAPER.get('data', args.data)}"
        print(f"{NAME}: {args.data} at {args.size} px on {self.device}, {scale}", flush=True)

    def keep(self, *sets, values: dict | None = None, facts: dict | None = None, **parts) -> None:
        """sets: the data. parts: tensors, and what has a state_dict: all that training changes;
        values: plain ones, kept in run.values. --resume makes them what the checkpoint holds.
        facts: plain ones that it must find as they are."""
        self.parts, self.values, channels = parts, values or {}, [data.channels for data in sets]
        self.facts = {"paper": NAME, "classes": sets[0].classes, **(facts or {}),
                      "channels": channels if len(sets) > 1 else channels[0]}
        self.settings = {k: v for k, v in vars(self.args).items() if k not in ("out", "resume")}
        self.settings["data"] = sets[0].name
        for part in parts.values() if self.device.type == "cuda" else ():
            for group in part.param_groups if isinstance(part, torch.optim.Adam) else ():
                group["fused"] = True
        try:
            if self.args.resume:
                self.fill(load_checkpoint(self.path))
        except Exception as e:  # a file may hold anything
            why = " ".join(str(e).split())[:300]
            fail(f"{self.path.resolve()} does not fit ({why}): a run keeps its networks' flags, "
                 "and its data's channels and classes")

    def fill(self, ckpt: dict) -> None:
        if (saved := {k: ckpt[k] for k in self.facts}) != self.facts:
            raise ValueError(f"{saved}, now {self.facts}")
        for name, part in self.parts.items():
            if isinstance(part, torch.Tensor):
                part.set_(ckpt[name].to(part))
            elif isinstance(part, torch.optim.Optimizer):  # flags given now override
                groups = zip(ckpt[name]["param_groups"], part.param_groups, strict=True)
                part.load_state_dict({**ckpt[name], "param_groups": [
                    old | new | {"params": old["params"]} for old, new in groups]})
                if any(t.shape not in (p.shape, ()) for p, state in part.state.items()
                       for t in state.values() if t is not None):
                    raise ValueError(f"{name} has other shapes")
            else:
                part.load_state_dict(ckpt[name])
        self.values = {name: ckpt[name] for name in self.values}
        self.step, self.log_bytes = int(ckpt["step"]), int(ckpt["log_bytes"])

    def steps(self, last: int, work: Sequence[float] = ()) -> Iterator[int]:
        """From the step after the checkpoint's to the last, each with its own seed. A first Ctrl-C
        or SIGTERM lets one end. work, where steps differ: what is done after each, for the ETA."""
        self.first, self.last, self.work = self.step, last, work or range(last + 1)
        self.began, self.shown = time.monotonic(), (time.monotonic(), self.step)
        if self.rank == 0:
            (self.out / "samples").mkdir(parents=True, exist_ok=True)
            for path in numbered(self.out / "samples"):
                if int(path.stem) > self.step or not self.draws(int(path.stem)):
                    path.unlink()  # it will come again, or was drawn for a signal
            with open(self.log, "a" if self.args.resume else "w") as f:
                f.truncate(min(f.tell(), self.log_bytes))  # these rows will come again
            if not self.args.resume:
                self.save()  # from here on a run that is killed resumes
        handlers = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {n: signal.signal(n, lambda n, _: (  # a second one stops at once
                self.stop.append(n), signal.signal(n, signal.SIG_DFL)))
                for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.step < last:
                self.step += 1
                torch.manual_seed(self.args.seed * 1_000_003 + self.step)  # of (seed, step) alone
                yield self.step
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.rank == 0:
            self.end("done", "sample.py", "--ckpt", self.path)

    def agree(self) -> list[int]:
        """A signal that came. Several processes ask each other where a row of the log is due, as
        that waits for the device, and so stop after the same step."""
        if self.world == 1 or self.step % self.args.log_every:
            return self.stop[:1] if self.world == 1 else []
        largest = torch.tensor([*self.stop, 0][0], device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [number] if (number := int(largest)) else []

    def average(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Each becomes its mean over all processes, in one message; None stays None."""
        if self.world > 1:
            tensors = [t for t in tensors if t is not None]
            total = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(total)
            for t, part in zip(tensors, total.split([t.numel() for t in tensors]), strict=True):
                t.copy_(part.view_as(t) / self.world)

    def draws(self, step: int) -> bool:
        return step == 1 or step % self.args.sample_every == 0 or step == self.last

    def report(self, terms: dict, draw: Callable[[], torch.Tensor], n_cols: int = 8) -> None:
        """Ends a step with what is due: the terms' means as a row of log.csv and a status line; a
        grid of draw(); a checkpoint. A NaN ends the run before it is saved, a signal after."""
        step, args, stop = self.step, self.args, self.agree()
        if self.rank > 0:  # the first process does all of this
            return sys.exit(128 + stop[0]) if stop else None
        logs, late = step % args.log_every == 0, time.monotonic() - self.shown[0] > 10
        stays = args.keep_every > 0 and step % args.keep_every == 0
        saves = stays or stop or step % args.save_every == 0 or step == self.last
        if logs or late or saves:
            means = {name: torch.as_tensor(v).mean().item() for name, v in terms.items()}
            self.check_finite(means)
        if logs:
            with open(self.log, "a") as f:
                f.write("" if f.tell() else ",".join(["step", *means]) + "\n")
                f.write(",".join([str(step), *(f"{v:.5f}" for v in means.values())]) + "\n")
        if logs or late:
            self.show(means)
        if self.draws(step) or stop:
            save_grid(self.out / f"samples/{step:06d}.png", draw(), n_cols)
            save_curves(self.out / "losses.png", self.log)
        if saves:
            self.save()
        if stays:
            shutil.copyfile(self.path, self.out / f"ckpt-{step:06d}.pt")
        if stop:
            self.end("stopped", "train.py", "--resume", "--out", self.out)
            sys.exit(128 + stop[0])

    def show(self, means: dict[str, float]) -> None:
        """The status line: on a terminal rewritten in place and cut to its width."""
        now, (before, step), work = time.monotonic(), self.shown, self.work
        left = (work[self.last] - work[self.step]) / (work[self.step] - work[self.first])
        speed = (self.step - step) * self.images / max(now - before, 1e-9)
        eta = timedelta(seconds=round(left * (now - self.began)))
        line = (f"step {self.step}/{self.last}  ETA {eta}  {speed:.1f} images/s  "
                + "  ".join(f"{name} {v:.3f}" for name, v in (means | self.values).items()))
        tty, self.shown = sys.stdout.isatty(), (now, self.step)
        print(f"\r\x1b[K{line[:shutil.get_terminal_size().columns - 1]}" if tty else line,
              end="" if tty else "\n", flush=True)

    def check_finite(self, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                fail(f"{name} is not finite at step {self.step}; last good checkpoint: "
                     f"{self.path.resolve()}")

    def save(self) -> None:
        """Tensors and plain values alone. A kill or a full disk leaves the last good file."""
        self.check_finite({name: parameters_to_vector(part.parameters()).norm(math.inf).item()
                           for name, part in self.parts.items() if hasattr(part, "parameters")})
        states = {name: part if isinstance(part, torch.Tensor) else part.state_dict()
                  for name, part in self.parts.items()}
        buffer = io.BytesIO()  # in memory first: a full disk is then a plain OSError
        torch.save({**self.facts, **self.values, **states, "args": self.settings, "step": self.step,
                    "log_bytes": self.log.stat().st_size}, buffer)
        write_bytes(self.path, buffer.getbuffer())

    def end(self, what: str, script: str, *flags) -> None:
        if pictures := numbered(self.out / "samples"):
            save_gif(self.out / "samples.gif", pictures)
        command = shlex.join(["python", str(Path(__file__).with_name(script)), *map(str, flags)])
        print(f"\n{what} after step {self.step}: see {self.out}/samples.gif; next: {command}")


def join(device: str) -> tuple[int, int]:
    """(rank, world): which process this is, of how many. torchrun tells by the environment."""
    if (world := int(os.environ.get("WORLD_SIZE", 1))) == 1:
        return 0, 1
    if "LOCAL_RANK" not in os.environ:
        fail("WORLD_SIZE is set, LOCAL_RANK is not: start several processes with torchrun")
    if device.startswith("cuda"):
        if (local := int(os.environ["LOCAL_RANK"])) >= (n := torch.cuda.device_count()):
            fail(f"process {local} of this machine has no GPU of its own: --nproc_per_node={n}")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    atexit.register(dist.destroy_process_group)
    if dist.get_rank() > 0:
        sys.stdout = open(os.devnull, "w")  # only the first process speaks, and writes the files
    return dist.get_rank(), world


def lock(folder: Path):
    """While this process lives, no other starts a run in the folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    name = hashlib.sha256(os.fsencode(f"{os.getuid()} {folder.resolve()}")).hexdigest()
    file = open(Path(tempfile.gettempdir(), f"{name}.lock"), "w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail(f"{folder.resolve()}: a run is going on there, --out DIR starts another")
    return file


def load_checkpoint(path: Path) -> dict:
    """Nothing that a file holds is executed: tensors and plain types only."""
    try:
        with zipfile.ZipFile(path) as file:  # torch does not look at its checksums
            if file.testzip():
                raise ValueError
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        paper, _ = ckpt["paper"], ckpt["args"].items()
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: start the run without --resume")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of ours ({type(e).__name__})")
    if paper != NAME:
        fail(f"{path.resolve()} is a checkpoint of {paper}, not of {NAME}")
    return ckpt


PAPER: dict = {}  # what --paper changes
settings(lambda flag, here, paper, *_, **__: paper != here and PAPER.update(
    {flag[2:].replace("-", "_"): paper}))
SCALE = ", ".join(f"{name} {value}" for name, value in PAPER.items() if "every" not in name)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags given now > the checkpoint's (--resume) > --paper's > those of settings()."""
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=lambda prog:
        argparse.ArgumentDefaultsHelpFormatter(prog, max_help_position=32, width=100))
    p.error, ranges = fail, {}  # fail: one line, without the usage

    def add(flag, here, paper, help, choices=None, low=None, below=None):
        kind, help = type(here), help if paper == here else f"{help}; paper: {paper}"
        options = {"action": argparse.BooleanOptionalAction} if kind is bool else {
            "type": kind, "choices": choices}
        name = p.add_argument(flag, default=here, help=help, **options).dest
        if kind in (int, float):  # where nothing is said, an int from 1 on, a float from 0 on
            ranges[name] = ((kind is int) if low is None else low,
                            below or (10**9 if kind is int else math.inf))

    settings(add)
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    add("--keep-every", 0, 0, "steps between checkpoints that stay, ckpt-STEP.pt; 0: none", low=0)
    add("--workers", 4, 4, "readers of a set too large to keep", low=0)
    add("--seed", 0, 0, "of weights, noise, the data's order", low=0, below=2**32)
    add("--device", str(best), str(best), "cuda, mps or cpu; the best there is")
    p.add_argument("--data-root", type=portable, help="for downloads; else data/ in here")
    add("--out", f"runs/{NAME}", f"runs/{NAME}", "the folder of this run")
    add("--skip-bad", False, False, "leave unreadable images out, do not stop")
    add("--paper", False, False, f"the paper's scale: {SCALE}")
    add("--resume", False, False, "go on from OUT/ckpt.pt; flags given now override")
    argv = sys.argv[1:] if argv is None else list(argv)
    args = p.parse_args(argv)
    if args.paper:
        p.set_defaults(**PAPER)
    if args.resume:  # the run's own flags come first, checked like any
        saved = load_checkpoint(Path(args.out) / "ckpt.pt")["args"]
        if args.paper and not saved.get("paper"):
            fail("--paper: a run that goes on keeps its scale, --out DIR starts another")
        argv = [f"--{'no-' * (v is False)}{k.replace('_', '-')}" + f"={v}" * (type(v) is not bool)
                for k, v in saved.items() if v is not None] + argv
    args = p.parse_args(argv)
    for name, (low, below) in ranges.items():
        if not low <= getattr(args, name) < below:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)} is not in [{low:g}, {below:g})")
    return args


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name
    try:
        train(parse_args())
    except KeyboardInterrupt:  # before the first step
        sys.exit(130)
    except (BadFile, OSError) as e:  # a file that vanished, a full disk, a folder that is closed
        fail(f"{e}: mend that, or change --out; a checkpoint there is whole, and --resume goes on")
    except (RuntimeError, MemoryError) as e:
        if isinstance(e, RuntimeError) and "allocate" not in str(e):
            raise
        fail("out of memory: lower --batch-size, --size or the networks' widths")
