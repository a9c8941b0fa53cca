"""BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis. Brock, Donahue,
Simonyan. ICLR 2019, arXiv 1809.11096.

    python biggan/train.py                                    drawn digits, minutes on two cores
    python biggan/train.py --data path/to/classes --size 64   your own: a folder for each class
    torchrun --nproc_per_node=8 biggan/train.py --paper --data path/to/imagenet    the paper's scale
    python biggan/train.py --resume                           goes on where the last run stopped

What this paper changes: scale. Batches are eight times, widths one and a half times SAGAN's. What
makes that work: one class embedding for all layers, z in chunks, orthogonal regularisation, a
moving average of G's weights; and truncated z in sampling, which trades variety for fidelity.
No code of it was published: "authors' code" is the first author's own, in PyTorch. The paper ends
at the ruled line; below it is the run: flags, files, messages.
"""
import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Discriminator, Generator, top_singular_values

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import load_labelled

NAME = "biggan"


def settings(add) -> None:
    #    flag               here   --paper  what it is [where the paper has it; App. from memory]
    add("--data",       "digits", "imagenet", "a set by its name, or a folder of classes [Sec. 3]")
    add("--size",             32,      128, "height and width [Sec. 3]", (32, 64, 128, 256, 512))
    add("--arch",       "biggan", "biggan", "the networks of App. B", ("biggan", "deep"))
    add("--width",            16,       96, "channels, ch [Table 1]; of deep 128", low=8)
    add("--attention",        64,       64, "side of the maps that attend, at most half of SIZE, "
        "in D 64; for 256 px: 128 [Tables 4, 5]; 0: none", (0, 8, 16, 32, 64, 128), low=0)
    add("--z-chunk",          16,       20, "length of a chunk of z, of which G has one more than "
        "blocks: 120 in all at 128 px [Sec. 3.1]; of deep all of z, 128")
    add("--embed-dim",        32,      128, "length of the class embedding [Sec. 3]")
    add("--batch-size",       16,     2048, "images an update [Sec. 3]")
    add("--accumulate",        1,        1, "parts of a batch, one after another: less memory, but "
        "each by its own batch norm [authors' code]")
    add("--n-dis",             1,        2, "updates of D a step. Departure: 1, for more steps "
        "[App. C]")
    add("--lr",             1e-3,     5e-5, "Adam's learning rate of G. Departure: 0.001, for some "
        "thousand steps [App. C]")
    add("--ttur",            1.0,      4.0, "D's rate over G's: 2e-4. Departure: 1 [App. C]")
    add("--beta1",           0.0,      0.0, "Adam's beta1 [App. C]", below=1)
    add("--beta2",         0.999,    0.999, "Adam's beta2 [App. C]", below=1)
    add("--eps",            1e-4,     1e-4, "added to batch norm's variances [App. C]", low=1e-9)
    add("--ortho",          1e-4,     1e-4, "beta of orthogonal regularisation [Eq. 3]; 0: none")
    add("--ema",           0.995,   0.9999, "decay of the mean of G's weights [App. C]", below=1)
    add("--standing",         16,      100, "batches for batch norm's standing statistics, that G "
        "is sampled by [App. C]")
    add("--steps",          1500,  165_000, "updates of G [Table 1]")
    add("--log-every",        25,      100, "steps between rows of log.csv, of Fig. 3")
    add("--sample-every",    100,     1000, "steps between sample grids")
    add("--save-every",      250,     1000, "steps between checkpoints")


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), N(0, I). [Sec. 3.1]"""
    return torch.randn(n, z_dim, device=device)


def sample_y(n: int, n_classes: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Classes, int64 (n,), equally likely. [authors' code]"""
    return torch.randint(n_classes, (n,), device=device)


def draw(n: int, G: Generator, device: torch.device, rank: int = 0, world: int = 1, parts: int = 1
         ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """z and classes for n images, this process's rows, in parts. Every process draws all of them,
    as one process alone would."""
    z, y = sample_z(n, G.z_dim, device), sample_y(n, G.n_classes, device)
    return zip(z[rank::world].chunk(parts), y[rank::world].chunk(parts), strict=True)


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[max(0, 1 - D(x, y))] + E[max(0, 1 + D(G(z, y), y))], from logits (n,). [Sec. 3]"""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z, y), y)], from logits (n,). [Sec. 3]"""
    return -fake.mean()


def orthogonality(G: Generator) -> torch.Tensor:
    """Eq. 3 without beta: the sum of |W'W * (1 - I)|^2, W (rest, out) as it is before spectral
    normalisation, over all of G's weights but the class embedding, biases and gains: how far their
    filters are from orthogonal, whatever their lengths."""
    total = 0.0
    for name, W in G.named_parameters():
        if W.ndim > 1 and name != "shared.weight":
            W = W.flatten(1)  # here (out, rest); |W'W| = |WW'|, and one of them is the smaller
            gram = W @ W.T if len(W) < W.shape[1] else W.T @ W
            total = total + gram.square().sum() - W.square().sum(1).square().sum()
    return total


@torch.no_grad()
def update_ema(G_ema: Generator, G: Generator, decay: float) -> None:
    """w_ema <- decay w_ema + (1 - decay) w. [App. C] Buffers are copied: u, which fits the mean's
    weights nearly as well, and batch norm's averages, which standing statistics replace."""
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - decay)
    torch._foreach_copy_(list(G_ema.buffers()), list(G.buffers()))


