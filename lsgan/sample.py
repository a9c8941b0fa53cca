"""Figures of the LSGAN paper, from a checkpoint of lsgan/train.py.

    python lsgan/sample.py                          from runs/lsgan/ckpt.pt into runs/lsgan/figures/
    python lsgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python lsgan/sample.py --n 10000 --each pngs    10,000 single files, for the usual FID tools
"""
import argparse
import sys
from pathlib import Path

import torch
from model import Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "lsgan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["width"],
                      not args["no_bn"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run lsgan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of lsgan ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt  # eval: batch norm's running averages, as train.py


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), uniform in (-1, 1), as in train.py."""
    return torch.rand(n, z_dim) * 2 - 1


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed)."""
    torch.manual_seed(seed)
    return torch.cat([G(z) for z in sample_z(n, ckpt["args"]["z_dim"]).split(250)])


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/lsgan/ckpt.pt", help="the trained networks")
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

    # The interpolation figure: each row from one random point to another
    torch.manual_seed(args.seed)
    ends = sample_z(16, ckpt["args"]["z_dim"]).unflatten(0, (8, 2))
    rows = [torch.lerp(a, b, t) for a, b in ends for t in torch.linspace(0, 1, 10)]
    save_grid(out / "interpolation.png", G(torch.stack(rows)), n_cols=10, scale=2)
    print(f"wrote samples.png, interpolation.png to {out}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
