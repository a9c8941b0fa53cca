"""SPADE: Semantic Image Synthesis with Spatially-Adaptive Normalization. Park, Liu, Wang, Zhu.
CVPR 2019, arXiv 1903.07291.

    python spade/train.py                                 label maps to drawn faces, minutes
    python spade/train.py --data path/to/set --size 64    {train,val}_{img,label} in it, and _inst
    torchrun --nproc_per_node=8 spade/train.py --paper --data path/to/ade20k    the paper's scale
    python spade/train.py --resume                        goes on where the last run stopped

What this paper changes: a label map does not enter G at its beginning, where normalisation would
wash it out. It modulates every normalised layer, each pixel by what it belongs to (model.py).
The paper ends at the ruled line; below it is the run: flags, files, messages.
"""
import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from model import SIZES, VGG19, Discriminator, Encoder, Generator, n_maps, semantics

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_label_maps
from common.images import PALETTE

NAME = "spade"


def settings(add) -> None:
    #    flag              here  --paper    what it is [where the paper has it]
    add("--data",       "faces", "ade20k",  "faces, or a folder of {train,val}_{img,label} and "
        "perhaps _inst, which tells objects of a class apart [Sec. 4]")
    add("--classes",          0,       0,   "how many; 0: as many as the training maps show; "
        "COCO-Stuff has 182 [Sec. 4]", low=0)
    add("--unknown",        255,     255,   "the id of pixels of no class; -1: there are none "
        "[authors' code]", low=-1)
    add("--size",            32,     256,   "height and width [Sec. 4]", SIZES)
    add("--width",            8,      64,   "channels of G, and of the encoder, at the image "
        "[Fig. 11]")
    add("--hidden",          32,     128,   "channels between label map and modulation [Fig. 10]")
    add("--width-d",         16,      64,   "channels of D's first layer [Fig. 13]")
    add("--layers-d",         3,       4,   "convolutions of D, of each scale, before the logits "
        "[Fig. 13]", low=2, below=9)
    add("--lambda-feat",   10.0,    10.0,   "weight of feature matching [App. A]")
    add("--vgg",             "",      "",   "a file of torchvision's vgg19 weights, for the "
        "perceptual loss. Departure: without it there is none [App. A]")
    add("--lambda-vgg",    10.0,    10.0,   "its weight [App. A]")
    add("--encoder",      False,   False,   "z, a style, from an image encoder [Sec. 3]")
    add("--z-dim",           64,     256,   "length of z [Fig. 14]")
    add("--lambda-kld",     0.2,     0.2,   "weight of the divergence of z [authors' code: "
        "0.05, of the sum over the 4 images of one GPU]")
    add("--jitter", 286 / 256, 286 / 256,   "side before a random crop to size, over size; 1: "
        "no crop [authors' code]", low=1, below=16)
    add("--flip",          True,    True,   "mirror half of the images [authors' code]")
    add("--batch-size",       4,      32,   "images a step [App. A]")
    add("--lr",            5e-4,    1e-4,   "Adam's learning rate of G. Departure: five times the "
        "paper's, for narrow networks and few updates [App. A]")
    add("--lr-d",          1e-3,    4e-4,   "that of D. Departure: likewise [App. A]")
    add("--beta2",          0.9,     0.9,   "Adam's; beta1 is 0. Departure: the paper says 0.999, "
        "which its authors call a mistake [authors' code]", below=1)
    add("--steps",         5000, 126_200,   "updates of G; 200 epochs of 20,210 images [App. A]")
    add("--decay",            0,  63_100,   "last steps, in which both rates fall to 0 [App. A]",
        low=0)
    add("--log-every",       50,     100,   "steps between rows of log.csv")
    add("--sample-every",   250,    2000,   "steps between sample grids")
    add("--save-every",     500,    2000,   "steps between checkpoints")


def load_data(args: argparse.Namespace, reading: dict) -> tuple[Data, Data]:
    """To train on, photos and maps of size * jitter; and held-out ones: the val split, or, of a
    folder that has none, the last sixth."""
    reading = {**reading, "ignore": args.unknown if args.unknown >= 0 else None}
    data = load_label_maps(args.data, round(args.size * args.jitter),
                           n_classes=args.classes or None, **reading)
    held = load_label_maps(args.data, args.size, split="test", n_classes=len(data.classes),
                           **reading)
    if held.channels != data.channels or len(held[:1]) != len(data[:1]):
        fail(f"{data.name}: the held-out part differs in kind: grey or in colour, or instance maps")
    n = len(data) - len(data) // 6
    if held.split == "train" and n < len(data):
        data, held = data.subset(0, n), held.subset(n, len(held))
    return data, held


