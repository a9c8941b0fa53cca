"""Figures of the pix2pix paper from a checkpoint of pix2pix/train.py, and your images translated.

    python pix2pix/sample.py                            from runs/pix2pix/ckpt.pt into its figures/
    python pix2pix/sample.py --ckpt path/to/ckpt.pt --out figures
    python pix2pix/sample.py --input photos --out translated     a file or a folder, of any size
    python pix2pix/sample.py --official latest_net_G.pth --input photos --out translated
    python pix2pix/sample.py --n 500 --each pngs        single files, of 500 held-out inputs
"""
import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_pairs, read_photos  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as it was saved, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args, c = ckpt["args"], ckpt["channels"]
        if ckpt["paper"] != "pix2pix":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], c, c, args["width"], args["net_g"] == "unet",
                      range(args["dropout"]))
        G.load_state_dict(ckpt["G"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run pix2pix/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of pix2pix ({type(e).__name__})")
    return G.requires_grad_(False), ckpt  # not eval(): dropout is G's noise, as in train.py


def official_names(k: int) -> dict[str, str]:
    """Of each tensor of a U-Net with k halvings: our name -> that in the authors' PyTorch code.

    Theirs is nested: block i has layer i of the encoder, block i + 1, and the decoder's k - 1 - i.
    """
    block = ["model.model" + ".1.model" * (i > 0) + ".3.model" * (i - 1) for i in range(k)]
    names = {"down.0.0.weight": f"{block[0]}.0.weight"}
    for i in range(k):
        ours, inner = f"up.{k - 1 - i}", i == k - 1  # the innermost block has no first norm
        conv, norm = (3, 4) if inner or i == 0 else (5, 6)
        names[f"{ours}.1.weight"] = f"{block[i]}.{conv}.weight"
        if i == 0:
            names[f"{ours}.1.bias"] = f"{block[i]}.{conv}.bias"
            continue
        names[f"down.{i}.1.weight"] = f"{block[i]}.1.weight"
        for kind in ("weight", "bias"):
            names[f"{ours}.2.{kind}"] = f"{block[i]}.{norm}.{kind}"
            if not inner:
                names[f"down.{i}.2.{kind}"] = f"{block[i]}.2.{kind}"
    return names


def load_official(path: Path) -> Generator:
    """G from latest_net_G.pth of the authors' PyTorch code, a U-Net with batch norm.

    The shapes tell its size, width and channels. Running averages are left out: its test does not
    use them either. Its dropout is one layer later than the paper's.
    """
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        width, c_in = theirs["model.model.0.weight"].shape[:2]
        c_out = len(theirs["model.model.3.bias"])
        k = sum(x.ndim == 4 for x in theirs.values()) // 2
        G = Generator(2 ** k, c_in, c_out, width, dropout=range(1, k - 4))
        G.load_state_dict({ours: theirs[name] for ours, name in official_names(k).items()})
    except FileNotFoundError:
        fail(f"no file at {path.resolve()}")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is no U-Net with batch norm of the authors' PyTorch code "
             f"({type(e).__name__})")
    if not {c_in, c_out} <= {1, 3}:
        fail(f"{path.resolve()} makes {c_out} channels of {c_in}; a picture has 1 or 3")
    return G.requires_grad_(False)


@torch.no_grad()
def translate(G: Generator, x: torch.Tensor) -> torch.Tensor:
    """G(x) of images (n, c, h, w) of any size: padded to what G takes, and cropped back."""
    h, w = x.shape[2:]
    dy, dx = -h % G.size, -w % G.size
    top, left = dy // 2, dx // 2
    reflects = dx - left < w and dy - top < h  # else there is too little to reflect
    x = F.pad(x, (left, dx - left, top, dy - top), "reflect" if reflects else "replicate")
    return G(x)[:, :, top:top + h, left:left + w]


def held_out(ckpt: dict, n: int, seed: int, **where) -> list[torch.Tensor]:
    """n inputs x and n targets y, by the seed, of the pairs that the run held out; where n is more
    than there are, all come once before one comes again."""
    run = ckpt["args"]
    options = {"data": run["data"], "root": run["data_root"], "skip_bad": run["skip_bad"],
               **{k: v for k, v in where.items() if v}}
    pairs = load_pairs(size=run["size"], split="test", **options)
    if pairs.channels != ckpt["channels"]:
        fail(f"{pairs.name} has {pairs.channels} channels, the run has {ckpt['channels']}")
    pairs = pairs.subset(max(0, len(pairs) - ckpt["n_held"]), len(pairs))
    draw = torch.Generator().manual_seed(seed)
    index = [torch.randperm(len(pairs), generator=draw) for _ in range(-(-n // len(pairs)))]
    a, b = pairs[torch.cat(index)[:n]]
    return [a, b] if run["direction"] == "AtoB" else [b, a]


def generate(G: Generator, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """G(x), (n, c, h, w) in [-1, 1], its dropout a function of the seed."""
    torch.manual_seed(seed)
    return torch.cat([translate(G, part) for part in x.split(50)])


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/pix2pix/ckpt.pt", help="the trained networks")
    p.add_argument("--official", type=Path, metavar="PTH", help="instead of --ckpt, a generator "
                   "published for the authors' PyTorch code, to use with --input")
    p.add_argument("--out", type=Path, help="folder for the figures, by default beside the ckpt; "
                   "or for the translations of --input")
    p.add_argument("--input", type=Path, help="your image, or folder of images, to translate")
    p.add_argument("--side", type=int, help="resize the input first, its shorter side to this")
    p.add_argument("--data", help="where the run's folder of pairs lies now")
    p.add_argument("--data-root", help="where the run's data set lies now")
    p.add_argument("--n", type=int, default=64, help="how many of the held-out inputs")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--seed", type=int, default=0, help="of the choice of inputs, and of dropout")
    args = p.parse_args(argv)
    for name in ("n", "side"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            fail(f"--{name} {getattr(args, name)}: looked for 1 or more")
    if args.input and not args.out or args.official and not args.input:
        fail("--input needs --out DIR, and --official needs both")
    if args.official:
        G = load_official(args.official)
    else:
        G, ckpt = load_generator(args.ckpt)
    if args.input:
        needs = 10 * G.down[0][0].out_channels  # bytes per pixel, measured
        for file, x in read_photos(args.input, args.out, G.c_in, args.side, needs):
            write_image(file, generate(G, x, args.seed)[0])  # the seed anew: none changes another
        return
    if args.each:
        x, _ = held_out(ckpt, args.n, args.seed, data=args.data, root=args.data_root)
        args.each.mkdir(parents=True, exist_ok=True)
        for i, y in enumerate(generate(G, x, args.seed)):
            write_image(args.each / f"{i:06d}.png", y)
        return
    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    x, y = ckpt["x_fixed"], ckpt["y_fixed"]
    rows = torch.stack([x, generate(G, x, ckpt["args"]["seed"]), y], 1)
    save_grid(out / "samples.png", rows.flatten(0, 1), n_cols=9, scale=2)  # as in the run's grids

    # Sec. 3.1: how much, or little, dropout varies: input | six outputs | target
    several = [generate(G, x[:6], seed) for seed in range(args.seed, args.seed + 6)]
    rows = torch.stack([x[:6], *several, y[:6]], 1)
    save_grid(out / "dropout.png", rows.flatten(0, 1), scale=2)
    change = torch.stack(several).std(0).mean().item() / 2
    print(f"wrote samples.png, dropout.png to {out}; by its dropout a value of an output varies by "
          f"{change:.2%} of its range, one standard deviation")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
