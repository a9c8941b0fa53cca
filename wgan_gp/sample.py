"""Samples of WGAN-GP, from a checkpoint of wgan_gp/train.py. Fig. 1 is drawn by wgan_gp/toy.py.

    python wgan_gp/sample.py                        from runs/wgan_gp/ckpt.pt into its figures/
    python wgan_gp/sample.py --ckpt path/to/ckpt.pt --out figures
    python wgan_gp/sample.py --held-out digits      and the critic's estimate on unseen images
    python wgan_gp/sample.py --n 10000 --each pngs  10,000 single files, for the usual FID tools
"""
import argparse
import sys
from pathlib import Path

import torch
from model import Critic, Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_images  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "wgan_gp":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["width"], args["arch"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run wgan_gp/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of wgan_gp ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt  # eval: batch norm's running averages, as train.py


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim)


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed)."""
    torch.manual_seed(seed)
    return torch.cat([G(z) for z in sample_z(n, ckpt["args"]["z_dim"]).split(250)])


def load_critic(ckpt: dict) -> Critic:
    """The critic as it was saved."""
    args = ckpt["args"]
    D = Critic(args["size"], ckpt["channels"], args["width"], args["arch"])
    D.load_state_dict(ckpt["D"])
    return D.requires_grad_(False)


def score(D: Critic, x: torch.Tensor) -> float:
    """E[D(x)] over images (n, c, h, w)."""
    return torch.cat([D(part) for part in x.split(250)]).mean().item()


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/wgan_gp/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--held-out", metavar="DATA", help="Fig. 5b at this step: the critic's estimate "
                   "on the test images of a named set, or on those of a folder")
    p.add_argument("--data-root", help="where the run's data set lies now")
    p.add_argument("--n", type=int, default=64, help="how many samples")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    G, ckpt = load_generator(args.ckpt)
    run = ckpt["args"]
    if args.each:
        args.each.mkdir(parents=True, exist_ok=True)
        for i, x in enumerate(generate(G, ckpt, args.n, args.seed)):
            write_image(args.each / f"{i:06d}.png", x)
        return
    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    save_grid(out / "samples.png", G(ckpt["z_fixed"]), scale=2)  # as in the run's own grids

    # From one random point to another, on the arc between them: a mean of two normal z is shorter
    torch.manual_seed(args.seed)
    ends = sample_z(16, run["z_dim"]).unflatten(0, (8, 2))
    angles = torch.linspace(0, torch.pi / 2, 10)
    rows = [a * t.cos() + b * t.sin() for a, b in ends for t in angles]
    save_grid(out / "walk.png", G(torch.stack(rows)), n_cols=10, scale=2)
    print(f"wrote samples.png, walk.png to {out}")

    if args.held_out:
        load = dict(root=args.data_root or run["data_root"], skip_bad=run["skip_bad"])
        seen = load_images(run["data"], run["size"], **load)
        unseen = load_images(args.held_out, run["size"], split="test", **load)
        if unseen.channels != ckpt["channels"]:
            fail(f"--held-out {args.held_out} has {unseen.channels} channels, the run has "
                 f"{ckpt['channels']}")
        D = load_critic(ckpt)
        fake = score(D, generate(G, ckpt, 5000, args.seed))
        values = [f"{score(D, x[:5000]) - fake:.3f} on {min(len(x), 5000):,} {name} images"
                  for x, name in ((seen, "training"), (unseen, "held-out"))]
        print(f"E[D(x)] - E[D(G(z))] at step {ckpt['step']}: {', '.join(values)}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
