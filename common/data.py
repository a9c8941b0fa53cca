"""What to train on: built-in drawings, published sets, or your folder; and the stream of it.

    data = load_images("path/to/images", size=64, device="cuda")
    for x in data.batches(128, seed=0): ...      # float32 (128, 3, 64, 64) in [-1, 1], endless

`data` is always the name of a set, built in or downloaded once, or a folder; names win, so write
./faces for a folder called faces. Pictures become their largest central square, resized to size x
size. A set of at most RESIDENT_BYTES, and at most half of what is free on the device, is decoded
once and lives there; a larger one is read again for every batch, by `workers` processes. Either
way batch k is a function of (seed, k) alone. A user's mistake ends the program with one line.

All load_* take: root, the folder of downloaded sets, None for data/ in this clone, wherever that
lies; split, "train" or "test"; device; workers; and skip_bad, to leave unreadable files out instead
of stopping, later too: see Data. A folder of your own without such splits is what it is: there
"test" yields what "train" does, and the set's own split says "train".
"""
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from common import builtin, fail, folders, images, published, say, stream
from common.folders import SPLITS as SPLITS
from common.folders import place
from common.folders import portable as portable
from common.photos import read_photos as read_photos
from common.published import LSUN, PAIRED, TORCHVISION, UNPAIRED
from common.stream import BadFile, Data

RESIDENT_BYTES = 3 * 2**30  # kept on the device at most; 262,144 images of 3x64x64
ROOT = folders.CLONE / "data"
BUILTIN = ("digits", "faces", "faces-flat", "faces-labels", "faces-outline")
N_BUILTIN = {"train": 10_000, "test": 2_000}
FIRST_BUILTIN = {"train": 0, "test": 1_000_000}  # index of a drawing: the splits share none
N_CROPPED = 2_000  # built-in pictures to crop from: large ones take longer to draw
NAMES = list(dict.fromkeys([*BUILTIN, *TORCHVISION, "celeba", *LSUN, *PAIRED, *UNPAIRED]))


# What a name or folder consists of

@dataclass
class _Found:
    """A set before it is read: n rows for `read`; for crops, a picture each for `whole`."""
    n: int
    read: Callable
    channels: int
    classes: Sequence[str] = ()
    attributes: Sequence[str] = ()
    checked: bool = False  # there is no need to try every example before a stream starts
    split: str = "train"
    pictures: Sequence[str] = ("images",)  # what the fields of pixels are called
    whole: Callable | None = None
    n_bytes: int = 0


def _folder(data, looked_for: str) -> Path:
    """The absolute path of a folder that exists; `looked_for` is for the message if it does not."""
    if data in NAMES:
        fail(f"{data} has no {looked_for}; a folder of that name is written ./{data}")
    if not str(data).strip():
        fail("--data is empty: it takes a folder, or a set by its name")
    folder = place(data)
    if folder == folder.parent:
        fail(f"{folder} is all of a disk: --data takes a folder of images")
    if folder.is_dir():
        return folder
    if folder.is_file():
        fail(f"{folder} is a file: --data takes the folder that it is in, {folder.parent}")
    near = get_close_matches(str(data), NAMES, 1)
    meant = f"did you mean {near[0]}?" if near else (
        f"--data takes a folder of yours, or {', '.join(NAMES)}")
    fail(f"{folder} does not exist, and {data} is no known data set: {meant}")


def _find(data, size: int, root, split: str, labels: bool) -> _Found:
    """Images, with their class where `labels`."""
    if data in ("digits", "faces"):
        classes = "0123456789" if data == "digits" else builtin.FACE_CLASSES
        return _drawn(data, size, split, ["image", "label"] if labels else ["image"], classes)
    if data in TORCHVISION:
        x, y, classes = published.torchvision_set(data, place(root or ROOT), split, labels)
        if x.shape[-1] == 28 and size == 32:
            x = F.pad(x, (2, 2, 2, 2))  # digits are not resampled for the sake of a power of two
        read = partial(stream.read_arrays, x, (y,) if labels else (), size)
        return _Found(len(x), read, x.shape[1], classes, checked=True, split=split)
    if data == "celeba" and not labels:
        return _celeba(size, place(root or ROOT), split, with_attributes=False)
    if data in LSUN and not labels:
        base = str(published.lsun_folder(data, place(root or ROOT), split))
        try:
            with stream.entries_of(base) as entries:
                keys = list(entries.cursor().iternext(keys=True, values=False))
        except ImportError:
            fail(f"{data} needs the package lmdb: pip install lmdb")
        except BadFile as e:
            fail(str(e))
        # Not checked: decoding three million pictures would delay each start by an hour.
        read = partial(stream.read_lmdb, base, keys, size)
        return _Found(len(keys), read, 3, checked=True, split=split)
    folder = _folder(data, "classes" if labels else "images")
    if not labels:
        return _of_files(folders.images_of_one_split(folder), size)
    files, y, classes = folders.classes_of(folder)
    return _of_files(files, size, (y,), classes=classes)


