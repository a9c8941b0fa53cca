r"""Figures of the StarGAN paper, and translations of your own images, from a checkpoint.

    python stargan/sample.py                       from runs/stargan/ckpt.pt into its figures/
    python stargan/sample.py --ckpt path/to/ckpt.pt --out figures
    python stargan/sample.py --input photo.jpg --out translated         into every domain
    python stargan/sample.py --input folder --set hair=red,smiling=1 --out translated
    python stargan/sample.py --official 200000-G.ckpt --input folder --out translated \
        --set hair=blond,male=0,young=1        by the authors' weights
    python stargan/sample.py --n 100 --each pngs --real reals    test images, as single files
"""
import argparse
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from model import Discriminator, Generator, change, groups, join
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate, one_hot, pad

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import NAMES, SPLITS, Data, load_images, place, read_photos
from common.images import save_grid

NAME = "stargan"
CELEBA = [["Black_Hair", "Blond_Hair", "Brown_Hair"], ["Male"], ["Young"]]
RAFD = ["angry contemptuous disgusted fearful happy neutral sad surprised".split()]
OFFICIAL = {5: [CELEBA], 8: [RAFD], 15: [CELEBA, RAFD]}  # labels of G -> the authors' domains


def settings(add) -> None:
    add("--input", type=Path, help="an image, or a folder of them, to translate into --out")
    add("--set", dest="wish", metavar="WISH", help="of --input and --each the domains, as "
        "hair=red,smiling=1,glasses=0; without it each domain alone")
    add("--side", type=int, help="resize the input first, its shorter side to this; by default to "
        "the size of the training, for networks know things at its scale")
    add("--official", type=Path, dest="ckpt", metavar="CKPT", default=argparse.SUPPRESS,
        help="instead of --ckpt, a G saved by the authors' code, to use with --input and --set")


def build(ckpt: dict) -> torch.nn.ModuleDict:
    """G and D as they were saved: D reads the labels of images that come without any."""
    if "paper" not in ckpt:
        return official(ckpt)
    run, channels = ckpt["args"], ckpt["x_fixed"].shape[1]
    G = Generator(ckpt["c_fixed"].shape[1], channels, run["width"], run["n_blocks"])
    D = Discriminator(len(names_of(ckpt)), run["size"], channels, run["width"])
    G.load_state_dict(ckpt["G"])
    D.load_state_dict(ckpt["D"])
    return torch.nn.ModuleDict({"G": G, "D": D})


