"""Figures of the WGAN paper, from a checkpoint of wgan/train.py.

    python wgan/sample.py                          from runs/wgan/ckpt.pt into runs/wgan/figures/
    python wgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python wgan/sample.py --n 10000 --each pngs    10,000 single files, for the usual FID tools
"""
import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from model import Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail  # noqa: E402
from common.images import save_curves, save_grid, write_image  # noqa: E402

SHEET = {"dcgan": "fig5.png", "nobn": "fig6.png", "mlp": "fig7.png"}  # by --arch


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "wgan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["width"], args["arch"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run wgan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of wgan ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt  # eval: batch norm's running averages, as train.py


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed)."""
    torch.manual_seed(seed)
    x = torch.cat([G(z) for z in sample_z(n, ckpt["args"]["z_dim"]).split(250)])
    return x.clamp(-1, 1)  # the MLP has no tanh


def read_log(path: Path, n_bytes: int) -> np.ndarray:
    """(rows, 2), step and estimate, of the rows that log.csv had when its checkpoint was saved."""
    rows = path.read_bytes()[:n_bytes].decode().splitlines()[1:]
    return np.array([(row.split(",")[0], row.split(",")[2]) for row in rows], float).reshape(-1, 2)


def median_filter(step: np.ndarray, value: np.ndarray, window: int = 101) -> np.ndarray:
    """Of the rows in a window of steps around each row, the median. [Fig. 3]"""
    low = np.searchsorted(step, step - window // 2)
    high = np.searchsorted(step, step + window // 2, "right")
    return np.array([np.median(value[i:j]) for i, j in zip(low, high, strict=True)])


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/wgan/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--n", type=int, default=64, help="how many samples")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    G, ckpt = load_generator(args.ckpt)
    if args.each:
        args.each.mkdir(parents=True, exist_ok=True)
        for i, x in enumerate(generate(G, ckpt, args.n, args.seed)):
            write_image(args.each / f"{i:06d}.png", x)
        return
    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    # Figs. 5 to 7: a large sheet of samples, each of another generator
    sheet = SHEET[ckpt["args"]["arch"]]
    save_grid(out / sheet, generate(G, ckpt, 256, args.seed), n_cols=16)
    names = ["samples.png", sheet]

    # Fig. 3: the estimate over the steps of G, where the run's log lies beside its checkpoint
    log = args.ckpt.with_name("log.csv")
    if log.exists():
        step, estimate = read_log(log, ckpt["log_bytes"]).T
        table = np.column_stack([step, estimate, median_filter(step, estimate)])
        with TemporaryDirectory() as folder:
            np.savetxt(f"{folder}/fig3.csv", table, "%g", ",", comments="",
                       header="step,estimate,its median over 101 steps")
            save_curves(out / "fig3.png", f"{folder}/fig3.csv")
        names.append("fig3.png")
    print(f"wrote {', '.join(names)} to {out}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
