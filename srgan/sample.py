"""Figures of the SRGAN paper from a checkpoint of srgan/train.py, and your photographs enlarged.

    python srgan/sample.py                              from runs/srgan/ckpt.pt into its figures/
    python srgan/sample.py --ckpt path/to/ckpt.pt --out figures
    python srgan/sample.py --input photos --out large   a file or a folder, of any size
    python srgan/sample.py --table Set5 --out set5      shrunk, enlarged again, and compared
    python srgan/sample.py --n 500 --each pngs --real reals    single files, of held-out crops
"""
import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator, enlarge, psnr, shrink, ssim
from PIL import Image, ImageDraw, ImageFont
from torch import nn

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_crops, read_photos
from common.images import grid, save, save_grid, to_uint8

NAME = "srgan"
TILE = 128  # pixels of the low resolution that are enlarged at a time
COLUMNS = "low resolution", "bicubic", "SRResNet", "SRGAN", "original"


def settings(add) -> None:
    add("--input", type=Path, help="your image, or folder of images, to enlarge into --out")
    add("--srresnet", action="store_true", help="--input and --each: by SRResNet, which has the "
        "higher PSNR and less detail, instead of SRGAN")
    add("--table", type=Path, help="image, or folder of images, as Set5: PSNR and SSIM of what is "
        "made of them at low resolution, and pictures into --out")


def build(ckpt: dict) -> nn.ModuleDict:
    """Both networks, with batch norm's running averages, as in train.py's sample. Where the second
    stage had not begun, SRGAN is what it would have begun from."""
    run, nets = ckpt["args"], nn.ModuleDict()
    for name, key in (("SRResNet", "R"), ("SRGAN", "G")):
        nets[name] = Generator(ckpt["channels"], run["width"], run["n_blocks"], run["scale"])
        nets[name].load_state_dict(ckpt[key if ckpt["step"] > run["steps_mse"] else "R"])
    return nets.eval()


@torch.no_grad()
def upscale(net: Generator, x: torch.Tensor, tile: int = TILE) -> torch.Tensor:
    """net(x) of an image (1, c, h, w) of any size, as a file holds it: uint8 (c, scale h, scale w).
    Each tile brings along all that its pixels depend on, so there are no seams, and what the
    network needs does not grow with the image."""
    (c, h, w), s, reach = x[0].shape, net.scale, net.reach
    device, out = next(net.parameters()).device, torch.empty(c, h * s, w * s, dtype=torch.uint8)
    for top in range(0, h, tile):
        for left in range(0, w, tile):
            up, before = min(top, reach), min(left, reach)
            part = x[:, :, top - up:top + tile + reach, left - before:left + tile + reach]
            y = net(part.to(device))[0, :, up * s:, before * s:][:, :tile * s, :tile * s]
            out[:, top * s:(top + tile) * s, left * s:(left + tile) * s] = to_uint8(y)
    return out