def _of_files(files: list[Path], size: int, tables=(), **more) -> _Found:
    channels, white = folders.look_at(files)
    one = partial(stream.read_file, images.read_image, size, channels, white)
    read = partial(stream.read_files, [(file,) for file in files], one, tables)
    return _Found(len(files), read, channels, **more)


def _drawn(name: str, size: int, split: str, fields: Sequence[str], classes=(), attributes=(),
           skip: int = 0) -> _Found:
    """A built-in set; `skip` leaves so many drawings to another one."""
    if name == "digits":
        draw = partial(builtin.digits, size=size, seed=0)
    else:
        want = tuple("label_map" if field == "painted" else field for field in fields)
        draw = partial(builtin.faces, size=size, seed=0, want=want)
    try:
        draw([0])
    except ValueError as e:
        fail(f"{name} cannot be drawn at --size {size}: {e}")
    read = partial(stream.read_drawn, draw, FIRST_BUILTIN[split] + skip, fields)
    return _Found(N_BUILTIN[split], read, 1 if name == "digits" else 3, classes, attributes,
                  checked=True, split=split)


def _celeba(size: int, root: Path, split: str, with_attributes: bool) -> _Found:
    files, listed = published.celeba_files(root, split)
    if not with_attributes:
        return _of_files(files, size, split=split)
    names, table = folders.attributes_of(files, listed)
    return _of_files(files, size, (table,), attributes=names, split=split)


# Loading

def load_images(data, size: int, *, root=None, split: str = "train", **how) -> Data:
    """Images x: of a folder, all in it and below."""
    return _load(_find(data, size, root, split, False), data, size, **how)


def load_labelled(data, size: int, *, root=None, split: str = "train", **how) -> Data:
    """(x, y): y int64 (n,) counts data.classes. A folder has one sub-folder for each class."""
    return _load(_find(data, size, root, split, True), data, size, **how)


def load_attributes(data, size: int, *, root=None, split: str = "train", **how) -> Data:
    """(x, a): a float {0, 1} (n, k), its columns named by data.attributes.

    faces, celeba, or a folder with, in it or beside it, attributes.csv (a header of "file" and the
    names, then a line for each image with 0 or 1, or -1 or 1) or CelebA's list_attr_celeba.txt.
    """
    if data == "faces":
        found = _drawn(data, size, split, ["image", "attributes"], attributes=builtin.ATTRIBUTES)
    elif data == "celeba":
        found = _celeba(size, place(root or ROOT), split, with_attributes=True)
    else:
        folder = _folder(data, "attributes")
        lists = [inner / name for name in folders.LISTS for inner in (folder, folder.parent)]
        listed = next(filter(Path.is_file, lists), None)
        if listed is None:
            fail(f"{folder}: looked for {' or '.join(folders.LISTS)} in it and beside it, and saw "
                 "neither")
        files = folders.images_of_one_split(folder)
        names, table = folders.attributes_of(files, listed)
        found = _of_files(files, size, (table,), attributes=names)
    return _load(found, data, size, **how)


def load_pairs(data, size: int, *, root=None, split: str = "train", **how) -> Data:
    """(a, b), two pictures of the same thing, both of data.channels.

    A folder holds files A|B side by side, directly or in a sub-folder named as the split (train;
    test or val); or two folders of files with the same names: A/train and B/train, train/A and
    train/B, trainA and trainB, or A and B. Built in, a drawing of a portrait -> the portrait:
    faces-labels (faces for short), its label map in the colours of PALETTE; faces-flat, every part
    in one colour, its own; faces-outline, its contours. The names in PAIRED are downloaded once.
    """
    drawings = {"faces": "painted", "faces-labels": "painted", "faces-flat": "flat",
                "faces-outline": "outline"}
    if a := drawings.get(str(data)):
        return _load(_drawn(data, size, split, [a, "image"]), data, size, **how)
    if data in PAIRED:
        folder = published.berkeley_folder(data, place(root or ROOT), "pix2pix")
    else:
        folder = _folder(data, "pairs")
    places, split = (folders.two_folders(folder, split)
                     or folders.find_split(folder, split, ("{}",)) or ([folder], "train"))
    if len(places) == 2:
        files, one = folders.by_stem(*places), partial(stream.read_two, size)
    else:
        files = [(file,) for file in folders.images_below(*places)]
        one = partial(stream.read_file, images.read_halves, size)
    channels, whites = zip(*map(folders.look_at, zip(*files, strict=True)), strict=True)
    one = partial(one, max(channels), whites if len(places) == 2 else whites[0])
    read = partial(stream.read_files, files, one, ())
    found = _Found(len(files), read, max(channels), split=split, pictures=("A", "B"))
    return _load(found, data, size, **how)


