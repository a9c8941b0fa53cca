"""How fast: drawing, reading, streaming, and the training loop of every paper. Run by hand.

    python tests/benchmark.py                       all of it, some minutes on two cores
    python tests/benchmark.py drawing stream gan    a choice: drawing, folders, stream, any paper
    python tests/benchmark.py dcgan --paper         at the paper's scale, on its built-in data
    python tests/benchmark.py --device cuda         the best device there is, if it is not said

Each line is one measurement: what, the value, the target where there is one, ok or MISSED. The
machine should be idle. Of a paper, at the setting of its bare command:
- start: from the start of the process to the report of step 1, so one step is in it;
- ms per step: over the loop of train() as it is, from step 11 on, for as many steps as its log,
  sample and save intervals need to come round together (or --steps of them);
- not the network: the share of that time inside reading a batch, seeding, and Run.report (status
  line, log, sample grids, curves, checkpoints). Not inside: random z, losses, optimisers, which are
  the paper's step. A GPU is waited for around each of these calls, so there the share is an upper
  bound: what overlaps in truth is counted;
- of the device's rate: the products and convolutions of one step (torch's FlopCounterMode), per
  second, beside what a single product of two matrices reaches on the same device;
- a picture that grows is at its last size from the first step on: the slowest, so the whole run
  is quicker than "at this speed", and has 15 minutes, not 10;
- memory: the process's peak, with the data set; its growth from step 101 (later, where that is
  among the first tenth of the loop) to the end.
"""
import argparse
import contextlib
import importlib
import io
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))
from common import builtin, data
from common.data import Data, fail, load_images

PAPERS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
DEVICE = torch.device(torch.accelerator.current_accelerator()
                      if torch.accelerator.is_available() else "cpu")  # else --device
WARM_UP = 10      # steps: allocators, thread pools and cuDNN settle
FLAT = 16         # MiB by which an allocator may breathe; a leak of one image a step is more


