"""StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation.
Choi, Choi, Kim, Ha, Kim, Choo. CVPR 2018, arXiv 1711.09020.

    python stargan/train.py                                    drawn faces: hair, glasses, smiles
    python stargan/train.py --data path/to/images --size 64    yours, with an attributes.csv
    python stargan/train.py --data path/to/classes --size 64   yours, a folder for each domain
    python stargan/train.py --paper                            the paper's CelebA
    python stargan/train.py --resume                           goes on where the last run stopped

What this paper changes: one G translates between all domains. A label tells it which one to make,
and D, which learns to read the labels of real images, tells it whether it did.
The paper ends at the ruled line; below it is the run: flags, files, messages.
"""
import argparse
import re
import sys
from functools import partial
from itertools import accumulate, product
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Discriminator, Generator, change, join

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import NAMES, Data, load_attributes, load_labelled
from common.folders import LISTS, SPLITS, place

NAME = "stargan"
# --attributes, where it is not given: the first of these that the data have, or all they have
DOMAINS = ("Black_Hair/Blond_Hair/Brown_Hair,Male,Young",  # [Sec. 5.2]
           "dark_hair/blond_hair/red_hair,glasses,smiling")


def settings(add) -> None:
    #    flag            here  --paper   what it is [where the paper has it]
    add("--data",     "faces", "celeba", "faces, celeba, or a folder: of images, attributes.csv or "
        "list_attr_celeba.txt in it or beside it; or of class folders [Sec. 5.2]")
    add("--data-2",        "",       "", "a second such set, to learn its domains too [Sec. 3.2]")
    add("--attributes",    "",       "", "names to learn: a/b,c where a and b exclude each other")
    add("--size",          32,      128, "height and width [Sec. 5.2]", (16, 32, 64, 128, 256))
    add("--width",         32,       64, "channels at the image [App. 7.2]")
    add("--n-blocks",       3,        6, "residual blocks of G [App. 7.2]")
    add("--lambda-cls",   1.0,      1.0, "weight of the domains' losses [Sec. 3.1]")
    add("--lambda-rec",  10.0,     10.0, "weight of the reconstruction [Sec. 3.1]")
    add("--lambda-gp",   10.0,     10.0, "weight of the gradient penalty [Sec. 4]")
    add("--n-critic",       5,        5, "updates of D per update of G [Sec. 5.3]")
    add("--flip",        True,     True, "mirror half of the images [Sec. 5.3]")
    add("--batch-size",     4,       16, "images a step [Sec. 5.3]", low=2)
    add("--lr",          5e-4,     1e-4, "Adam's learning rate, which falls to 0 over the second "
        "half of --steps [Sec. 5.3]. Departure: 5e-4, for minutes")
    add("--beta1",        0.5,      0.5, "Adam's beta1 [Sec. 5.3]", below=1)
    add("--steps",       1200,   40_693, "updates of G by each set; 20 epochs of 162,770 images, "
        "16 for each of 5 updates of D [Sec. 5.3]")
    add("--log-every",     25,      100, "steps between rows of log.csv")
    add("--sample-every",  50,     1000, "steps between sample grids")
    add("--save-every",   250,     1000, "steps between checkpoints")


def load(data: str, size: int, **reading) -> tuple[Data, Data]:
    """(x, attributes) or (x, class) to train on, and held out: of a folder train/ these are in
    test/ beside it, another folder has none, and its own are shown."""
    folder = place(data)
    listed = [name for name in LISTS for inner in (folder, folder.parent)
              if data not in NAMES and (inner / name).is_file()]
    if not listed and folder.is_dir() and not any(inner.is_dir() for inner in folder.iterdir()):
        fail(f"{folder}: looked for {LISTS[0]} in it or beside it, or a folder for each class")
    one = load_attributes if listed or data in ("faces", "celeba") else load_labelled
    one = partial(one, size=size, **reading)
    own = held = one(data)
    if data in NAMES:
        held = one(data, split="test")
    elif folder.name.lower() in SPLITS["train"]:
        beside = [folder.with_name(name) for name in SPLITS["test"]]
        held = next((one(str(test)) for test in beside if test.is_dir()), own)
    for what in ("channels", "classes", "attributes"):
        if (seen := getattr(held, what)) != (here := getattr(own, what)):
            fail(f"{held.name} has the {what} {seen}, {own.name} {here}: make them alike")
    return own, held


