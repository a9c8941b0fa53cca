"""Figures of the SPADE paper from a checkpoint of spade/train.py, and images of your label maps.

    python spade/sample.py                             from runs/spade/ckpt.pt into its figures/
    python spade/sample.py --edit glasses=skin,hat=hair     classes that are changed, in edit.png
    python spade/sample.py --input maps --out images   a file or a folder of label maps
    python spade/sample.py --style photos              styles of these, of a run with an encoder
    python spade/sample.py --official latest_net_G.pth --input maps --out images
    python spade/sample.py --n 500 --each pngs --real photos    single files, of held-out maps
"""
import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from model import Encoder, Generator, n_maps, semantics

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the repository root, for common/
from common.data import Data, load_label_maps
from common.folders import images_below
from common.images import PALETTE, grid, read_ids, read_image, save_gif, save_grid

NAME = "spade"
OFFICIAL = {  # channels of m -> classes, the first one's id, that of no class, edges, size
    184: (182, 0, 255, True, 256), 151: (150, 1, 255, False, 256), 36: (35, 0, -1, True, 512)}


def settings(add) -> None:
    add("--input", type=Path, help="your label map, or folder of them, to make images of in --out")
    add("--instances", type=Path, help="its instance maps, of the same names; without them a run "
        "that knows such takes the label map's own edges")
    add("--edit", default="", help="classes to turn into others, as hat=hair,4=5")
    add("--style", type=Path, help="your photo, or folder of them, whose style is taken; of a run "
        "with --encoder")
    add("--official", type=Path, dest="ckpt", metavar="PTH", default=argparse.SUPPRESS,
        help="instead of --ckpt, a G saved by the authors' code for COCO-Stuff, ADE20K or "
        "Cityscapes, to use with --input")


def build(ckpt: dict) -> Generator:
    """G as it was saved, with the running averages of its batch norms."""
    if "paper" not in ckpt:
        return official(ckpt)
    run = ckpt["args"]
    n = n_maps(len(ckpt["classes"]), run["unknown"], ckpt["instances"])
    G = Generator(n, run["size"], ckpt["channels"], run["width"], run["hidden"],
                  run["z_dim"] * run["encoder"])
    G.load_state_dict(ckpt["G"])
    return G.eval()


def official(theirs: dict) -> Generator:
    """G from latest_net_G.pth of the authors' code: its names are ours, shapes tell the rest."""
    hidden, n = theirs["up_3.norm_0.mlp_shared.0.weight"].shape[:2]
    c_out, width = theirs["conv_img.weight"].shape[:2]
    if n not in OFFICIAL:
        fail(f"--official: this G takes {n} channels; looked for 184 (COCO-Stuff), 151 (ADE20K) or "
             "36 (Cityscapes)")
    n_classes, first, unknown, has_edges, size = OFFICIAL[n]
    fc = theirs["fc.weight"]
    G = Generator(n, size, c_out, width, hidden, z_dim=fc.shape[1] if fc.ndim == 2 else 0)
    G.load_state_dict(theirs)
    run = {"size": size, "unknown": unknown, "z_dim": fc.shape[1], "encoder": fc.ndim == 2}
    theirs |= {"args": {**run, "data": None, "data_root": None, "skip_bad": False},
               "classes": list(map(str, range(first, first + n_classes))),
               "instances": has_edges, "first": first}
    return G.eval()


def known(ckpt: dict) -> None:
    if "x_fixed" not in ckpt:
        fail("--official goes with --input and --out: no data are known of that generator")


def held_out(ckpt: dict) -> Data:
    """What the run did not train on, as in train.py."""
    known(ckpt)
    run, unknown = ckpt["args"], ckpt["args"]["unknown"]
    held = load_label_maps(run["data"], run["size"], split="test", root=run["data_root"],
                           n_classes=len(ckpt["classes"]), skip_bad=run["skip_bad"],
                           ignore=unknown if unknown >= 0 else None,
                           device=ckpt["x_fixed"].device)
    if held.channels != ckpt["channels"] or (len(held[:1]) > 2) != ckpt["instances"]:
        fail(f"{held.name} is of another kind than the run's data: grey or in colour, or with "
             "instance maps")
    n = len(held) - len(held) // 6
    return held.subset(n, len(held)) if held.split == "train" and n < len(held) else held


