"""Twelve years on one set: papers that draw from nothing, the same minutes, one judge. By hand.

    python tests/side_by_side.py --data faces                 runs/side/faces: a table, a picture
    python tests/side_by_side.py --data mnist gan wgan dcgan  some of the papers

Protocol: each paper's train.py as its bare command has it, but for 32x32 pixels and the same data,
on one thread, until the process has used --seconds of CPU time, its start and its sample grids
included; then SIGTERM, after which a run saves and ends. Papers that grow have phases that fit in.
A paper with a checkpoint below --out is not trained again. The judge is that of tests/quality.py,
the same for all. In the picture a row is a paper, in the order of the first versions on arXiv, and
holds the first samples of seed 0, of a class each where a class can be asked for; the last row is
of real images.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from quality import MIN_SAMPLES, THREADS, Judge, draw, fail, load, show

from common.data import load_labelled
from common.images import save_grid

ROOT, SIZE, COLUMNS = Path(__file__).resolve().parents[1], 32, 20
PAPERS = ("gan cgan dcgan infogan ebgan lsgan wgan began wgan_gp progan sngan sagan biggan "
          "stylegan stylegan2").split()
PHASES = {"progan": 0.010, "stylegan": 0.015}  # --phase-kimg, of --seconds


def cpu_seconds(pid: int) -> float:
    """Of a process with its threads: ps writes [[days-]hours:]minutes:seconds."""
    text = subprocess.check_output(["ps", "-o", "time=", "-p", str(pid)], text=True)
    total = 0.0
    for part in text.strip().replace("-", ":").split(":"):
        total = total * 60 + float(part)  # no run takes days
    return total


def train(paper: str, out: Path, args: argparse.Namespace) -> None:
    """Until its time is up; only then is the folder OUT. What it prints is in OUT.txt."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, str(ROOT / paper / "train.py"), "--data", args.data, "--size",
               str(SIZE), "--steps", "10000000", "--out", str(part)]
    if args.data_root:
        command += ["--data-root", args.data_root]
    if paper in PHASES:
        command += ["--phase-kimg", f"{PHASES[paper] * args.seconds:.2f}"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.txt", "w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while run.poll() is None and cpu_seconds(run.pid) < args.seconds:
            time.sleep(1)
    finally:
        run.terminate()
    if run.wait() != 128 + signal.SIGTERM:  # a NaN, say: then the last checkpoint is judged
        print(f"{paper} ended before its time: {Path(f'{out}.txt').read_text().splitlines()[-1]}")
    if not (part / "ckpt.pt").exists():
        fail(f"{paper} has not begun: see {out}.txt")
    part.rename(out)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("papers", nargs="*", metavar="paper", help="all, or of: " + ", ".join(PAPERS))
    p.add_argument("--data", default="faces", help="a set with classes, by its name, or a folder")
    p.add_argument("--data-root", help="where a set that is downloaded lies")
    p.add_argument("--seconds", type=int, default=240, help="of CPU time, for each paper")
    p.add_argument("--n", type=int, default=5000, help="samples that are judged")
    p.add_argument("--out", type=Path, help="the folder of the runs; runs/side/DATA without it")
    args = p.parse_args()
    if strangers := set(args.papers) - set(PAPERS):
        fail(f"{', '.join(sorted(strangers))}: not among {', '.join(PAPERS)}")
    if args.n < MIN_SAMPLES:
        fail(f"--n {args.n}: {MIN_SAMPLES:,} samples or more")
    papers = [paper for paper in PAPERS if paper in (args.papers or PAPERS)]
    folder = args.out or Path("runs/side", Path(args.data).name)
    for paper in papers:
        if not (folder / paper / "ckpt.pt").exists():
            train(paper, folder / paper, args)

    torch.set_num_threads(THREADS)
    judge = Judge(args.data, SIZE, args.data_root, False, args.n, 0)
    table, rows = [["paper", "updates", "images/s", "Frechet", "classes", "confidence", "precision",
                    "recall", "asked"]], []
    for paper in papers:
        sample = load(paper, "sample")
        G, ckpt = sample.load_generator(folder / paper / "ckpt.pt")
        run = ckpt["args"]
        times = next((run[name] for name in ("k", "n_critic", "n_dis") if name in run), 1)
        seen = ckpt.get("shown", ckpt["step"] * run["batch_size"] * times)
        x, y = draw(sample, G, ckpt, args.n, 0, judge.n_classes)
        distance, there, confidence, *shares = judge.measure(x, y)
        table.append([paper, f"{ckpt['step']:,}", f"{seen / args.seconds:,.0f}", f"{distance:.0f}",
                      f"{there}", f"{confidence:.2f}", *shares])
        rows.append(x[:COLUMNS])
    real, _ = load_labelled(args.data, SIZE, root=args.data_root)[range(COLUMNS)]
    save_grid(folder / "side.png", torch.cat([*rows, real]), COLUMNS,
              captions=[*papers, "real"])
    show(table)
    print(f"held-out images: {judge.floor:.2f}; wrote {folder}/side.png")


if __name__ == "__main__":
    main()