def row(what: str, value: float, unit: str, target: float | None = None, least: bool = False,
        note: str = "") -> None:
    """One line; `target` is the most that `value` may be, or, if `least`, the least."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    line = f"  {what:<46}{value:>10,.{digits}f} {unit:<10}"
    if target is not None:
        ok = value >= target if least else value <= target
        line += f"{'>=' if least else '<='} {target:<5g} {'ok' if ok else 'MISSED'}"
    print(f"{line}  {note}".rstrip(), flush=True)


def seconds(f, *args, **kwargs) -> float:
    """How long a call takes, its own report kept off the table."""
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        f(*args, **kwargs)
        return time.perf_counter() - began


# Data

def drawing() -> None:
    print("drawing: load_images, in parallel")
    row("10,000 digits at 32 px", seconds(load_images, "digits", 32), "s", 5)
    row("10,000 faces at 64 px", seconds(load_images, "faces", 64), "s", 20)


def write_jpegs(folder: Path, n: int, size: int, different: int, grain: float = 0) -> float:
    """n files of so many different faces, those of more than 256 px enlarged; grain is Gaussian, in
    levels of 256, as a camera adds it. Returns the megabytes of the last file."""
    rng = np.random.default_rng(0)
    drawn = builtin.faces(range(different), min(size, 256))["image"].permute(0, 2, 3, 1).numpy()
    jpegs = []
    for x in drawn:
        x = np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC))
        noise = grain * rng.standard_normal((size, size, 1), np.float32)
        jpeg = io.BytesIO()
        Image.fromarray((x + noise).clip(0, 255).astype("u1")).save(jpeg, "jpeg", quality=90)
        jpegs.append(jpeg.getvalue())
    for i in range(n):
        (folder / f"{i:05d}.jpg").write_bytes(jpegs[i % different])
    return len(jpegs[-1]) / 1e6


def folders() -> None:
    print("folders: load_images of JPEGs at 64 px")
    with TemporaryDirectory() as folder:
        write_jpegs(Path(folder), 5000, 64, different=500)
        row("5,000 of 64 px", seconds(load_images, folder, 64), "s", 6)
    # Draft saves the transform and the pixels, not the Huffman codes: grain makes those many
    for kind, grain, target in (("drawn", 0, 3), ("with a camera's grain", 4, None)):
        with TemporaryDirectory() as folder:
            megabytes = write_jpegs(Path(folder), 60, 2048, different=4, grain=grain)
            fast = seconds(load_images, folder, 64)
            with mock.patch.object(JpegImagePlugin.JpegImageFile, "draft", lambda *_: None):
                full = seconds(load_images, folder, 64)
        row(f"60 of 2048 px, {kind}", fast, "s", note=f"{megabytes:.2f} MB each")
        row("  decoded in full, as many times slower", full / fast, "times", target, least=True)


def stream() -> None:
    print(f"stream: batches of 64 at 64 px, on {DEVICE}")
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        write_jpegs(Path(folder), 2000, 64, different=500)
        with mock.patch.object(data, "RESIDENT_BYTES", 0):
            streamed = load_images(folder, 64, device=DEVICE)
        sets = [("resident", load_images(folder, 64, device=DEVICE), 0, 2000),
                ("streamed from files, 0 workers", streamed, 0, 100),
                ("streamed from files, 2 workers", streamed, 2, 200)]
        times = []
        for name, images, workers, n in sets:
            images.workers = workers
            batches = images.batches(64, seed=0)
            for _ in islice(batches, 20):  # workers start, and fill their queue
                pass
            took = seconds(lambda stream, n: [x.sum() for x in islice(stream, n)][-1].item(),
                           batches, n)  # .item() waits for a GPU
            times.append((name, took / n * 1e6))
    for name, microseconds in times:
        row(name, microseconds, "us/batch")


# A paper's training loop

def memory() -> tuple[float, float]:
    """MiB of this process: now, and at the peak. Not getrusage's peak, which on Linux starts with
    that of the parent process."""
    try:
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return tuple(int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    except OSError:  # no Linux: the peak alone is known, and a leak shows in it too
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (peak / 2**20,) * 2  # bytes on macOS


class Enough(Exception):
    """Ends a loop that has been watched for long enough."""


class Whole(contextlib.nullcontext):
    """For FlopCounterMode: all products belong to the whole. Its own tracker hooks modules, and
    fails in torch 2.14 where a penalty differentiates D by its input."""
    parents = frozenset({"Global"})


class Watch:
    """Follows train() from inside: counts its steps, and times what is not the network.

    A step begins with torch.manual_seed (house rule), the loop with the first Data.batches.
    """

    def __init__(self, steps: int):
        self.last = WARM_UP + steps
        self.spent: Counter = Counter()  # kind -> seconds since the warm-up
        self.step = self.depth = 0
        self.looping, self.first_picture, self.memory = False, None, None

    def timed(self, kind: str, f):
        def call(*args, **kwargs):
            if self.depth:  # sample() may seed its noise: its time is report's
                return f(*args, **kwargs)
            self.depth += 1
            began = self.now()
            try:
                return f(*args, **kwargs)
            finally:
                self.spent[kind] += self.now() - began
                self.depth -= 1
        return call

    def now(self) -> float:
        if DEVICE.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    def attach(self, train) -> None:
        report, save_grid = self.timed("report", train.Run.report), train.save_grid
        batches, seed = Data.batches, self.timed("seeding", torch.manual_seed)

        def noted(*args, **kwargs):
            save_grid(*args, **kwargs)
            self.first_picture = self.first_picture or time.time()

        def timed_batches(images, *args, **kwargs):
            self.looping = True
            stream = batches(images, *args, **kwargs)
            return iter(self.timed("data", stream.__next__), None)  # endless: no batch is None

        def manual_seed(number):
            if self.looping and not self.depth:
                self.begin_step()
            return seed(number)

        # a lambda, for what is set on a class has to be a function
        train.Run.report = lambda run, *args, **kwargs: report(run, *args, **kwargs)
        train.save_grid, Data.batches, torch.manual_seed = noted, timed_batches, manual_seed

    def begin_step(self) -> None:
        self.step += 1
        if self.step == WARM_UP // 2:
            self.flops = FlopCounterMode(display=False)
            self.flops.mod_tracker = Whole()
            self.flops.__enter__()
        if self.step == WARM_UP // 2 + 1:
            self.flops.__exit__(None, None, None)
        if self.step == WARM_UP + 1:
            self.spent.clear()
            self.began = self.now()
        if self.step == min(101, WARM_UP + 1 + self.last // 10):
            self.memory = memory()[0]
        if self.step == self.last + 1:
            self.ended = self.now()
            raise Enough


def product_rate() -> float:
    """Multiplications and additions a second of a float32 product of two matrices: the best of
    several, as the device is set up (TF32 or not)."""
    n = 1536 if DEVICE.type == "cpu" else 8192
    a, b = torch.rand(2, n, n, device=DEVICE)
    best = math.inf
    for _ in range(10):
        began = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * n ** 3 / best


def loop(paper: str, argv: list[str], steps: int | None, started: float, device: str) -> dict:
    """Runs a paper's train(args) for a while, in a process of its own for the sake of memory."""
    global DEVICE
    DEVICE = torch.device(device)
    sys.path.insert(0, str(ROOT / paper))  # as when the script is run
    train = importlib.import_module("train")
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        args = train.parse_args([*argv, "--device", device, "--out", str(Path(folder, "run"))])
        grows = args.steps == 0  # its unit is images shown
        if grows:
            args.steps, args.phase_kimg = train.Plan(0, 0, args).last, 0.0
        intervals = [v for k, v in vars(args).items() if k.endswith("_every") and v]
        steps = steps or min(math.lcm(*intervals), max(args.steps - WARM_UP, 1))
        n_run, args.steps = args.steps, max(args.steps, WARM_UP + steps + 1)
        watch = Watch(steps)
        watch.attach(train)
        with contextlib.suppress(Enough):
            train.train(args)
        if watch.step <= watch.last:
            fail(f"{paper}: saw {watch.step} torch.manual_seed after Data.batches, one a step is "
                 "the rule")
        now, peak = memory()
        cuda = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None
    took = watch.ended - watch.began
    return {"steps": steps, "ms": took / steps * 1000, "images": steps * args.batch_size / took,
            "share": {kind: spent / took * 100 for kind, spent in watch.spent.items()},
            "picture": watch.first_picture and watch.first_picture - started,
            "minutes": took / steps * n_run / 60, "n_run": n_run, "grows": grows, "peak": peak,
            "growth": now - watch.memory, "cuda": cuda,
            "rate": watch.flops.get_total_flops() / (took / steps) / product_rate() * 100,
            "setting": f"{args.data} at {args.size} px, batches of {args.batch_size}"}


