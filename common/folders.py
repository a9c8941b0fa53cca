"""What lies in a folder: its images, and which belong to a class, a split, a pair, an attribute.

    train/ or training/, test/ or testing/, val/, valid/ or validation/: a split, in any case
"""
import csv
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from common import fail, say
from common.images import EXTENSIONS, PAGED, header, value_range, white_of

CLONE = Path(__file__).resolve().parents[1]
MARK = "clone:"  # begins the name of a folder in this repository, which may be moved
SPLITS = {"train": ("train", "training"),  # split -> the folder names it goes by
          "test": ("test", "testing", "val", "valid", "validation")}
LISTS = ("attributes.csv", "list_attr_celeba.txt")
PATIENCE = 10  # seconds of silence


def place(path) -> Path:
    """The absolute path of a folder, as a user or `portable` names it."""
    if not isinstance(path, (str, os.PathLike)):
        fail(f"{path!r} is neither the name of a data set nor a path")
    text = os.path.expanduser(os.fspath(path))
    return Path(os.path.abspath(CLONE / text[len(MARK):] if text.startswith(MARK) else text))


def portable(path) -> str:
    """A folder's name that means the same from everywhere, and in this clone where it moves."""
    folder = place(path)
    if folder.is_relative_to(CLONE):
        return MARK + folder.relative_to(CLONE).as_posix()
    return str(folder)


def images_below(folder: Path) -> list[Path]:
    """All images in a folder and its sub-folders, sorted by path; there must be one."""
    images, others, told = [], Counter(), time.monotonic()

    def walk(inner: str, above: frozenset[str]) -> None:
        nonlocal told
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            say(f"data: {len(images):,} images in {folder} so far, looking into {inner}")
        try:
            entries = sorted(os.scandir(inner), key=lambda entry: os.path.normcase(entry.name))
        except OSError as e:
            say(f"data: left out {inner} ({e.strerror})")
            return
        above = above | {os.path.realpath(inner)}
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name[0] == "." or entry.name in ("__MACOSX", *LISTS):
                continue
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                if os.path.realpath(entry.path) not in above:  # else a link in a circle
                    walk(entry.path, above)
            elif suffix in EXTENSIONS:
                images.append(Path(entry.path))
            else:
                others[suffix or "without one"] += 1

    walk(str(folder), frozenset())
    seen = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
    if not images:
        fail(f"{folder}: looked for images ({' '.join(EXTENSIONS)}) in it and below, and saw "
             f"{seen or 'no file at all'}")
    if others:
        say(f"data: left out in {folder}, by suffix: {seen}")
    return images


def images_of_one_split(folder: Path) -> list[Path]:
    """All of a folder, where there are no splits that would be mixed."""
    images = images_below(folder)
    parts = {part for deep in map(Path, {os.path.dirname(image) for image in images})
             for part in (deep, *deep.parents) if folder in part.parents}
    for inner in sorted(part for part in parts if part.name.lower() in SPLITS["train"]):
        for other in sorted(parts):
            if other.parent == inner.parent and other.name.lower() in SPLITS["test"]:
                fail(f"{folder}: {inner} lies beside {other}, and what is trained on is not to be "
                     f"tested on: give one of them, --data {inner}")
    return images


def classes_of(folder: Path) -> tuple[list[Path], torch.Tensor, list[str]]:
    """The images of class folders, their classes int64 (n,), and the names of these."""
    images = images_below(folder)
    places = sorted({image.parent.relative_to(folder).parts for image in images})
    tops = sorted({parts[0] for parts in places if parts})
    splits = [top for top in tops if top.lower() in SPLITS["train"] + SPLITS["test"]]
    saw = (f"{folder}: looked for two or more class folders, each of the images of one class, "
           f"and saw {len(images):,} images")
    if len(places) == 1:
        fail(f"{saw} in one folder, {folder.joinpath(*places[0])}: put those of each class into a "
             "folder of its name (cgan/README.md: from a csv file)")
    if () in places:
        fail(f"{saw}, some of them directly in it and some in sub-folders ({some(tops)}): move "
             "one kind away")
    if splits or len(tops) == 1:
        top = folder / sorted(splits or tops, key=lambda top: top.lower() not in SPLITS["train"])[0]
        inner = os.path.commonpath([image.parent for image in images if top in image.parents])
        fail(f"{saw} below {some(tops)}: images lie deeper, --data {inner}")
    if deep := [parts for parts in places if len(parts) > 1]:
        fail(f"{saw}, some in {'/'.join(deep[0])}: class folders hold images directly, "
             f"--data {folder / deep[0][0]}")
    number = {top: i for i, top in enumerate(tops)}
    return images, torch.tensor([number[image.parent.name] for image in images]), tops


