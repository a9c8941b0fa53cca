"""Figures of the DCGAN paper, from a checkpoint of dcgan/train.py.

    python dcgan/sample.py                          from runs/dcgan/ckpt.pt into runs/dcgan/figures/
    python dcgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python dcgan/sample.py --vectors 4 17 32  8 9 51  0 3 77    Fig. 7 by numbers in candidates.png
    python dcgan/sample.py --n 10000 --each pngs    10,000 single files, for the usual FID tools
"""
import argparse
import sys
from pathlib import Path

import torch
from model import Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_attributes  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402

# Fig. 7 with the drawn faces: A - B + C should wear glasses and not smile
CONCEPTS = [dict(zip(("glasses", "smiling"), on, strict=True)) for on in ((1, 1), (0, 1), (0, 0))]


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "dcgan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["width"])
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run dcgan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of dcgan ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt  # eval: batch norm's running averages, as train.py


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), uniform in (-1, 1), as in train.py."""
    return torch.rand(n, z_dim) * 2 - 1


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0) -> torch.Tensor:
    """n images (n, c, h, w) in [-1, 1], a function of (G, n, seed)."""
    torch.manual_seed(seed)
    return torch.cat([G(z) for z in sample_z(n, ckpt["args"]["z_dim"]).split(250)])


def judge(x: torch.Tensor, faces) -> torch.Tensor:
    """Scores (n, n_attributes) of images (n, c, h, w), > 0 where an attribute seems present.

    A ridge regression from the pixels of 4,000 drawn faces to their known attributes [ours].
    """
    pixels, a = faces[:4000]
    X = torch.cat([pixels.flatten(1), torch.ones(len(pixels), 1)], 1)
    W = torch.linalg.solve(X.T @ X + 30 * torch.eye(X.shape[1]), X.T @ (2 * a - 1))
    return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1) @ W


def exemplars(scores: torch.Tensor, names: list[str], concept: dict[str, int]) -> list[int]:
    """The three samples that show a concept most clearly: its weakest attribute is strongest."""
    sides = [scores[:, names.index(k)] * (1 if v else -1) for k, v in concept.items()]
    return torch.stack(sides).amin(0).topk(3).indices.tolist()


def arithmetic(G: Generator, z: torch.Tensor, picks: list[int]) -> torch.Tensor:
    """Fig. 7, (24, c, h, w), 8 a row: of A, B and C the three exemplars and the picture of their
    mean z; then, three a row, nine of A - B + C, its own in the middle, the others near it."""
    z = z[picks].unflatten(0, (3, 3))
    mean = z.mean(1)
    y = mean[0] - mean[1] + mean[2]
    noise = torch.rand(9, len(y)) * 0.5 - 0.25  # [Fig. 7: uniform, of scale +-0.25]
    noise[4] = 0
    left = G(torch.cat([z, mean[:, None]], 1).flatten(0, 1)).unflatten(0, (3, 4))
    right = G(y + noise).unflatten(0, (3, 3))
    return torch.cat([left, torch.ones_like(left[:, :1]), right], 1).flatten(0, 1)


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/dcgan/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--vectors", type=int, nargs=9, metavar="I",
                   help="Fig. 7: three samples each for A, B, C, by their number in candidates.png")
    p.add_argument("--n", type=int, default=64, help="how many samples")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    if args.vectors and not all(0 <= i < 100 for i in args.vectors):
        fail(f"--vectors {args.vectors}: candidates.png numbers its samples 0 to 99")
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

    # Fig. 4: from each of nine random points to the next
    torch.manual_seed(args.seed)
    ends = sample_z(9, run["z_dim"])
    rows = [torch.lerp(ends[i], ends[i + 1], t) for i in range(8) for t in torch.linspace(0, 1, 10)]
    save_grid(out / "fig4.png", G(torch.stack(rows)), n_cols=10, scale=2)

    # Fig. 7: the exemplars are the user's, or with the drawn faces those with known attributes
    z = sample_z(1000, run["z_dim"])
    x = torch.cat([G(part) for part in z.split(250)])
    captions = [f"{i}-{i + 9}" for i in range(0, 100, 10)]
    save_grid(out / "candidates.png", x[:100], n_cols=10, captions=captions, scale=2)
    picks, names = args.vectors, "ABC"
    if not picks and run["data"] == "faces":
        faces = load_attributes("faces", run["size"])
        scores = judge(x, faces)
        picks = [i for concept in CONCEPTS for i in exemplars(scores, faces.attributes, concept)]
        names = [", ".join(k if v else f"not {k}" for k, v in c.items()) for c in CONCEPTS]
    if picks:
        fig7 = arithmetic(G, z, picks)
        captions = [f"{sign} {name}" for sign, name in zip(" -+", names, strict=True)]
        save_grid(out / "fig7.png", fig7, captions=captions, scale=2)
    print(f"wrote samples.png, fig4.png, candidates.png{', fig7.png' if picks else ''} to {out}")
    if not args.vectors and picks:
        found = dict(zip(faces.attributes, judge(fig7[14:15], faces)[0].tolist(), strict=True))
        print("A - B + C by the linear judge:", *(f"{k} {found[k]:+.2f}" for k in CONCEPTS[0]))
    if not picks:
        print("for fig7.png pick three samples for each of A, B, C in candidates.png: --vectors")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