def load_unpaired(data, size: int, *, root=None, split: str = "train", **how) -> tuple[Data, Data]:
    """Two sets of images, A and B, whose streams have nothing to do with each other.

    A folder holds trainA/ and trainB/; testA/ and testB/ (or valA/, valB/) are the split "test".
    It may also be laid out as two folders of load_pairs. Built in: faces, of which A are portraits
    in colour, B pencil drawings of other people. The names in UNPAIRED are downloaded once.
    """
    if data == "faces":
        found = [_drawn(data, size, split, ["image"]),
                 _drawn(data, size, split, ["pencil"], skip=N_BUILTIN[split])]
    else:
        if data in UNPAIRED:
            folder = published.berkeley_folder(data, place(root or ROOT), "cyclegan")
        else:
            folder = _folder(data, "unpaired sets")
        places, split = folders.two_folders(folder, split) or ([], split)
        if not places:
            seen = sorted(inner.name for inner in folder.iterdir() if inner.is_dir())
            fail(f"{folder}: looked for the folders of two sets, trainA and trainB, train/A and "
                 "train/B, A/train and B/train, or A and B, and saw "
                 f"{folders.some(seen) or 'no folder'}")
        found = [_of_files(folders.images_below(half), size, split=split) for half in places]
    a, b = (_load(half, data, size, **how) for half in found)
    b.salt = 1
    return a, b


def load_label_maps(data, size: int, *, root=None, split: str = "train",
                    n_classes: int | None = None, ignore: int | None = None, **how) -> Data:
    """(x, y) or (x, y, instances): photos, class ids and instance ids, int64 (n, h, w) both.

    A folder holds {split}_img, {split}_label and perhaps {split}_inst, joined by file name. Ids are
    0..n_classes - 1, n_classes = 1 + the largest one where it is not given; pixels of the id
    `ignore` stay as they are. data.classes has n_classes names. Built in: faces, of their PARTS.
    """
    if data == "faces":
        found = _drawn(data, size, split, ["image", "label_map"], classes=builtin.PARTS)
        return _load(found, data, size, **how)
    folder = _folder(data, "label maps")
    places, split = folders.find_split(folder, split, ("{}_img", "{}_label")) or (None, split)
    if not places:
        fail(f"{folder}: looked for train_img, train_label and perhaps train_inst in it")
    inst = places[0].with_name(places[0].name.replace("_img", "_inst"))
    files = folders.by_stem(*places, *[inst] * inst.is_dir())
    if n_classes is None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            ids = list(pool.map(partial(_try, _largest_id, ignore), (f[1] for f in files)))
        n_classes = 1 + max(0, *ids)
        say(f"data: label maps of {n_classes:,} classes, with ids up to {n_classes - 1}")
    channels, white = folders.look_at([photo for photo, *_ in files])
    one = partial(stream.read_labelled, size, channels, white, n_classes, ignore)
    found = _Found(len(files), partial(stream.read_files, files, one, ()), channels,
                   [str(i) for i in range(n_classes)], split=split)
    return _load(found, data, size, **how)


def _largest_id(ignore: int | None, label: Path) -> int:
    y = images.read_ids(label)
    return int(y.max() if ignore is None else torch.where(y == ignore, 0, y).max())


def _n_pixels(file: Path) -> int:
    return math.prod(images.image_size(file))


def _try(function: Callable, *args) -> int:
    try:
        return function(*args)
    except (OSError, ValueError):
        return 0  # reported when all files are read


def load_crops(data, size: int, *, root=None, split: str = "train", **how) -> Data:
    """Random size x size windows, at full resolution, of pictures of any size.

    The windows of batch k are a function of (seed, k) too; data[i] is the one in the middle.
    A folder is as for load_images. Built in: faces, drawn at twice the size.
    """
    if data == "faces":
        found = _drawn(data, 2 * size, split, ["image"])
        found.n = N_CROPPED
        found.whole, found.n_bytes = partial(stream.one_drawn, found.read), found.n * 12 * size**2
    else:
        files = folders.images_of_one_split(_folder(data, "large images"))
        channels, white = folders.look_at(files)
        whole = partial(stream.read_whole, size, channels, white, files)
        found = _Found(len(files), partial(stream.read_several, whole), channels, whole=whole,
                       n_bytes=channels * sum(map(partial(_try, _n_pixels), files)))
    return _load(found, data, size, **how)


# From what was found to a Data