def crop_and_flip(fields: list[torch.Tensor], size: int, flip: bool, batch: int, rows: slice
                  ) -> list[torch.Tensor]:
    """A random size x size window of each example, mirrored with probability 1/2: one for its photo
    (n, c, h, w) and its maps (n, h, w). These are `rows` of a batch, for all of which is drawn."""
    side, device = fields[0].shape[-1], fields[0].device
    top, left = torch.randint(side - size + 1, (2, batch, 1), device=device)[:, rows]
    mirrored = torch.rand(batch, 1, device=device)[rows] < 0.5 * flip
    at = torch.arange(size, device=device)
    down, across = top + at, left + torch.where(mirrored, at.flip(0), at)

    def window(x: torch.Tensor) -> torch.Tensor:
        x = x.gather(2, down[:, None, :, None].expand(-1, x.shape[1], -1, side))
        return x.gather(3, across[:, None, None].expand(-1, x.shape[1], size, -1))

    return [window(x) if x.ndim == 4 else window(x[:, None])[:, 0] for x in fields]


def d_loss(real: list[torch.Tensor], fake: list[torch.Tensor]) -> torch.Tensor:
    """E[max(0, 1 - D(m, x))] + E[max(0, 1 + D(m, G(m)))], the mean over the scales, from their
    logits (n, 1, h, w). [App. A: hinge]"""
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def g_loss(fake: list[torch.Tensor]) -> torch.Tensor:
    """-E[D(m, G(m))], the mean over the scales."""
    return -mean(fake)