def some_held_out(ckpt: dict, n: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """n of them by the seed, as (x, y[, instances]), 50 at a time; where n is more than there are,
    all come once before one comes again."""
    held, draw = held_out(ckpt), torch.Generator().manual_seed(seed)
    index = [torch.randperm(len(held), generator=draw) for _ in range(-(-n // len(held)))]
    return (held[part] for part in torch.cat(index)[:n].split(50))


def sample_z(n: int, ckpt: dict, device: torch.device | str = "cpu") -> torch.Tensor | None:
    """z (n, z_dim), standard normal, of a run with --encoder."""
    run = ckpt["args"]
    return torch.randn(n, run["z_dim"], device=device) if run["encoder"] else None


@torch.no_grad()
def paint(G: Generator, ckpt: dict, y: torch.Tensor, instances: torch.Tensor | None = None,
          z: torch.Tensor | None = None) -> torch.Tensor:
    """Images (n, c, h, w) of label maps (n, h, w)."""
    device = next(G.parameters()).device
    run, parts = ckpt["args"], []
    if ckpt["instances"] and instances is None:
        instances = y
    for k in range(0, len(y), 8):  # m has a channel for each class
        i = slice(k, k + 8)
        m = semantics(y[i].to(device), len(ckpt["classes"]), run["unknown"],
                      instances[i].to(device) if ckpt["instances"] else None)
        parts.append(G(m, z[i].to(device) if run["encoder"] else None))
    return torch.cat(parts)


def generate(G: Generator, ckpt: dict, parts: Iterable[tuple[torch.Tensor, ...]], seed: int = 0
             ) -> Iterator[torch.Tensor]:
    """Images of each (x, y[, instances]): x is not looked at. z, if there is one, by the seed."""
    torch.manual_seed(seed)
    device = next(G.parameters()).device
    return (paint(G, ckpt, y, *i, z=sample_z(len(y), ckpt, device)) for _, y, *i in parts)


def each(G: Generator, ckpt: dict, args: argparse.Namespace) -> Iterator[tuple[str, torch.Tensor]]:
    """For --each: names and pictures, of held-out label maps."""
    parts = some_held_out(ckpt, args.n, args.seed)
    pictures = (x for part in generate(G, ckpt, parts, args.seed) for x in part)
    return ((f"{i:06d}", x) for i, x in enumerate(pictures))


class Photos:
    """Of photos and label maps the photos."""

    def __init__(self, pairs: Data):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index) -> torch.Tensor:
        return self.pairs[index][0]


def real(ckpt: dict, args: argparse.Namespace, **reading) -> Photos:
    """For --real: what the pictures of --each should look like."""
    return Photos(held_out(ckpt))


Named = Iterator[tuple[Path, tuple[torch.Tensor, ...]]]


def read_maps(args: argparse.Namespace, ckpt: dict) -> Named:
    """Of --input, a label map, or all in and below a folder: the name of each below --out, and its
    ids (1, size, size), perhaps with those of its instances. All are tried before one is used."""
    source, run, n = args.input, ckpt["args"], len(ckpt["classes"])
    folder, first = source if source.is_dir() else source.parent, ckpt.get("first", 0)
    files = images_below(source) if source.is_dir() else [source]
    out = {file: args.out / file.relative_to(folder).with_suffix(".png") for file in files}
    made = args.out.resolve()
    if source.resolve() in (made, *made.parents, *(path.resolve() for path in out.values())):
        fail(f"--out {args.out} lies in --input: name another folder")

    def read(file: Path) -> tuple[torch.Tensor, ...]:
        y = read_ids(file, run["size"])[None].long()
        wrong = y[((y < 0) | (y >= n + first)) & (y != run["unknown"])]
        if len(wrong):
            raise ValueError(f"id {wrong[0]}, but the run's are {first}..{n + first - 1}")
        y = torch.where((y == run["unknown"]) | (y < first), run["unknown"], y - first)
        if not args.instances:
            return y,
        maps = args.instances
        maps = maps if maps.is_file() else maps / file.relative_to(folder)
        return y, read_ids(maps, run["size"])[None].long()

    bad = []
    for file in files:
        try:
            read(file)
        except (OSError, ValueError) as e:
            bad.append(f"{file} ({getattr(e, 'strerror', None) or e})")
    if bad:
        fail(f"--input: {len(bad):,} of {len(files):,} cannot be used: {', '.join(bad[:5])}")
    return ((out[file], read(file)) for file in files)


def styles(source: Path, ckpt: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos (n, c, size, size), and the z (n, z_dim) that the encoder expects of them."""
    if "E" not in ckpt:
        fail("--style is for runs with --encoder: this one knows no styles")
    files, size = images_below(source) if source.is_dir() else [source], ckpt["args"]["size"]
    try:
        x = torch.stack([read_image(file, size, ckpt["channels"]) for file in files]) / 127.5 - 1
    except (OSError, ValueError) as e:
        fail(f"--style {source}: {e}")
    return x, style_of(x, ckpt)


@torch.no_grad()
def style_of(x: torch.Tensor, ckpt: dict) -> torch.Tensor:
    run = ckpt["args"]
    E = Encoder(run["size"], ckpt["channels"], run["width"], run["z_dim"])
    E.load_state_dict(ckpt["E"])
    return E.to(ckpt["z_fixed"].device).eval()(x.to(ckpt["z_fixed"].device))[0]


def edited(y: torch.Tensor, changes: str, classes: list[str]) -> torch.Tensor:
    """Label maps in which some classes have become others: "hat=hair,4=5"."""
    ids = {name: i for i, name in enumerate(classes)}
    if not classes[0].isdigit():  # there the numbers are free
        ids |= {str(i): i for i in range(len(classes))}
    done = y.clone()
    for change in changes.split(","):
        a, _, b = change.partition("=")
        if a not in ids or b not in ids:
            fail(f"--edit {change}: looked for two of {', '.join(classes)}, or their numbers, as "
                 f"{classes[-1]}={classes[0]}")
        done[y == ids[a]] = ids[b]
    return done


def painted(y: torch.Tensor) -> torch.Tensor:
    """Label maps (n, h, w) in colours, (n, 3, h, w) in [-1, 1]."""
    return PALETTE.to(y.device)[y % len(PALETTE)].permute(0, 3, 1, 2) / 127.5 - 1


def figures(G: Generator, ckpt: dict, args: argparse.Namespace, out: Path) -> None:
    run, device, classes = ckpt["args"], next(G.parameters()).device, ckpt["classes"]
    photos, z_given = styles(args.style, ckpt) if args.style else (None, None)
    if args.instances and not ckpt["instances"]:
        fail("--instances: the run was trained without instance maps")
    if args.input:
        if not args.out:
            fail("--input needs --out DIR")
        for k, (file, (y, *i)) in enumerate(read_maps(args, ckpt)):
            torch.manual_seed(args.seed)  # the seed anew: none changes another
            z = sample_z(1, ckpt, device) if z_given is None else z_given[[k % len(z_given)]]
            y = edited(y, args.edit, classes) if args.edit else y
            write_image(file, paint(G, ckpt, y, *i, z=z)[0])
        print(f"wrote {k + 1:,} to {out}, of the central square of each map at {run['size']} px")
        return
    known(ckpt)
    x, y, i = ckpt["x_fixed"], ckpt["y_fixed"], ckpt.get("i_fixed")
    z, wrote = ckpt["z_fixed"] if run["encoder"] else None, []

    def save(name: str, columns: list[torch.Tensor], scale: int = 2, **more) -> None:
        rows = torch.stack([part.expand(-1, 3, -1, -1) for part in columns], 1)
        n_cols = more.pop("n_cols", rows.shape[1])
        save_grid(out / name, rows.flatten(0, 1), n_cols, scale=scale, **more)
        wrote.append(name)

    # Figs. 5 and 6: label map | output | photo; and which colour is which class
    x_fake = paint(G, ckpt, y, i, z)
    save("samples.png", [painted(y), x_fake, x], n_cols=9)
    seen = y.unique()
    key = painted(seen[:, None, None].expand(-1, 16, 16))
    names = [classes[k] if k < len(classes) else "unknown" for k in seen.tolist()]
    save("classes.png", [key], captions=names)

    if args.edit:  # of maps that it changes: map | output | edited | its output
        new = edited(y, args.edit, classes)
        if len(rows := (new != y).flatten(1).any(1).nonzero()[:, 0]) == 0:
            fail(f"--edit {args.edit}: none of the {len(y)} held-out label maps has that")
        new_fake = paint(G, ckpt, new, i, z)
        save("edit.png", [part[rows] for part in (painted(y), x_fake, painted(new), new_fake)],
             n_cols=8)

    if run["encoder"]:
        # Fig. 9: one label map under several z
        torch.manual_seed(args.seed)
        some, y = sample_z(7, ckpt, device), y[:6]
        several = [paint(G, ckpt, y, i, one.expand(len(y), -1)) for one in some]
        save("latents.png", [painted(y), *several])

        # Fig. 1: a label map in each row, in each column the style of the photo above it
        if photos is None:
            photos, z_given = x[-7:], style_of(x[-7:], ckpt)
        photos, z_given = photos[:7].to(device), z_given[:7]
        several = [paint(G, ckpt, y, i, one.expand(len(y), -1)) for one in z_given]
        save("styles.png", [torch.cat([torch.ones_like(painted(y[:1])), painted(y)]), *(
            torch.cat([photo[None], column]) for photo, column in zip(photos, several,
                                                                      strict=True))])

        # From each of four styles to the next
        ends = torch.cat([some[:4], some[:1]])
        at = torch.linspace(0, 4, args.frames + 1).tolist()[:-1]
        film = [torch.lerp(ends[int(t)], ends[int(t) + 1], t % 1) for t in at]
        save_gif(out / "walk.gif", [grid(paint(G, ckpt, y, i, one.expand(len(y), -1)), 3, scale=2)
                                    for one in film], hold=0.12)
        wrote.append("walk.gif")
    print(f"wrote {', '.join(wrote)} to {out}")


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
