"""BEGAN: Boundary Equilibrium Generative Adversarial Networks. Berthelot, Schumm, Metz. 2017,
arXiv 1703.10717.

    python began/train.py                                    drawn faces, minutes on two cores
    python began/train.py --data path/to/images --size 64    your own pictures
    python began/train.py --paper                            the paper's own scale, and its values
    python began/train.py --resume                           goes on where the last run stopped

What this paper changes: D is an auto-encoder, its loss L(v) = |v - D(v)|^eta; a controller, one
number k, holds L(G(z)) at gamma times L(x); it also yields a measure of convergence, M_global.
The paper ends at the ruled line; below it is the run: flags, files, messages.
"""
import argparse
import sys
from pathlib import Path

import torch
from model import Discriminator, Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import load_images

NAME = "began"


def settings(add) -> None:
    #    flag             here  --paper         what it is [where the paper has it; from memory]
    add("--data",         "faces", "celeba", "a set by its name, or a folder [Sec. 4.1: faces]")
    add("--size",              32,      64, "height and width [Sec. 4.1]", (16, 32, 64, 128, 256))
    add("--width",             24,     128, "n, channels of a convolution [Fig. 1]")
    add("--z-dim",             64,      64, "length of z and of D's code, N_z = N_h [Sec. 4.1]")
    add("--skip",            True,   False, "h_0 joins later blocks. Departure: on [Sec. 3.5]")
    add("--residual",           0,       0, "steps of vanishing residuals; 16000 [Sec. 3.5]", low=0)
    add("--batch-size",         8,      16, "images a step [Sec. 4.1]")
    add("--lr",              1e-3,    1e-4, "Adam's; 5e-5 to 1e-4 [Sec. 4.1]. Departure: 1e-3")
    add("--beta1",            0.5,     0.9, "Adam's beta1 [not given: torch's]", below=1)
    add("--lr-min",          2e-5,    2e-5, "below which it is not halved [carpedm20's code]")
    add("--stall",            200,  10_000, "steps; without a lower mean M_global lr is halved")
    add("--gamma",            1.0,     0.5, "L(G(z)) / L(x) [Eq. 6, Fig. 3]. Departure: 1")
    add("--lambda-k",        0.05,   0.001, "gain of k [Sec. 3.4]. Departure: 0.05")
    add("--eta",                2,       1, "power in L(v) [Sec. 3.1]. Departure: 2", (1, 2))
    add("--steps",           3000, 200_000, "updates of G; good from 200,000 on [author, an issue]")
    add("--log-every",         25,     100, "steps between rows of log.csv")
    add("--sample-every",     100,    2000, "steps between sample grids")
    add("--save-every",       250,    2000, "steps between checkpoints")


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), uniform in (-1, 1). [Sec. 4.1]"""
    return torch.rand(n, z_dim, device=device) * 2 - 1


def reconstruction(v: torch.Tensor, v_hat: torch.Tensor, eta: int) -> torch.Tensor:
    """L(v) = |v - D(v)|^eta, the mean over all of v (n, c, h, w), from v_hat = D(v). Sec. 3.1."""
    return (v - v_hat).abs().pow(eta).mean()


def d_loss(real: torch.Tensor, fake: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """L_D = L(x) - k_t L(G(z_D)). Sec. 3.4."""
    return real - k * fake


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """L_G = L(G(z_G)). Sec. 3.4."""
    return fake


def carry(step: int, n: int) -> float:
    """The input's share in a vanishing residual: from 1 to 0 in n steps; n = 0: none. Sec. 3.5."""
    return max(0.0, 1 - step / n) if n else 0.0


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor, c: float) -> torch.Tensor:
    """G(z): without batch norm there is no other mode."""
    return G(z, c)


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    data = load_images(args.data, args.size, **run.reading)
    torch.manual_seed(args.seed)
    z_fixed = sample_z(64, args.z_dim).to(run.device)  # one set of pictures through the run
    shape = args.size, data.channels, args.z_dim, args.width, args.skip
    G, D = Generator(*shape).to(run.device), Discriminator(*shape).to(run.device)
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    k, M_sum = (torch.zeros((), device=run.device) for _ in range(2))  # k_0 = 0
    run.keep(data, values={"M_best": float("inf"), "halvings": 0}, G=G, D=D, opt_g=opt_g,
             opt_d=opt_d, k=k, M_sum=M_sum, z_fixed=z_fixed)  # --resume fills them

    batches = data.batches(args.batch_size, args.seed, start=run.step)
    for step in run.steps(args.steps):
        x, c = next(batches), carry(step, args.residual)
        lr = max(args.lr * 0.5 ** run.values["halvings"], min(args.lr, args.lr_min))
        for group in opt_g.param_groups + opt_d.param_groups:
            group["lr"] = lr

        # Update D; a fake is a constant here, as input and as target
        with torch.no_grad():
            x_fake = G(sample_z(args.batch_size, args.z_dim, run.device), c)
        real = reconstruction(x, D(x, c), args.eta)
        fake = reconstruction(x_fake, D(x_fake, c), args.eta)
        loss_d = d_loss(real, fake, k)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        # Update G, on a z of its own, through x_fake as input and as target
        D.requires_grad_(False)
        x_fake = G(sample_z(args.batch_size, args.z_dim, run.device), c)
        loss_g = g_loss(reconstruction(x_fake, D(x_fake, c), args.eta))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        D.requires_grad_(True)

        # Update k, in [0, 1], and the learning rate  [Sec. 3.4]
        with torch.no_grad():
            balance = args.gamma * real - loss_g
            k.add_(args.lambda_k * balance).clamp_(0, 1)
            M_global = real + balance.abs()
            M_sum.add_(M_global)
        if step % args.stall == 0:  # only here does the loop wait for a GPU
            M, best = M_sum.item() / args.stall, run.values["M_best"]
            run.values.update(M_best=min(M, best), halvings=run.values["halvings"] + (M >= best))
            M_sum.zero_()

        run.report({"loss_d": loss_d, "loss_g": loss_g, "L(x)": real, "L(G(z))": loss_g, "k": k,
                    "M_global": M_global, "lr": lr}, lambda c=c: sample(G, z_fixed, c))


# ----------------------------------------------------------------------------------------------
# The run: files, flags, messages. The same text in every folder: whoever edits it in dcgan/train.py
# copies it to the others with `python tests/copy_run.py`.

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
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

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
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            fail(f"{NAME} runs in one process, on one GPU: start it with python, not torchrun")
        near = next(p for p in (self.out, *self.out.absolute().parents) if p.exists())
        if not (near.is_dir() and os.access(near, os.W_OK)):
            fail(f"--out {self.out}: {near} is no folder that may be written to")
        self.lock = lock(self.out)
        if self.path.exists() and not args.resume:
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
        self.end("done", "sample.py", "--ckpt", self.path)

    def draws(self, step: int) -> bool:
        return step == 1 or step % self.args.sample_every == 0 or step == self.last

    def report(self, terms: dict, draw: Callable[[], torch.Tensor], n_cols: int = 8) -> None:
        """Ends a step with what is due: the terms' means as a row of log.csv and a status line; a
        grid of draw(); a checkpoint. A NaN ends the run before it is saved, a signal after."""
        step, args, stop = self.step, self.args, self.stop[:1]
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
                + "  ".join(f"{name} {v:.3f}" for name, v in means.items()))
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