def generate(net: Generator, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """net's enlargement of each x (n, c, h, w) once it is reduced, in [-1, 1]."""
    return (net(shrink(x, net.scale)).clamp(-1, 1) for x in parts)


def held_out(ckpt: dict, **reading) -> Data:
    """The pictures that the run did not train on."""
    run = ckpt["args"]
    data = load_crops(run["data"], run["size"], **reading)
    if data.channels != ckpt["channels"]:
        fail(f"{data.name} has {data.channels} channels, the run has {ckpt['channels']}")
    return data.subset(max(0, len(data) - ckpt["n_held"]), len(data))


def each(G: nn.ModuleDict, ckpt: dict, args: argparse.Namespace
         ) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures, of random crops of held-out pictures, by the seed."""
    data = held_out(ckpt, root=ckpt["args"]["data_root"], skip_bad=ckpt["args"]["skip_bad"],
                    device=ckpt["x_fixed"].device)
    net = G["SRResNet" if args.srresnet else "SRGAN"]
    pictures = (x for part in generate(net, data.batches(min(50, len(data)), args.seed))
                for x in part)
    return ((f"{i:06d}", x) for i, x in zip(range(args.n), pictures, strict=False))


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: of the held-out pictures the crops in the middle."""
    return held_out(ckpt, **reading)


@torch.no_grad()
def versions(G: nn.ModuleDict, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """COLUMNS of images x (n, c, h, w), whose sides are multiples of the scale: x itself, and what
    can be made of it at low resolution. [Fig. 2]"""
    s = G["SRGAN"].scale
    x_low = shrink(x, s)
    made = [torch.stack([upscale(net, one[None]) for one in x_low.cpu()]).to(x) / 127.5 - 1
            for net in G.values()]
    nearest = x_low.repeat_interleave(s, 2).repeat_interleave(s, 3)
    return dict(zip(COLUMNS, [nearest, enlarge(x_low, s), *made, x], strict=True))


def measures(shown: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the columns but the last, compared with it: PSNR and SSIM, (n, 4, 2)."""
    *made, x = shown.values()
    return torch.stack([torch.stack([psnr(y, x), ssim(y, x)], 1) for y in made], 1).cpu()


def figure(path: Path, rows: list[tuple[torch.Tensor, torch.Tensor]], scale: int) -> None:
    """Rows of pictures (5, c, h, w), and under each its measures (4, 2). [Fig. 2]"""
    strips = [grid(x, 5, scale=scale).convert("RGB") for x, _ in rows]
    sheet = Image.new("RGB", (strips[0].width, sum(s.height + 34 for s in strips)), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for strip, (_, values) in zip(strips, rows, strict=True):
        sheet.paste(strip, (0, top))
        top += strip.height + 34
        for i, name in enumerate(COLUMNS):
            text = f"{name}\n" + ("" if i == 4 else "{:.2f} dB / {:.3f}".format(*values[i]))
            draw.text(((i + 0.5) * strip.width / 5, top - 34), text, "black", font, "ma",
                      align="center")
    save(path, sheet)


def detail(shown: dict[str, torch.Tensor], side: int) -> torch.Tensor:
    """Of one image the columns' same window, (5, c, side, side): where bicubic is farthest off."""
    off = (shown["bicubic"] - shown["original"]).square().mean(1, keepdim=True)
    side = min(side, *off.shape[2:])
    where = F.avg_pool2d(off, side, 1).flatten().argmax().item()
    top, left = divmod(where, off.shape[3] - side + 1)
    return torch.cat(list(shown.values()))[:, :, top:top + side, left:left + side]


def show(names: list[str], values: torch.Tensor, scale: int) -> None:
    """Prints a row of measures (n, 4, 2) for each name, and their mean."""
    wide = max(map(len, [*names, "mean"]))
    print("dB / SSIM".ljust(wide), *(name.rjust(16) for name in COLUMNS[:4]))
    for name, row in zip([*names, "mean"], [*values, values.mean(0)], strict=True):
        print(name.ljust(wide), *("{:.2f} / {:.4f}".format(*v).rjust(16) for v in row))
    print(f"x{scale}, of sides cut to multiples of it; Y of BT.601 in 16..235, without 4 pixels of "
          "each border")


def figures(G: nn.ModuleDict, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    if ckpt["step"] <= ckpt["args"]["steps_mse"]:
        print("the second stage has not begun: what is called SRGAN is SRResNet")
    if args.srresnet and not args.input:
        fail("--srresnet goes with --input or --each: all other pictures show both networks")
    if args.input or args.table:
        if not args.out or args.input and args.table:
            fail("--input or --table, one of them, and --out DIR for what is made")
        return (enlarge_all if args.input else compare_all)(G, ckpt, args)
    x = ckpt["x_fixed"]
    shown = versions(G, x)
    pictures, values = torch.stack(list(shown.values()), 1), measures(shown)
    save_grid(out / "samples.png", pictures.flatten(0, 1), n_cols=10, scale=2)  # as the run's own
    scale = max(2, 192 // x.shape[3])  # a caption takes some 190 pixels
    figure(out / "fig2.png", list(zip(pictures[:4], values[:4], strict=True)), scale)
    show([f"crop {i}" for i in range(len(x))], values, G["SRGAN"].scale)
    print(f"wrote samples.png, fig2.png to {out}")


def new_png(file: Path, made: set[Path]) -> Path:
    """file with the suffix .png; of a.jpg beside a.png, a.jpg.png."""
    png = file.with_suffix(".png")
    made.add(png := file.with_name(f"{file.name}.png") if png in made else png)
    return png


def enlarge_all(G: nn.ModuleDict, ckpt: dict, args: argparse.Namespace) -> None:
    """--input: PNGs, whatever the photographs are; transparency on white."""
    name = "SRResNet" if args.srresnet else "SRGAN"
    net, made = G[name], set()
    mode = "grey" if ckpt["channels"] == 1 else "RGB"
    print(f"x{net.scale} by {name}: PNG, {mode} of 8 bits, white where a picture is transparent")
    size = 40 + 10 * net.scale ** 2  # bytes for each pixel: itself, and what is made of it
    for file, x in read_photos(args.input, args.out, ckpt["channels"], bytes_per_pixel=size):
        write_image(new_png(file, made), upscale(net, x))


def compare_all(G: nn.ModuleDict, ckpt: dict, args: argparse.Namespace) -> None:
    """--table: each image, cut to multiples of the scale, in all COLUMNS."""
    s, names, values, made = G["SRGAN"].scale, [], [], set()
    for file, x in read_photos(args.table, args.out, ckpt["channels"], bytes_per_pixel=400):
        h, w = (side // s * s for side in x.shape[2:])
        if min(h, w) < 20:
            fail(f"{file.name}: {w}x{h} pixels; SSIM needs 20 and more")
        shown = versions(G, x[:, :, :h, :w])
        names.append(file.name)
        values.append(measures(shown))
        figure(new_png(file, made), [(detail(shown, 96), values[-1][0])], scale=2)
    show(names, torch.cat(values), s)


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