def start_up(paper: str, argv: list[str]) -> float:
    """Seconds from the start of the process to its report of the first step."""
    took = math.nan
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        with subprocess.Popen(
                [sys.executable, str(ROOT / paper / "train.py"), "--steps", "1", "--log-every", "1",
                 "--device", str(DEVICE), "--out", str(Path(folder, "run")), *argv],
                stdout=subprocess.PIPE, text=True, cwd=folder) as process:
            for line in process.stdout:
                if line.startswith("step 1/"):
                    took = time.perf_counter() - began
            if process.wait():
                fail(f"{paper}/train.py {' '.join(argv)} ended with code {process.returncode}")
    return took


def measure(paper: str, argv: list[str], steps: int | None) -> None:
    bare = not argv  # the targets of time are those of the bare command
    start = start_up(paper, argv)
    # spawn, not fork: the child must own no memory of ours, and no CUDA context
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(loop, paper, argv, steps, time.time(), str(DEVICE)).result()
    share = sorted(seen["share"].items(), key=lambda item: -item[1])
    print(f"{' '.join([paper, *argv])}: {seen['setting']}, steps {WARM_UP + 1}.."
          f"{WARM_UP + seen['steps']}")
    row("start to the first step", start, "s", 12 if bare else None)
    if seen["picture"]:
        row("start to the first picture", seen["picture"], "s", 30 if bare else None)
    row("training step", seen["ms"], "ms")
    row("speed", seen["images"], "images/s")
    row(f"the whole run of {seen['n_run']:,} steps, at this speed", seen["minutes"], "min",
        (15 if seen["grows"] else 10) if bare else None)
    row("not the network", sum(seen["share"].values()), "%", 5,
        note="(" + ", ".join(f"{kind} {part:.2f}" for kind, part in share) + ")")
    row("of the device's rate of products", seen["rate"], "%")
    row("peak memory", seen["peak"], "MiB")
    if seen["cuda"] is not None:
        row("peak memory of tensors on the GPU", seen["cuda"], "MiB")
    row("growth of memory", seen["growth"], "MiB", FLAT)


def built_in(paper: str) -> str:
    """The data of a paper's bare command, in a process of its own: its module is called train."""
    code = "import train; print(train.parse_args([]).data)"
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, cwd=ROOT / paper, text=True).strip()


def main() -> None:
    global DEVICE
    groups = {"drawing": drawing, "folders": folders, "stream": stream}
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.error = fail
    p.add_argument("names", nargs="*", help=f"of {', '.join([*groups, *PAPERS])}; default: all")
    p.add_argument("--steps", type=int, help="how many steps of a loop, to be quick")
    p.add_argument("--paper", action="store_true", help="at the papers' scale, on built-in data")
    p.add_argument("--device", default=str(DEVICE), help="default: %(default)s")
    args = p.parse_args()
    DEVICE = torch.device(args.device)
    unknown = set(args.names) - {*groups, *PAPERS}
    if unknown:
        fail(f"{', '.join(sorted(unknown))}: the names are {', '.join([*groups, *PAPERS])}")
    cuda = f" ({torch.cuda.get_device_name()})" if DEVICE.type == "cuda" else ""
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, "
          f"{torch.get_num_threads()} threads, {DEVICE}{cuda}", flush=True)
    for name, group in groups.items():
        if not args.names or name in args.names:
            group()
    for paper in PAPERS:
        if not args.names or paper in args.names:
            flags = ["--paper", "--data", built_in(paper)] if args.paper else []
            measure(paper, flags, args.steps or (100 if args.paper else None))


if __name__ == "__main__":
    main()
