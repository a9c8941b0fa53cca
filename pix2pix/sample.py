"""Figures of the pix2pix paper from a checkpoint of pix2pix/train.py, and your images translated.

    python pix2pix/sample.py                            from runs/pix2pix/ckpt.pt into its figures/
    python pix2pix/sample.py --ckpt path/to/ckpt.pt --out figures
    python pix2pix/sample.py --input photos --out translated     a file or a folder, of any size
    python pix2pix/sample.py --official latest_net_G.pth --input photos --out translated
    python pix2pix/sample.py --n 500 --each pngs --real targets  single files, of held-out pairs
"""
import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_pairs, read_photos
from common.images import save_grid

NAME = "pix2pix"


def settings(add) -> None:
    add("--input", type=Path, help="your image, or folder of images, to translate into --out")
    add("--side", type=int, help="resize the input first, its shorter side to this")
    add("--official", type=Path, dest="ckpt", metavar="PTH", default=argparse.SUPPRESS,
        help="instead of --ckpt, a U-Net saved by the authors' PyTorch code, to use with --input")


def build(ckpt: dict) -> Generator:
    """G as it was saved. No eval() follows: dropout is G's noise, as in train.py."""
    if "paper" not in ckpt:
        return official(ckpt)
    run, c = ckpt["args"], ckpt["channels"]
    G = Generator(run["size"], c, c, run["width"], run["net_g"] == "unet", range(run["dropout"]))
    G.load_state_dict(ckpt["G"])
    return G


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


def official(theirs: dict) -> Generator:
    """G from latest_net_G.pth of the authors' PyTorch code, a U-Net with batch norm.

    The shapes tell its size, width and channels. Running averages are left out: its test does not
    use them either. Its dropout, on in its test too, is one layer later than the paper's.
    """
    if "model.1.weight" in theirs:
        fail("--official: this is a ResNet; cyclegan/sample.py takes those with instance norm")
    width, c_in = theirs["model.model.0.weight"].shape[:2]
    c_out = len(theirs["model.model.3.bias"])
    if not {c_in, c_out} <= {1, 3}:
        fail(f"--official: this U-Net makes {c_out} channels of {c_in}; a picture has 1 or 3")
    if "model.model.1.model.2.weight" not in theirs:
        fail("--official: this U-Net has instance norm; looked for one with batch norm")
    k = sum(x.ndim == 4 for x in theirs.values()) // 2
    G = Generator(2 ** k, c_in, c_out, width, dropout=range(1, k - 4))
    G.load_state_dict({ours: theirs[name] for ours, name in official_names(k).items()})
    theirs["args"] = dict.fromkeys(["data", "data_root", "skip_bad"])  # of a run that we know
    return G


@torch.no_grad()
def translate(G: Generator, x: torch.Tensor) -> torch.Tensor:
    """G(x) of images (n, c, h, w) of any size: padded to what G takes, and cropped back."""
    h, w = x.shape[2:]
    dy, dx = -h % G.size, -w % G.size
    top, left = dy // 2, dx // 2
    reflects = dx - left < w and dy - top < h  # else there is too little to reflect
    x = F.pad(x, (left, dx - left, top, dy - top), "reflect" if reflects else "replicate")
    return G(x)[:, :, top:top + h, left:left + w]


def generate(G: Generator, parts: Iterable[torch.Tensor], seed: int = 0) -> Iterator[torch.Tensor]:
    """G(x) of each x (n, c, h, w), in [-1, 1], the dropout a function of the seed."""
    torch.manual_seed(seed)
    return (translate(G, x) for x in parts)


def known(ckpt: dict) -> None:
    if "x_fixed" not in ckpt:
        fail("--official goes with --input and --out: no data are known of that generator")


def held_out(ckpt: dict) -> Data:
    """The pairs that the run did not train on."""
    known(ckpt)
    run = ckpt["args"]
    pairs = load_pairs(run["data"], run["size"], split="test", root=run["data_root"],
                       device=ckpt["x_fixed"].device, skip_bad=run["skip_bad"])
    if pairs.channels != ckpt["channels"]:
        fail(f"{pairs.name} has {pairs.channels} channels, the run has {ckpt['channels']}")
    return pairs.subset(max(0, len(pairs) - ckpt["n_held"]), len(pairs))


def some_held_out(ckpt: dict, n: int, seed: int) -> Iterator[list[torch.Tensor]]:
    """n of them by the seed, as [x, y], 50 at a time; where n is more than there are, all come once
    before one comes again."""
    pairs, draw = held_out(ckpt), torch.Generator().manual_seed(seed)
    index = [torch.randperm(len(pairs), generator=draw) for _ in range(-(-n // len(pairs)))]
    for part in torch.cat(index)[:n].split(50):
        a, b = pairs[part]
        yield [a, b] if ckpt["args"]["direction"] == "AtoB" else [b, a]


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures, of held-out inputs."""
    parts = (x for x, _ in some_held_out(ckpt, args.n, args.seed))
    pictures = (y for part in generate(G, parts, args.seed) for y in part)
    return ((f"{i:06d}", y) for i, y in enumerate(pictures))


class Targets:
    """Of pairs the second picture, or with BtoA the first."""

    def __init__(self, pairs: Data, direction: str):
        self.pairs, self.half = pairs, int(direction == "AtoB")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index) -> torch.Tensor:
        return self.pairs[index][self.half]


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Targets:
    """For --real: what the pictures of --each should look like."""
    return Targets(held_out(ckpt), ckpt["args"]["direction"])


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    if args.input:
        if not args.out or args.side is not None and args.side < 1:
            fail("--input needs --out DIR, and of --side a number of pixels, 1 or more")
        first, device = G.down[0][0], next(G.parameters()).device
        needs = 10 * first.out_channels  # bytes per pixel, measured
        for file, x in read_photos(args.input, args.out, first.in_channels, args.side, needs):
            y, = generate(G, [x.to(device)], args.seed)  # the seed anew: none changes another
            write_image(file, y[0])
        return
    known(ckpt)
    if args.side:
        fail(f"--side {args.side} goes with --input")
    x, y = ckpt["x_fixed"], ckpt["y_fixed"]
    y_fake, = generate(G, [x], ckpt["args"]["seed"])
    save_grid(out / "samples.png", torch.stack([x, y_fake, y], 1).flatten(0, 1), n_cols=9, scale=2)

    # Sec. 3.1: how much, or little, dropout varies: input | six outputs | target
    several = [y for seed in range(args.seed, args.seed + 6) for y in generate(G, [x[:6]], seed)]
    rows = torch.stack([x[:6], *several, y[:6]], 1)
    save_grid(out / "dropout.png", rows.flatten(0, 1), scale=2)
    change = torch.stack(several).std(0).mean().item() / 2
    print(f"wrote samples.png, dropout.png to {out}; by its dropout a value of an output varies by "
          f"{change:.2%} of its range, one standard deviation")


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