def mean(logits: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([part.mean() for part in logits]).mean()


def feature_loss(real: list[list[torch.Tensor]], fake: list[list[torch.Tensor]]) -> torch.Tensor:
    """sum over layers of E[|D_k(m, x) - D_k(m, G(m))|], the mean over the scales, of all maps but
    the logits; towards those of the real ones, which get no gradient. [pix2pixHD, Eq. 4]"""
    losses = [F.l1_loss(f, r.detach()) for rs, fs in zip(real, fake, strict=True)
              for r, f in zip(rs[:-1], fs[:-1], strict=True)]
    return torch.stack(losses).sum() / len(real)


def vgg_loss(vgg: VGG19, x: torch.Tensor, x_fake: torch.Tensor) -> torch.Tensor:
    """sum over i of E[|VGG_i(x) - VGG_i(G(m))|] / (32, 16, 8, 4, 1), of values in [-1, 1] as they
    are. [authors' code]"""
    with torch.no_grad():
        real = vgg(x.expand(-1, 3, -1, -1))
    fake = vgg(x_fake.expand(-1, 3, -1, -1))
    return sum(F.l1_loss(f, r) / k for f, r, k in zip(fake, real, (32, 16, 8, 4, 1), strict=True))


def kld(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) = -1/2 sum(1 + log sigma^2 - mu^2 - sigma^2). Departure: the
    mean over the batch, where the authors' code has the sum over a GPU's part of it."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()


def sample_z(n: int, z_dim: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """z (n, z_dim), standard normal."""
    return torch.randn(n, z_dim, device=device)


def load_vgg(path: str) -> VGG19:
    """From torchvision's file, of which only tensors are read."""
    vgg = VGG19()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        vgg.load_state_dict({name: state[name] for name in vgg.state_dict()})
    except Exception as e:  # torch's readers raise many kinds
        fail(f"--vgg {path}: looked for the weights of torchvision's vgg19, a file like "
             f"vgg19-dcbb9e9d.pth ({type(e).__name__})")
    return vgg.eval().requires_grad_(False)


def painted(y: torch.Tensor) -> torch.Tensor:
    """Label maps (n, h, w) in colours, (n, 3, h, w) in [-1, 1]."""
    return PALETTE.to(y.device)[y % len(PALETTE)].permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def sample(G: Generator, x: torch.Tensor, y: torch.Tensor, m: torch.Tensor,
           z: torch.Tensor | None) -> torch.Tensor:
    """Rows of label map | output | photo, (3n, 3, h, w), by batch norm's running averages."""
    rows = painted(y), *(part.expand(-1, 3, -1, -1) for part in (G.eval()(m, z), x))
    G.train()
    return torch.stack(rows, 1).flatten(0, 1)


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    if args.batch_size % run.world:
        fail(f"--batch-size {args.batch_size} in {run.world} processes: a multiple of that")
    if args.vgg:
        args.vgg = str(Path(args.vgg).expanduser().resolve())  # for a --resume from elsewhere
    vgg = load_vgg(args.vgg).to(run.device) if args.vgg else None
    data, held = load_data(args, run.reading)
    torch.manual_seed(args.seed)
    fixed = [field.clone() for field in held[:12]]  # photos, label maps, perhaps instances
    names, n_classes = ("x_fixed", "y_fixed", "i_fixed"), len(data.classes)
    n, z_dim = n_maps(n_classes, args.unknown, len(fixed) > 2), args.z_dim * args.encoder
    z_fixed = sample_z(len(fixed[0]), args.z_dim).to(run.device)
    G = Generator(n, args.size, data.channels, args.width, args.hidden, z_dim).to(run.device)
    D = Discriminator(n, data.channels, args.width_d, args.layers_d).to(run.device)
    E = Encoder(args.size, data.channels, args.width, z_dim).to(run.device) if z_dim else None
    of_g = [*G.parameters(), *(E.parameters() if E else ())]
    opt_g = torch.optim.Adam(of_g, lr=args.lr, betas=(0.0, args.beta2))
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr_d, betas=(0.0, args.beta2))
    run.keep(data, facts={"size": args.size, "instances": len(fixed) > 2, "unknown": args.unknown},
             G=G, D=D, **({"E": E} if E else {}), opt_g=opt_g, opt_d=opt_d,
             z_fixed=z_fixed, **dict(zip(names, fixed, strict=False)))  # --resume fills them

    def style(x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | float]:
        """z of photos, and its divergence. Every process draws for the whole batch."""
        if E is None:
            return None, 0.0
        (mu, logvar), noise = E(x), sample_z(args.batch_size, z_dim, run.device)[rows]
        return mu + (logvar / 2).exp() * noise, kld(mu, logvar)

    rows = slice(run.rank, None, run.world)  # of each batch: those of this process
    batches = data.batches(args.batch_size, args.seed, run.step, run.rank, run.world)
    decay = max(min(args.decay, args.steps), 1)
    for step in run.steps(args.steps):
        x, y, *i = crop_and_flip(next(batches), args.size, args.flip, args.batch_size, rows)
        m = semantics(y, n_classes, args.unknown, *i)
        for opt, lr in ((opt_g, args.lr), (opt_d, args.lr_d)):
            opt.param_groups[0]["lr"] = lr * min(1.0, (args.steps - step + 1) / decay)

        # Update G and E, before D [authors' code]. D sees fake and real in one pass
        D.requires_grad_(False)
        z, loss_kld = style(x)
        x_fake = G(m, z)
        maps = [[layer.chunk(2) for layer in scale]
                for scale in D(torch.cat([m, m]), torch.cat([x_fake, x]))]
        fake, real = ([[layer[k] for layer in scale] for scale in maps] for k in (0, 1))
        loss_gan, loss_feat = g_loss([scale[-1] for scale in fake]), feature_loss(real, fake)
        loss_vgg = vgg_loss(vgg, x, x_fake) if vgg else 0.0
        loss_g = (loss_gan + args.lambda_feat * loss_feat + args.lambda_vgg * loss_vgg
                  + args.lambda_kld * loss_kld)
        opt_g.zero_grad()
        loss_g.backward()
        run.average(p.grad for p in of_g)
        opt_g.step()
        D.requires_grad_(True)

        # Update D, on what G makes now
        with torch.no_grad():
            z, _ = style(x)
            x_fake = G(m, z)
        maps = [scale[-1].chunk(2) for scale in D(torch.cat([m, m]), torch.cat([x_fake, x]))]
        fake, real = zip(*maps, strict=True)
        loss_d = d_loss(real, fake)
        opt_d.zero_grad()
        loss_d.backward()
        run.average(p.grad for p in D.parameters())
        opt_d.step()

        run.report({"loss_d": loss_d, "loss_g": loss_g, "features": loss_feat,
                    **({"VGG": loss_vgg} if vgg else {}), **({"KLD": loss_kld} if E else {}),
                    "D(x)": mean(real), "D(G(m))": mean(fake)},  # what one process saw
                   lambda: sample(G, *fixed[:2], semantics(fixed[1], n_classes, args.unknown,
                                                           *fixed[2:]), z_fixed if E else None), 9)


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
