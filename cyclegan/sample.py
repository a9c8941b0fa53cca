"""Figures of the CycleGAN paper, and translations of your own images, from a checkpoint.

    python cyclegan/sample.py                       from runs/cyclegan/ckpt.pt into its figures/
    python cyclegan/sample.py --ckpt path/to/ckpt.pt --out figures
    python cyclegan/sample.py --input photo.jpg --out translated            by G, from A to B
    python cyclegan/sample.py --input folder --direction BtoA --out translated        by F
    python cyclegan/sample.py --official latest_net_G.pth --input folder --out translated
    python cyclegan/sample.py --n 100 --each pngs --real reals    test images, as single files
"""
import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from model import Generator
from torch.nn.functional import pad

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_unpaired, read_photos
from common.images import save_grid

NAME = "cyclegan"


def settings(add) -> None:
    add("--input", type=Path, help="an image, or a folder of them, to translate into --out")
    add("--direction", default="AtoB", choices=("AtoB", "BtoA"), help="by G or by F, with --input, "
        "--each and --real; A is X, trainA/")
    add("--side", type=int, help="resize the input first, its shorter side to this: networks know "
        "things at the scale of their training")
    add("--official", type=Path, dest="ckpt", metavar="PTH", default=argparse.SUPPRESS,
        help="instead of --ckpt, a ResNet saved by the authors' PyTorch code, to use with --input")


def build(ckpt: dict) -> torch.nn.ModuleDict:
    """G: X -> Y and F: Y -> X as they were saved, by their directions."""
    if "paper" not in ckpt:
        return official(ckpt)
    run, (c_x, c_y) = ckpt["args"], ckpt["channels"]
    G = Generator(c_x, c_y, run["width"], run["n_blocks"])
    F = Generator(c_y, c_x, run["width"], run["n_blocks"])
    G.load_state_dict(ckpt["G"])
    F.load_state_dict(ckpt["F"])
    return torch.nn.ModuleDict({"AtoB": G, "BtoA": F})