def some(names: Sequence) -> str:
    """The first five of a list, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more


def find_split(folder: Path, split: str, *layouts: Sequence[str]) -> tuple[list[Path], str] | None:
    """The folders that hold a split in one of these layouts, as ("A/{}", "B/{}"), and its name.

    Where no folder is called a test, "test" yields the folders of "train", and says so: what a
    caller then holds out, it takes from those that it trains on. None if there is neither.
    """
    def first(wanted: str) -> list[Path] | None:
        for known, layout in itertools.product(SPLITS[wanted], layouts):
            for name in (known, known.capitalize(), known.upper()):
                if folders := _all_or_none(*(folder / part.format(name) for part in layout)):
                    return folders
        return None

    if split == "test" and (found := first("test")):
        return found, "test"
    if found := first("train"):
        return found, "train"
    if found := first("test"):
        fail(f"{found[0]} is for tests, and there is nothing to train on beside it: looked for "
             + some([layout[0].format("train") for layout in layouts]))
    return None


def two_folders(folder: Path, split: str) -> tuple[list[Path], str] | None:
    """find_split's, of two sets A and B; or the folders A and B, which have no splits."""
    found = find_split(folder, split, ("A/{}", "B/{}"), ("{}/A", "{}/B"), ("{}A", "{}B"))
    both = None if found else _all_or_none(folder / "A", folder / "B")
    return (both, "train") if both else found


def _all_or_none(*folders: Path) -> list[Path] | None:
    """The folders, if there is one; then there must be all."""
    here = [folder for folder in folders if folder.is_dir()]
    if here and len(here) < len(folders):
        missing = next(folder for folder in folders if folder not in here)
        fail(f"{missing} does not exist: looked for the counterpart of {here[0]}")
    return here or None


def by_stem(*folders: Path) -> list[tuple[Path, ...]]:
    """The images of several folders, joined by their path without suffix."""
    halves = []
    for folder in folders:
        images = images_below(folder)
        halves.append({str(image.relative_to(folder).with_suffix("")): image for image in images})
        if len(halves[-1]) < len(images):
            fail(f"{folder}: saw {len(images):,} images of {len(halves[-1]):,} names: a pair is "
                 "found by its name without suffix, so that x.png and x.jpg are one too many")
    common = set(halves[0]).intersection(*halves[1:])
    alone = [image for half in halves for stem, image in half.items() if stem not in common]
    if alone:
        fail(f"{' and '.join(map(str, folders))}: looked for images of the same names, and saw "
             f"{len(common):,} matches, {len(alone):,} without: {some(alone)}: remove or rename")
    return [tuple(half[stem] for half in halves) for stem in sorted(common)]


def look_at(files: Sequence[Path]) -> tuple[int, dict[str, float]]:
    """The channels of a set, 3 if one file is in colour, and what is white in files of more than 8
    bits, see read_image. What would be a surprise is said."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        paged = [file for file in files if file.suffix.lower() in PAGED]
        if n := sum(more for _, more in pool.map(header, paged)):
            say(f"data: {n:,} of these files have more than one page: the first is taken")
        deep = []
        for file in files:  # until there is one in colour
            kind, _ = header(file)
            if kind == "colour":
                return 3, {}
            if kind == "deep":
                deep.append(file)
        ranges = list(filter(None, pool.map(value_range, deep)))
    white = {}
    for kind in sorted({kind for kind, _, _ in ranges}):
        low = min(low for k, low, _ in ranges if k == kind)
        top = max(top for k, _, top in ranges if k == kind)
        white[kind], usual = white_of(kind, top)
        if low < 0 or not usual:
            say(f"data: the values of {'float' if kind == 'F' else '16-bit'} files lie in {low:g} "
                f"to {top:g}: 0 is taken for black and {white[kind]:g} for white")
    return 1, white


def cells(file: Path) -> list[list[str]]:
    """The rows of a table of text, but for empty ones."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:  # spreadsheets write a BOM
            rows: Iterator = csv.reader(lines) if file.suffix == ".csv" else map(str.split, lines)
            return [[cell.strip() for cell in row] for row in rows if row]
    except (OSError, ValueError, csv.Error) as e:
        fail(f"{file} cannot be read ({e}): looked for text in UTF-8")


def attributes_of(files: list[Path], listed: Path) -> tuple[list[str], torch.Tensor]:
    """Names, and float {0, 1} (n, k), from attributes.csv or CelebA's list_attr_celeba.txt."""
    rows = cells(listed)
    if listed.suffix != ".csv":  # a count, then the names alone
        rows = [["file", *names] for names in rows[1:2]] + rows[2:]
    names = rows[0][1:] if rows else []
    if not names:
        fail(f"{listed}: looked for the names of attributes in its head, and saw none")
    if rows[0][0] != "file" or "" in names or len(set(names)) < len(names):
        fail(f"{listed}: its head is {','.join(rows[0])}: looked for file, then names, each once")
    bits = {"1": 1.0, "0": 0.0, "-1": 0.0}
    table = {}
    for file, *values in rows[1:]:
        if len(values) != len(names) or not bits.keys() >= set(values):
            fail(f"{listed}: {file} has the values {' '.join(values)}; looked for {len(names)}, "
                 "each 0 or 1 (or -1 or 1)")
        table[file] = [bits[value] for value in values]
    missing = [file.name for file in files if file.name not in table]
    if missing:
        fail(f"{listed}: no line for {len(missing):,} of {len(files):,} images: {some(missing)}: "
             "add their lines, or remove the images")
    return names, torch.tensor([table[file.name] for file in files])