@torch.no_grad()
def sample(G: Generator, z: torch.Tensor, y: torch.Tensor, args: argparse.Namespace
           ) -> torch.Tensor:
    """G(z, y), by standing statistics of --standing batches, of 256 at the most [ours]."""
    torch.manual_seed(args.seed)
    n = min(args.batch_size, 256)
    G = copy.deepcopy(G).stand(next(draw(n, G, z.device)) for _ in range(args.standing))
    return torch.cat([G(*part) for part in zip(z.split(8), y.split(8), strict=True)])


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    n, parts = args.batch_size, args.accumulate
    if n % (run.world * parts):
        fail(f"--batch-size {n}: in equal parts (--accumulate) of every process it is a multiple "
             f"of {run.world * parts}")
    data = load_labelled(args.data, args.size, **run.reading)
    n_classes = len(data.classes)
    torch.manual_seed(args.seed)
    at = min(args.attention, args.size // 2)
    G = Generator(args.size, data.channels, args.z_chunk, args.width, n_classes, args.embed_dim,
                  at, args.arch, args.eps).to(run.device)
    D = Discriminator(args.size, data.channels, args.width, n_classes, min(at, 64),
                      args.arch).to(run.device)
    G_ema = copy.deepcopy(G).requires_grad_(False)
    n_fixed = 8 * min(n_classes, 10)  # a row is a class
    z_fixed = sample_z(n_fixed, G.z_dim).to(run.device)  # one set of pictures through the run
    y_fixed = torch.arange(n_fixed, device=run.device) // 8
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=lr, betas=(args.beta1, args.beta2))
                    for net, lr in ((G, args.lr), (D, args.ttur * args.lr)))
    spectra = torch.zeros(0, device=run.device)  # Fig. 3: step, G's and D's top singular values
    run.keep(data, G=G, D=D, G_ema=G_ema, opt_g=opt_g, opt_d=opt_d, z_fixed=z_fixed,
             spectra=spectra)  # --resume fills them

    batches = data.batches(n, args.seed, run.step * args.n_dis, run.rank, run.world)
    whole = n, G, run.device, run.rank, run.world, parts
    for step in run.steps(args.steps):
        # Update D, n_dis times: on new data, noise and classes
        for _ in range(args.n_dis):
            opt_d.zero_grad()
            x_all, y_all = next(batches)
            for x, y, (z, y_fake) in zip(x_all.chunk(parts), y_all.chunk(parts), draw(*whole),
                                         strict=True):
                with torch.no_grad():
                    x_fake = G(z, y_fake)
                real, fake = D(torch.cat([x, x_fake]), torch.cat([y, y_fake])).chunk(2)
                loss_d = d_loss(real, fake)  # one pass, one iteration of u [authors' code]
                (loss_d / parts).backward()
            run.average(p.grad for p in D.parameters())
            opt_d.step()

        # Update G
        D.requires_grad_(False)
        opt_g.zero_grad()
        loss_ortho = args.ortho * orthogonality(G)
        loss_ortho.backward()
        for z, y_fake in draw(*whole):
            loss_g = g_loss(D(G(z, y_fake), y_fake))
            (loss_g / parts).backward()
        run.average(p.grad for p in G.parameters())
        opt_g.step()
        D.requires_grad_(True)
        update_ema(G_ema, G, args.ema)

        sigmas = [top_singular_values(net) for net in (G, D)]
        if step % args.log_every == 0:
            row = F.pad(torch.cat(sigmas), (1, 0), value=step)
            spectra.set_(torch.cat([spectra, row]))
        run.report({"loss_d": loss_d, "loss_g": loss_g + loss_ortho, "D(x)": real, "D(G(z))": fake,
                    "ortho": loss_ortho, "sigma of G": sigmas[0].amax(),
                    "sigma of D": sigmas[1].amax()},  # what one process saw in one part
                   lambda: sample(G_ema, z_fixed, y_fixed, args))


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