def _load(found: _Found, data, size: int, device="cpu", workers: int = 0, skip_bad: bool = False
          ) -> Data:
    """Reads all examples once: to keep them, or, of a set too large for that, to check them."""
    if size < 1:
        fail(f"--size {size}: looked for a number of pixels, 1 or more")
    device = torch.device(device)
    reader = stream.Reader(found.read)
    tried = (reader[np.array([row])] for row in range(0 if found.whole else found.n))
    example = next((fields for fields in tried if not isinstance(fields, BadFile)), ())
    n_bytes = found.n_bytes or found.n * sum(field.nbytes for field in example)
    # Its own memory is what the machine reads it into, whatever the device
    free = min(map(stream.free_bytes, (device, torch.device("cpu"))))
    resident = n_bytes <= min(RESIDENT_BYTES, free / 2)
    shape = f"{found.channels} channels" if found.whole else f"{found.channels}x{size}x{size}"
    pictures = {}  # of several sizes, to take crops from

    def keep(rows: range) -> list[Sequence[torch.Tensor]]:
        fields = found.read(np.array(rows))
        if resident and found.whole:
            pictures.update(zip(rows, [x.to(device) for x in fields[0]], strict=True))
        elif resident:
            for kept, field in zip(store, fields, strict=True):
                kept[rows.start:rows.stop] = field
        several = fields if found.whole else [[field] for field in fields]
        return [tensors for tensors in several if tensors[0].dtype == torch.uint8]

    try:
        store = [torch.empty(found.n, *field.shape[1:], dtype=field.dtype)
                 for field in example if resident]
        rows = _try_all(found, keep, data, shape, resident, skip_bad)
        read = found.read
        if found.whole:
            read = partial(stream.read_crops, pictures.get if resident else found.whole, size)
        elif resident:
            read = partial(stream.read_resident, [kept.to(device) for kept in store])
    except RuntimeError as e:
        if "memory" not in str(e):
            raise
        fail(f"{data}: {found.n:,} examples, {shape}, take {n_bytes / 2**30:.1f} GiB, and {device} "
             f"has no room for them ({str(e).splitlines()[0]}): lower --size")
    name = data if data in NAMES else portable(data)
    return Data(found, read, rows, name, size, device, workers, resident, skip_bad)


def _try_all(found: _Found, keep: Callable, data, shape: str, resident: bool, skip_bad: bool
             ) -> np.ndarray:
    """Calls keep(rows) for all rows, in parallel; returns the rows that are no bad files. keep
    returns pixels, for each of found.pictures those of all rows."""
    n, began, shown, bad, ends = found.n, time.monotonic(), 0.0, {}, []

    def tried(rows: range) -> dict[int, BadFile]:
        try:
            pixels = keep(rows)
        except BadFile as e:
            if len(rows) == 1:
                return {rows[0]: e}
            return {row: e for one in rows for row, e in tried(range(one, one + 1)).items()}
        ends.append([[end for x in several for end in x.aminmax()] for several in pixels])
        return {}

    # Files in threads of our own. Drawings and arrays come in larger chunks, from this thread: they
    # bring their own threads, and the drawings set torch's number of them for a while.
    size = 1024 if found.checked else 64
    chunks = [range(i, min(i + size, n)) for i in range(0, n, size)]
    if found.checked and not resident:
        chunks = []
    live = sys.stdout.isatty()
    with ThreadPoolExecutor(cpu_count()) as pool:
        run = map if found.checked else pool.map
        for rows, found_bad in zip(chunks, run(tried, chunks), strict=True):
            bad.update(found_bad)
            if live and time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                say(f"\rdata: {rows.stop:,} of {n:,} images", end="")
    if live:
        say("\r\x1b[K", end="")
    if bad:
        names = folders.some([f"{e.args[0]} ({e.args[1]})" for e in bad.values()])
        seen = f"{len(bad):,} of {n:,} in {data} cannot be used: {names}"
        if len(bad) == n:
            fail(f"{seen}: no image is left")
        if not skip_bad:
            fail(f"{seen}: repair or remove them, or --skip-bad to leave them out")
        say(f"data: left out {seen}")
    how = " (too many to keep, they are read again and again)" * (not resident)
    if data in NAMES and Path(data).is_dir():
        how += f"; the folder of that name beside is written ./{data}"
    say(f"data: {n - len(bad):,} images, {shape}, from {data} in {time.monotonic() - began:.1f} s"
        + how)
    for what, seen in zip(found.pictures, zip(*ends, strict=True), strict=False):
        low, high = (int(function(map(function, seen))) for function in (min, max))
        if high - low < 64:
            say(f"data: {what} use only the values {low}..{high} of 0..255, almost one grey: class "
                "ids want colours (PNGs with a palette), dark scans a wider range")
    return np.array([row for row in range(n) if row not in bad])