def official(theirs: dict) -> torch.nn.ModuleDict:
    """A generator as yunjey/stargan saves it; our layers are in the order of theirs. It holds
    averages, too, that its instance normalisation has never used in training."""
    if "conv2.weight" in theirs:
        fail("--official: this is a discriminator; looked for a generator, 200000-G.ckpt")
    state = {key.replace("main.", "net."): value for key, value in theirs.items()
             if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    weights = [value for value in state.values() if value.ndim == 4]
    (width, c_in), channels = weights[0].shape[:2], len(weights[-1])
    n = c_in - channels
    G = Generator(n, channels, width, n_blocks=(len(weights) - 6) // 2)
    G.load_state_dict(state)
    run = {**dict.fromkeys(["data", "data_root", "skip_bad"]), "size": 128}
    domains = OFFICIAL.get(n, [[[str(i)] for i in range(1, n + 1)]])
    theirs.update(args=run, domains=domains, one_of_n=[of_set is RAFD for of_set in domains])
    return torch.nn.ModuleDict({"G": G})


def names_of(ckpt: dict) -> list[str]:
    """Of the places in a label."""
    return [name for _, _, names in groups(ckpt["domains"]) for name in names]


def sizes_of(ckpt: dict) -> list[int]:
    """How many names each data set has."""
    return [sum(map(len, of_set)) for of_set in ckpt["domains"]]


def wishes(text: str, ckpt: dict) -> list[tuple[int, int]]:
    """hair=red,smiling=1 as places in a label and values, 0 or 1. hair=red is red_hair=1."""
    def plain(name: str) -> str:
        return name.strip().casefold().replace(" ", "_")

    known, wanted = list(map(plain, names_of(ckpt))), []
    for item in text.split(","):
        key, _, value = map(plain, item.partition("="))
        name, value = (key, int(value or 1)) if value in ("", "0", "1") else (f"{value}_{key}", 1)
        if name not in known:
            fail(f"--set {item}: the names are {', '.join(names_of(ckpt))}, the values 0 and 1")
        wanted.append((known.index(name), value))
    return wanted


def read_labels(nets: torch.nn.ModuleDict, ckpt: dict, x: torch.Tensor, k: int) -> torch.Tensor:
    """c for images of any size, as D sees the domains of data set k in their central squares."""
    size, h, w = ckpt["args"]["size"], *x.shape[2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    x = x[:, :, top:top + side, left:left + side]
    if side != size:
        x = interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    logits, parts = nets["D"](x)[1], []
    for of, at, names in groups(ckpt["domains"]):
        if of == k:
            score = logits[:, at:at + len(names)]
            c = one_hot(score.argmax(1), len(names)).to(x)  # of alternatives at most one
            parts.append(c if ckpt["one_of_n"][k] else c * (score > 0))
    return torch.cat(parts, 1)


def targets(nets: torch.nn.ModuleDict, ckpt: dict, x: torch.Tensor,
            wish: str | None) -> dict[str, torch.Tensor]:
    """The labels to translate images to: that of --set, or of each domain, by its name. What they
    leave open is read from the images."""
    domains, made = ckpt["domains"], {}
    asked = {wish: wishes(wish, ckpt)} if wish else {
        name: [(i, None)] for i, name in enumerate(names_of(ckpt))}
    for name, values in asked.items():
        met = {at: k for k, at, names in groups(domains) for i, value in values
                 if at <= i < at + len(names)}
        k, *others = set(met.values())
        if others:
            fail(f"--set {wish}: a label has domains of one data set, these are of two")
        if ckpt["one_of_n"][k] and any(value == 0 for _, value in values):
            fail(f"--set {wish}: a class is left for another one alone, name that")
        open_ = ["/".join(names) for of, at, names in groups(domains) if of == k and not any(
            at <= i < at + len(names) and (value != 0 if len(names) > 1 else value is not None)
            for i, value in values)]
        if open_ and "D" not in nets:
            fail(f"--set has to say {', '.join(open_)} too: there is no D that could read it from "
                 "the image")
        c = join(read_labels(nets, ckpt, x, k) if open_ else x.new_zeros(len(x), sizes_of(ckpt)[k]),
                 k, sizes_of(ckpt))
        for i, value in values:
            c = change(c, domains, i, value)
        made[name] = c
    return made


@torch.no_grad()
def translate(G: Generator, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """G(x, c) for images (n, c, h, w) in [-1, 1] of any size: reflected at the right and at the
    bottom to what G takes, multiples of 4 from 8 on, and cropped back."""
    h, w = x.shape[2:]
    down, right = (max(8, -(-side // 4) * 4) - side for side in (h, w))
    mode = "reflect" if down < h and right < w else "replicate"  # a mirror needs enough to show
    return G(pad(x, (0, right, 0, down), mode), c)[:, :, :h, :w]


def known(ckpt: dict) -> None:
    if "x_fixed" not in ckpt:
        fail("--official goes with --input and --out: no data are known of that generator")


def held_out(ckpt: dict, **reading) -> Data:
    """Images of the first data set that G was not trained on, where there are some: as train.py's
    load has it."""
    known(ckpt)
    run = ckpt["args"]
    data, folder = run["data"], place(run["data"])
    if data not in NAMES and folder.name.lower() in SPLITS["train"]:
        beside = [folder.with_name(name) for name in SPLITS["test"]]
        data = str(next(filter(Path.is_dir, beside), folder))
    return load_images(data, run["size"], split="test", **reading)


def each(nets: torch.nn.ModuleDict, ckpt: dict,
         args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures, of test images chosen by the seed, each translated to one
    domain in turn, or as --set has it."""
    data = held_out(ckpt, root=ckpt["args"]["data_root"], skip_bad=ckpt["args"]["skip_bad"])
    torch.manual_seed(args.seed)
    for i, row in enumerate(torch.randperm(len(data))[:args.n].tolist()):
        x = data[[row]].to(ckpt["x_fixed"]).expand(-1, ckpt["x_fixed"].shape[1], -1, -1)
        made = list(targets(nets, ckpt, x, args.wish).items())
        name, c = made[i % len(made)]
        yield f"{i:06d}-{name}".replace("/", " or "), translate(nets["G"], x, c)[0]


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Data:
    """For --real: test images."""
    return held_out(ckpt, **reading)


def save_sheet(path: Path, rows: torch.Tensor, texts: list[str]) -> None:
    """rows (n, n_cols, c, h, w), twice as large, each column under a text."""
    rows = rows.cpu().repeat_interleave(2, 3).repeat_interleave(2, 4)
    c, h, w = rows.shape[2:]
    head = []
    for text in texts:
        tile = Image.new("L", (w, h), "white")
        ImageDraw.Draw(tile).multiline_text(
            (w // 2, h - 2), text.replace("_", " "), "black", ImageFont.load_default(10), "md",
            spacing=1, align="center")
        head.append(torch.from_numpy(np.array(tile)).expand(c, h, w) / 127.5 - 1)
    save_grid(path, torch.cat([torch.stack(head)[None], rows]).flatten(0, 1), n_cols=len(texts))


def figures(nets: torch.nn.ModuleDict, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    G, domains, names = nets["G"], ckpt["domains"], names_of(ckpt)
    if args.input:
        if not args.out or args.side is not None and args.side < 1:
            fail("--input needs --out DIR, and of --side a number of pixels, 1 or more")
        if args.wish:
            wishes(args.wish, ckpt)  # before a file is read
        side, first = args.side or ckpt["args"]["size"], G.net[0]
        print(f"--input: resized to {side} pixels on the shorter side")
        needs = 16 * first.out_channels  # bytes per pixel, measured
        for file, x in read_photos(args.input, args.out, G.net[-2].out_channels, side, needs):
            x = x.to(first.weight)
            for name, c in targets(nets, ckpt, x, args.wish).items():
                stem = file.stem + f"-{name}".replace("/", " or ") * (args.wish is None)
                write_image(file.with_stem(stem), translate(G, x, c)[0])
        return
    known(ckpt)
    if args.side:
        fail(f"--side {args.side} goes with --input")
    if args.wish:
        fail(f"--set {args.wish} goes with --input or --each: the figures show all domains")
    x, c = ckpt["x_fixed"], ckpt["c_fixed"]
    x_fake = [G(x, change(c, domains, i)) for i in range(len(names))]
    columns = torch.stack([x, *x_fake, G(x_fake[0], c)], 1)
    save_grid(out / "samples.png", columns.flatten(0, 1), n_cols=columns.shape[1], scale=2)
    save_grid(out / "generated.png", torch.cat(x_fake), n_cols=len(x), scale=2,
              captions=names)  # no image of the data

    # Fig. 4: then several at once, of each group its second name
    several, chosen = {}, [at + len(group) // 2 for k, at, group in groups(domains) if k == 0]
    for places in (p for n in (2, 3) for p in combinations(chosen[:3], n)):
        c_new = c
        for i in places:
            c_new = change(c_new, domains, i)
        several["\n+ ".join(names[i] for i in places)] = G(x, c_new)
    columns = torch.stack([x, *x_fake, *several.values(), G(x_fake[0], c)], 1)
    texts = ["input", *names, *several, f"{names[0]},\nback"]
    save_sheet(out / "fig4.png", columns, texts)
    print(f"wrote samples.png, fig4.png, generated.png to {out}")
    if len(domains) > 1:  # Fig. 7: the mask says the right data set, and the wrong one
        right = [change(c, domains, i) for i in range(sizes_of(ckpt)[0], len(names))]
        wrong = [torch.cat([one[:, :-2], one[:, -2:].flip(1)], 1) for one in right]
        texts = names[-len(right):]
        save_sheet(out / "fig7.png", torch.stack([x, *(G(x, one) for one in right + wrong)], 1),
                   ["input", *texts, *(f"{name},\nwrong mask" for name in texts)])
        print("and fig7.png")


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