def official(theirs: dict) -> torch.nn.ModuleDict:
    """A ResNet generator as junyanz/pytorch-CycleGAN-and-pix2pix saves it; our layers are in the
    order of theirs. Old files hold averages that its instance normalisation never uses. With
    dropout, the second convolution of a block has the number 6 instead of 5; it is left out here,
    as their test of CycleGAN does.
    """
    if any(key.startswith("model.model.") for key in theirs):
        fail("--official: this is a U-Net; pix2pix/sample.py takes those with batch norm")
    ours = {"model.": "net.", ".conv_block.": ".net.", ".net.6.": ".net.5."}
    state = {}
    for key, value in theirs.items():
        for old, new in ours.items():
            key = key.replace(old, new)
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            state[key] = value
    weights = [value for key, value in state.items() if key.endswith("weight")]
    if any(value.ndim == 1 for value in weights):
        fail("--official: this ResNet has batch norm; looked for instance norm, CycleGAN's")
    (width, c_in), c_out = weights[0].shape[:2], len(weights[-1])
    if not {c_in, c_out} <= {1, 3}:
        fail(f"--official: this ResNet makes {c_out} channels of {c_in}; a picture has 1 or 3")
    net = Generator(c_in, c_out, width, n_blocks=(len(weights) - 6) // 2)
    net.load_state_dict(state)
    theirs["args"] = dict.fromkeys(["data", "data_root", "skip_bad"])  # of a run that we know
    return torch.nn.ModuleDict({"AtoB": net, "BtoA": net})


@torch.no_grad()
def translate(net: Generator, x: torch.Tensor) -> torch.Tensor:
    """net(x) for images (n, c, h, w) in [-1, 1] of any size: reflected at the right and at the
    bottom to what net takes, multiples of 4 from 8 on, and cropped back."""
    h, w = x.shape[2:]
    down, right = (max(8, -(-side // 4) * 4) - side for side in (h, w))
    mode = "reflect" if down < h and right < w else "replicate"  # a mirror needs enough to show
    return net(pad(x, (0, right, 0, down), mode))[:, :, :h, :w]


def known(ckpt: dict) -> None:
    if "x_fixed" not in ckpt:
        fail("--official goes with --input and --out: no data are known of that generator")


def held_out(ckpt: dict) -> tuple[Data, Data]:
    """The test images of X and of Y, where the run's data have any."""
    known(ckpt)
    run = ckpt["args"]
    sets = load_unpaired(run["data"], run["size"], split="test", root=run["data_root"],
                         device=ckpt["x_fixed"].device, skip_bad=run["skip_bad"])
    if (channels := [data.channels for data in sets]) != ckpt["channels"]:
        fail(f"{sets[0].name} has {channels} channels, the run {ckpt['channels']}")
    return sets


def each(nets: torch.nn.ModuleDict, ckpt: dict,
         args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures, of test images chosen by the seed, each once."""
    x = held_out(ckpt)[int(args.direction == "BtoA")]
    torch.manual_seed(args.seed)
    chosen = torch.randperm(len(x))[:args.n].tolist()
    return ((f"{i:06d}", translate(nets[args.direction], x[[k]])[0]) for i, k in enumerate(chosen))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: test images of the other set, what those of --each should look like."""
    return held_out(ckpt)[int(args.direction == "AtoB")]


def figures(nets: torch.nn.ModuleDict, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    if args.input:
        if not args.out or args.side is not None and args.side < 1:
            fail("--input needs --out DIR, and of --side a number of pixels, 1 or more")
        net = nets[args.direction]
        first, device = net.net[1], next(net.parameters()).device
        needs = 16 * first.out_channels  # bytes per pixel, measured
        for file, x in read_photos(args.input, args.out, first.in_channels, args.side, needs):
            write_image(file, translate(net, x.to(device))[0])
        return
    known(ckpt)
    if args.side:
        fail(f"--side {args.side} goes with --input")
    G, F, x, y = nets["AtoB"], nets["BtoA"], ckpt["x_fixed"], ckpt["y_fixed"]
    y_fake, x_fake = G(x), F(y)
    columns = x, y_fake, F(y_fake), y, x_fake, G(x_fake)  # Fig. 4, both ways
    c = max(ckpt["channels"])  # a grey one beside one in colour
    columns = torch.stack([column.expand(-1, c, -1, -1) for column in columns])
    save_grid(out / "samples.png", columns.transpose(0, 1).flatten(0, 1), n_cols=6, scale=2)
    save_grid(out / "generated.png", columns[[1, 2, 4, 5]].flatten(0, 1), n_cols=len(x), scale=2,
              captions=["G(x)", "F(G(x))", "F(y)", "G(F(y))"])  # no image of the data
    print(f"wrote samples.png, generated.png to {out}")


# ----------------------------------------------------------------------------------------------
# Loading and flags. The same text in every folder: whoever edits it in dcgan/sample.py copies it to
# the others with `python tests/copy_run.py`.

import zipfile

from common.data import BadFile, fail
from common.images import write_image


def load_generator(path: Path | str, device: str = "cpu") -> tuple[Generator, dict]:
    """G, and its checkpoint on the device. No flag of the training run is needed again."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():
            raise ValueError  # torch does not look at its checksums
        ckpt = torch.load(path, map_location=device, weights_only=True)
        if (paper := ckpt.get("paper", NAME)) == NAME:
            G = build(ckpt).to(device).requires_grad_(False)
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run {NAME}/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of ours ({type(e).__name__})")
    if paper != NAME:
        fail(f"{path.resolve()} is a checkpoint of {paper}: {paper}/sample.py reads it")
    if not all(p.isfinite().all() for p in G.parameters()):
        fail(f"{path.resolve()} holds weights that are not finite")
    return G, ckpt


def write_all(folder: Path, pictures: Iterator[tuple[str, torch.Tensor]]) -> None:
    """One by one, into a folder without pictures: two models in one would spoil any metric."""
    if any(path.suffix.lower() == ".png" for path in folder.glob("*")):
        fail(f"{folder.resolve()} has pictures already: name another folder")
    n = 0
    for name, x in pictures:
        write_image(folder / f"{name}.png", x)
        n += 1
    print(f"wrote {n:,} to {folder}")


def real_pictures(data: Data, n: int, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """n of the set, or all if there are fewer, chosen by the seed."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n]
    return ((f"{i:06d}", data[[i]][0]) for i in chosen.sort().values.tolist())


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    settings(p.add_argument)
    p.add_argument("--ckpt", type=Path, default=f"runs/{NAME}/ckpt.pt", help="the trained networks")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--frames", type=int, default=60, help="of films")
    p.add_argument("--n", type=int, default=64, help="how many single pictures")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--real", type=Path, help="folder for --n images of the run's data, likewise")
    p.add_argument("--data", help="where the run's folder of data lies now")
    p.add_argument("--data-root", help="where downloaded sets are kept now")
    p.add_argument("--skip-bad", action="store_true", help="leave the data's unreadable images out")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--device", default=str(best), help="cuda, mps or cpu; the best there is")
    args = p.parse_args(argv)
    for name, low in (("n", 1), ("frames", 2), ("seed", 0)):
        if not low <= getattr(args, name) < 2**32:
            fail(f"--{name} {getattr(args, name)}: looked for {low} or more, below {2**32}")
    for name, value in vars(args).items():
        if isinstance(value, float) and not abs(value) < float("inf"):
            fail(f"--{name.replace('_', '-')} {value}: looked for a number")
    if (args.each or args.real) and vars(args).get("input"):
        fail("--input writes to --out: leave --each and --real away")
    try:
        torch.zeros(1, device=args.device).item()
    except Exception as e:  # each backend raises its own kinds
        fail(f"--device {args.device}: {str(e).splitlines()[0]}")
    G, ckpt = load_generator(args.ckpt, args.device)
    run = ckpt["args"]
    run.update({k: v for k in ("data", "data_root", "skip_bad") if (v := getattr(args, k))})
    if args.each:
        write_all(args.each, each(G, ckpt, args))
    if args.real:
        data = real(ckpt, args, root=run["data_root"], skip_bad=run["skip_bad"])
        write_all(args.real, real_pictures(data, args.n, args.seed))
    if not (args.each or args.real):
        out = args.out or args.ckpt.parent / "figures"
        figures(G, ckpt, args, out)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name
    try:
        main()
    except (BadFile, OSError) as e:  # a folder that cannot be written, a full disk, a broken file
        fail(f"{e}: mend that, or change --out, --each or --real")
