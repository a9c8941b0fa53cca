"""Figures of the CycleGAN paper, and translations of your own images, from a checkpoint.

    python cyclegan/sample.py                       from runs/cyclegan/ckpt.pt into its figures/
    python cyclegan/sample.py --ckpt path/to/ckpt.pt --out figures
    python cyclegan/sample.py --input photo.jpg --out translated            by G, from A to B
    python cyclegan/sample.py --input folder --direction BtoA --out translated        by F
    python cyclegan/sample.py --official latest_net_G.pth --input folder --out translated
    python cyclegan/sample.py --n 100 --each pngs   100 test images, translated, as single files

--official takes a generator that was published with the authors' PyTorch code.
"""
import argparse
import sys
from pathlib import Path

import torch
from model import Generator
from torch.nn.functional import pad

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail, load_unpaired, read_photos  # noqa: E402
from common.images import save_grid, write_image  # noqa: E402


def load_generators(path: Path) -> tuple[Generator, Generator, dict]:
    """G: X -> Y and F: Y -> X as they were saved, and their checkpoint."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args, (c_x, c_y) = ckpt["args"], ckpt["channels"]
        if ckpt["paper"] != "cyclegan":
            raise ValueError(ckpt["paper"])
        G = Generator(c_x, c_y, args["width"], args["n_blocks"])
        F = Generator(c_y, c_x, args["width"], args["n_blocks"])
        G.load_state_dict(ckpt["G"])
        F.load_state_dict(ckpt["F"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run cyclegan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of cyclegan ({type(e).__name__})")
    return G.requires_grad_(False), F.requires_grad_(False), ckpt


def load_official(path: Path) -> Generator:
    """A ResNet generator as junyanz/pytorch-CycleGAN-and-pix2pix saves it; our layers are in the
    order of theirs. Old files hold averages that its instance normalisation never uses; with
    dropout, the second convolution of a block has the number 6 instead of 5."""
    ours = {"model.": "net.", ".conv_block.": ".net.", ".net.6.": ".net.5."}
    try:
        state = {}
        for key, value in torch.load(path, map_location="cpu", weights_only=True).items():
            for theirs, name in ours.items():
                key = key.replace(theirs, name)
            if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
                state[key] = value
        weights = [value for key, value in state.items() if key.endswith("weight")]
        (width, c_in), c_out = weights[0].shape[:2], len(weights[-1])
        if not {c_in, c_out} <= {1, 3}:
            raise ValueError(f"{c_in} -> {c_out} channels")
        G = Generator(c_in, c_out, width, n_blocks=(len(weights) - 6) // 2)
        G.load_state_dict(state)
    except FileNotFoundError:
        fail(f"--official: there is no file {path.resolve()}")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no ResNet generator of the authors' PyTorch code "
             f"({type(e).__name__})")
    return G.requires_grad_(False)


def translate(net: Generator, x: torch.Tensor) -> torch.Tensor:
    """net(x) for images (n, c, h, w) in [-1, 1] of any size: reflected at the right and at the
    bottom to what net takes, multiples of 4 from 8 on, and cropped back."""
    h, w = x.shape[2:]
    down, right = (max(8, -(-side // 4) * 4) - side for side in (h, w))
    mode = "reflect" if down < h and right < w else "replicate"  # a mirror needs enough to show
    return net(pad(x, (0, right, 0, down), mode))[:, :, :h, :w]


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/cyclegan/ckpt.pt", help="trained networks")
    p.add_argument("--official", type=Path, help="a published generator, instead of --ckpt")
    p.add_argument("--input", type=Path, help="an image or a folder of them, to be translated")
    p.add_argument("--direction", default="AtoB", choices=("AtoB", "BtoA"),
                   help="by G or by F, of --ckpt; A is X, trainA/")
    p.add_argument("--side", type=int, help="resize --input first, its shorter side to this: "
                   "networks know things at the scale of their training")
    p.add_argument("--out", type=Path, help="folder for the figures, by default beside the ckpt; "
                   "or for the translations of --input")
    p.add_argument("--data", help="where the run's folder lies now, for --each")
    p.add_argument("--data-root", help="where the run's data set lies now, for --each")
    p.add_argument("--n", type=int, default=64, help="how many test images, with --each")
    p.add_argument("--each", type=Path, help="folder for translations of --n test images")
    p.add_argument("--seed", type=int, default=0, help="of the choice of test images")
    args = p.parse_args(argv)
    for name in ("n", "side"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            fail(f"--{name} {getattr(args, name)}: looked for 1 or more")
    if args.input and not args.out or args.official and not args.input:
        fail("--input FILE or FOLDER needs --out DIR, and --official needs both")
    if args.official:
        net = load_official(args.official)
    else:
        G, F, ckpt = load_generators(args.ckpt)
        net, half = (G, 0) if args.direction == "AtoB" else (F, 1)
    if args.input:
        first = net.net[1]
        needs = 16 * first.out_channels  # bytes per pixel, measured
        for file, x in read_photos(args.input, args.out, first.in_channels, args.side, needs):
            write_image(file, translate(net, x)[0])
        return
    if args.each:
        run = ckpt["args"]
        data = load_unpaired(args.data or run["data"], run["size"], split=ckpt["split"],
                             root=args.data_root or run["data_root"],
                             skip_bad=run["skip_bad"])[half]
        if data.channels != ckpt["channels"][half]:
            fail(f"{data.name} has {data.channels} channels, the run {ckpt['channels'][half]}")
        torch.manual_seed(args.seed)
        chosen = torch.randperm(len(data))[:args.n]
        args.each.mkdir(parents=True, exist_ok=True)
        for i, x in enumerate(data[chosen]):
            write_image(args.each / f"{i:06d}.png", net(x[None])[0])
        print(f"wrote {len(chosen)} of {len(data)} {ckpt['split']} images, {args.direction}, to "
              f"{args.each}")
        return

    out = args.out or args.ckpt.parent / "figures"
    out.mkdir(parents=True, exist_ok=True)
    x, y = ckpt["x_fixed"], ckpt["y_fixed"]
    y_fake, x_fake = G(x), F(y)
    columns = x, y_fake, F(y_fake), y, x_fake, G(x_fake)  # Fig. 4, both ways
    c = max(ckpt["channels"])  # a grey one beside one in colour
    columns = torch.stack([column.expand(-1, c, -1, -1) for column in columns])
    save_grid(out / "samples.png", columns.transpose(0, 1).flatten(0, 1), n_cols=6, scale=2)
    save_grid(out / "generated.png", columns[[1, 2, 4, 5]].flatten(0, 1), n_cols=len(x), scale=2,
              captions=["G(x)", "F(G(x))", "F(y)", "G(F(y))"])  # no image of the data
    print(f"wrote samples.png and generated.png to {out}")


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