def choose(wanted: str, sets: list[Data]) -> list[list[list[str]]]:
    """Of each set the domains, as groups of names that exclude each other: its classes, or of its
    attributes those wanted, of which some may be another set's."""
    def parse(text: str) -> list[list[str]]:
        return [group.split("/") for group in text.split(",") if group]

    chosen = [name for group in parse(wanted) for name in group]
    if len(set(chosen)) < len(chosen):
        fail(f"--attributes {wanted}: a name stands there twice")
    known = {name for data in sets for name in data.attributes}
    if unknown := set(chosen) - known:
        fail(f"--attributes: no {', '.join(unknown)}: the data have "
             f"{', '.join(sorted(known)) or 'classes, which are all learnt'}")
    domains = []
    for data in sets:
        usual = next((text for text in DOMAINS
                      if set(re.split("[/,]", text)) <= set(data.attributes)), None)
        named = parse(wanted or usual or "") or [[name] for name in data.attributes]
        named = [[name for name in group if name in data.attributes] for group in named]
        domains.append([data.classes] if data.classes else [group for group in named if group])
        if not domains[-1]:
            fail(f"--attributes: none is of {data.name}, which has {', '.join(data.attributes)}")
    return domains


def labels(y: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """c (n, n_names), 0 or 1: of attributes y (n, k) these columns, of classes y (n,) one is 1."""
    return y[:, columns] if y.dim() == 2 else torch.eye(len(columns), device=y.device)[y]


def learning_rate(lr: float, step: int, steps: int) -> float:
    """lr for 10 epochs, then linearly towards 0 for 10. [Sec. 5.3] Departure: an epoch is here a
    20th of the run, at least one step. (The authors' code ends at 0.999 lr: once in 1000 steps it
    takes off what would be due in each.)"""
    steps = max(steps, 20)
    return lr * min(1.0, 2 * (steps - step + 1) / steps)


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """E[D_src(G(x, c))] - E[D_src(x)], from scores (n, 1, h, w): Eq. 8, negated."""
    return fake.mean() - real.mean()


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[D_src(G(x, c))], from scores (n, 1, h, w): Eq. 8."""
    return -fake.mean()


def cls_loss(logits: torch.Tensor, c: torch.Tensor, one_of_n: bool) -> torch.Tensor:
    """E[-log D_cls(c|x)]: Eq. 2 and 3. Summed over attributes, as they are independent; of classes
    there is one. [authors' code]"""
    if one_of_n:
        return F.cross_entropy(logits, c)
    return F.binary_cross_entropy_with_logits(logits, c, reduction="sum") / len(c)


def gradient_penalty(D: Discriminator, x: torch.Tensor, x_fake: torch.Tensor) -> torch.Tensor:
    """E[(|grad D_src(x_hat)|_2 - 1)^2], x_hat = a x + (1 - a) x_fake: Eq. 8. D_src is here the sum
    over its patches [authors' code]."""
    a = torch.rand(len(x), 1, 1, 1, device=x.device)  # one an image: U[0, 1]
    x_hat = (a * x + (1 - a) * x_fake).detach().requires_grad_()
    grad, = torch.autograd.grad(D(x_hat)[0].sum(), x_hat, create_graph=True)
    return (grad.flatten(1).norm(dim=1) - 1).square().mean()


@torch.no_grad()
def sample(G: Generator, x: torch.Tensor, c: torch.Tensor, domains: list) -> torch.Tensor:
    """Rows x | G(x, c) for each domain | the first of these, translated back. [Figs. 4, 5, 6]"""
    n = sum(len(group) for groups in domains for group in groups)
    x_fake = [G(x, change(c, domains, place)) for place in range(n)]
    return torch.stack([x, *x_fake, G(x_fake[0], c)], 1).flatten(0, 1)


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    sets, held = zip(*(load(data, args.size, **run.reading)
                       for data in (args.data, args.data_2) if data), strict=True)
    args.data_2 = sets[1].name if args.data_2 else ""
    domains, channels = choose(args.attributes, sets), max(data.channels for data in sets)
    names = [[name for group in groups for name in group] for groups in domains]
    print("domains:", "; ".join(",".join(map("/".join, groups)) for groups in domains), flush=True)
    one_of_n, sizes = [bool(data.classes) for data in sets], list(map(len, names))
    # Of D's logits those of each set
    own = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]
    columns = [torch.tensor([(data.classes or data.attributes).index(name) for name in of_set],
                            device=run.device) for data, of_set in zip(sets, names, strict=True)]

    def prepare(k: int, batch: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """x and c of data set k: a grey set beside one in colour gets channels."""
        x, y = batch
        return x.expand(-1, channels, -1, -1), labels(y, columns[k])

    shown = [prepare(k, data[:8 // len(sets)]) for k, data in enumerate(held)]
    x_fixed = torch.cat([x for x, _ in shown])  # one set of images through the run
    c_fixed = torch.cat([join(c, k, sizes) for k, (_, c) in enumerate(shown)])
    torch.manual_seed(args.seed)
    G = Generator(c_fixed.shape[1], channels, args.width, args.n_blocks).to(run.device)
    D = Discriminator(sum(sizes), args.size, channels, args.width).to(run.device)
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    run.keep(*sets, facts={"domains": domains, "one_of_n": one_of_n}, G=G, D=D, opt_g=opt_g,
             opt_d=opt_d, x_fixed=x_fixed, c_fixed=c_fixed)  # --resume fills them

    streams = [data.batches(args.batch_size, args.seed, run.step * args.n_critic) for data in sets]
    for step in run.steps(args.steps):
        for group in opt_g.param_groups + opt_d.param_groups:
            group["lr"] = learning_rate(args.lr, step, args.steps)
        terms = {}
        for i, (k, stream) in product(range(args.n_critic), enumerate(streams)):
            x, c_org = prepare(k, next(stream))
            if args.flip:
                x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
            c = c_org[torch.randperm(len(x), device=x.device)]  # only what occurs in the data
            c_all, c_org_all = join(c, k, sizes), join(c_org, k, sizes)

            # Update D: domains are learnt from real images alone
            with torch.no_grad():
                x_fake = G(x, c_all)
            (real, logits), (fake, _) = D(x), D(x_fake)
            penalty = gradient_penalty(D, x, x_fake)
            cls_real = cls_loss(logits[:, own[k]], c_org, one_of_n[k])
            estimate = -d_loss(real, fake)
            loss_d = -estimate + args.lambda_gp * penalty + args.lambda_cls * cls_real  # Eq. 5
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
            if i < args.n_critic - 1:
                continue

            # Update G
            D.requires_grad_(False)
            x_fake = G(x, c_all)
            fake, logits = D(x_fake)
            cls_fake = cls_loss(logits[:, own[k]], c, one_of_n[k])
            rec = F.l1_loss(G(x_fake, c_org_all), x)  # Eq. 4
            loss_g = g_loss(fake) + args.lambda_cls * cls_fake + args.lambda_rec * rec  # Eq. 6
            opt_g.zero_grad()
            loss_g.backward()
            opt_g.step()
            D.requires_grad_(True)

            mark = f" {k + 1}" if k else ""
            terms |= {f"{name}{mark}": value for name, value in {
                "loss_d": loss_d, "loss_g": loss_g, "estimate": estimate, "penalty": penalty,
                "cls_real": cls_real, "cls_fake": cls_fake, "rec": rec}.items()}

        run.report(terms, lambda: sample(G, x_fixed, c_fixed, domains), sum(sizes) + 2)


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
