"""What to train on: built-in drawings, torchvision's sets, or your folder; and the stream of it.

    data = load_images("path/to/images", size=64, device="cuda")
    for x in data.batches(128, seed=0): ...      # float32 (128, 3, 64, 64) in [-1, 1], endless

`data` is always the name of a set, built in or downloaded once, or a folder; names win, so write
./faces for a folder called faces. Pictures become their largest central square, resized to size x
size. A set of at most RESIDENT_BYTES is decoded once and lives on the device; a larger one is read
again for every batch, by `workers` processes. Either way batch k is a function of (seed, k) alone.
A user's mistake ends the program with one line (see fail).

All load_* take: root, the folder of downloaded sets, None for data/ in the repository; split,
"train" or "test"; device; workers; and skip_bad, to leave unreadable files out instead of stopping.
A folder of your own without such splits is what it is: there `split` has no meaning.
"""
import copy
import csv
import difflib
import io
import itertools
import os
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.request import urlopen

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from common import builtin
from common.images import (
    PALETTE,
    image_size,
    is_grey,
    read_halves,
    read_ids,
    read_image,
    resize,
)

RESIDENT_BYTES = 3 * 2**30  # kept on the device; 262,144 images of 3x64x64
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
ROOT = Path(__file__).resolve().parents[1] / "data"
SPLITS = {"train": ("train",), "test": ("test", "val")}  # split -> the folder names it goes by
BUILTIN = ("digits", "faces", "faces-flat", "faces-labels", "faces-outline")
N_BUILTIN = {"train": 10_000, "test": 2_000}
FIRST_BUILTIN = {"train": 0, "test": 1_000_000}  # index of a drawing: the splits share none
N_CROPPED = 2_000  # built-in pictures to crop from: large ones take longer to draw

# name -> torchvision's class, where its files come from, where below the root they belong
TORCHVISION = {
    "mnist": ("MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist/", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                      "FashionMNIST/raw"),
    "kmnist": ("KMNIST", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "KMNIST/raw"),
    "cifar10": ("CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", ""),
    "svhn": ("SVHN", "http://ufldl.stanford.edu/housenumbers/", ""),
    "stl10": ("STL10", "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", ""),
}
LSUN = ["lsun/" + category for category in (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room", "dining_room",
    "kitchen", "living_room", "restaurant", "tower")]
# Published with pix2pix and CycleGAN; a name of both is two sets, for load_pairs and load_unpaired
BERKELEY = "http://efrosgans.eecs.berkeley.edu"
PAIRED = ("facades", "maps", "edges2shoes", "edges2handbags", "cityscapes", "night2day")
UNPAIRED = ("horse2zebra", "apple2orange", "summer2winter_yosemite", "monet2photo", "cezanne2photo",
            "ukiyoe2photo", "vangogh2photo", "maps", "facades", "cityscapes", "iphone2dslr_flower",
            "ae_photos")
NAMES = list(dict.fromkeys([*BUILTIN, *TORCHVISION, "celeba", *LSUN, *PAIRED, *UNPAIRED]))


def fail(message: str) -> NoReturn:
    """Ends the program over a user's mistake: one line on stderr, exit code 2."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # below a status line that is still open
    print("error:", message.replace("\n", " "), file=sys.stderr)
    raise SystemExit(2)


# The stream

class Data:
    """n examples, each of one or more fields, and the endless shuffled stream of them.

    A field of images is float32 (n, c, h, w) in [-1, 1]; of class labels int64 (n,), of label maps
    int64 (n, h, w); of attributes float32 (n, k). A set of one field yields tensors, another set
    tuples of them. name: the set's, or a folder's absolute path. channels: of the images, 1 or 3.
    classes, attributes: their names, or empty.
    """

    def __init__(self, read: Callable, rows: np.ndarray, name: str, size: int, channels: int,
                 classes: Sequence[str] = (), attributes: Sequence[str] = (), *,
                 device: torch.device, workers: int, resident: bool, crops: bool = False):
        self.name, self.size, self.channels = name, size, channels
        self.classes, self.attributes = list(classes), list(attributes)
        self.device, self.workers, self.resident, self.crops = device, workers, resident, crops
        self.salt = 0      # sets of different salt are shuffled differently by the same seed
        self._read = read  # rows, int64 (b,) -> the fields in storage form, see _finish
        self._rows = rows  # example i is row _rows[i]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        """The examples at a slice, sequence or LongTensor of positions, in that order."""
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        return self._finish(self._read(self._placed(self._rows[index])))

    def subset(self, start: int, stop: int) -> "Data":
        """Examples start..stop-1 as a set that shares this one's storage."""
        part = copy.copy(self)
        part._rows = self._rows[start:stop]
        return part

    def batches(self, batch_size: int, seed: int, start: int = 0, rank: int = 0,
                world: int = 1) -> Iterator:
        """Batches start, start + 1, ... without end.

        Each epoch is a new shuffle, and a batch that one epoch cannot fill goes on in the next, so
        that all examples are seen equally often. Of `world` processes the one with number `rank`
        gets rows rank, rank + world, ... of every batch.
        """
        if batch_size > len(self):
            fail(f"{self.name} has {len(self):,} examples, less than one batch of {batch_size:,}: "
                 f"--batch-size {len(self)} or smaller")
        plan = self._plan(batch_size, seed, start, rank, world)
        if self.resident:
            return (self._finish(self._read(rows)) for rows in plan)
        loader = DataLoader(_Reader(self._read), sampler=plan, batch_size=None,
                            num_workers=self.workers, pin_memory=self.device.type == "cuda",
                            generator=torch.Generator())  # else it draws from the global one
        return (self._finish(fields) for fields in loader)

    def _plan(self, batch_size: int, seed: int, start: int, rank: int,
              world: int) -> Iterator[np.ndarray]:
        """The rows of batch start, start + 1, ...: place p % n in the shuffle of epoch p // n."""
        n = len(self)

        @lru_cache(maxsize=2)  # a batch lies in at most two epochs
        def shuffle(epoch: int) -> np.ndarray:
            return np.random.default_rng([seed, self.salt, epoch]).permutation(n)

        for k in itertools.count(start):
            epoch, place = divmod(k * batch_size, n)
            index = shuffle(epoch)[place:place + batch_size]
            if len(index) < batch_size:
                index = np.append(index, shuffle(epoch + 1)[:batch_size - len(index)])
            yield self._placed(self._rows[index], [seed, self.salt, k, 1])[rank::world]

    def _placed(self, rows: np.ndarray, seed: list[int] | None = None) -> np.ndarray:
        """For random crops, (b, 3): each row with the place of its window, else `rows` itself.

        A place is two numbers below 2**31, for the top and the left; without a seed the middle.
        """
        if not self.crops:
            return rows
        if seed is None:
            places = np.full((len(rows), 2), 2**30)
        else:
            places = np.random.default_rng(seed).integers(2**31, size=(len(rows), 2))
        return np.column_stack([rows, places])

    def _finish(self, fields: tuple[torch.Tensor, ...]):
        """From storage to the caller: uint8 is pixels, any other integer ids, a float itself."""
        done = []
        for x in fields:
            x = x.to(self.device, non_blocking=True)
            if x.dtype == torch.uint8:
                x = x.float().div_(127.5).sub_(1)
            elif not x.is_floating_point():
                x = x.long()
            done.append(x)
        return done[0] if len(done) == 1 else tuple(done)


class _Reader:
    """What a DataLoader calls, perhaps in another process: item `rows` is one whole batch."""

    def __init__(self, read: Callable):
        self.read = read

    def __getitem__(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        return self.read(rows)


# Reading: functions of (..., rows) that partial() makes functions of rows, fit for other processes

class BadFile(Exception):
    """A file that cannot be used: BadFile(path, reason)."""


@contextmanager
def _blame(path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as e:
        raise BadFile(str(path), getattr(e, "strerror", None) or str(e)) from e


def _read_resident(fields, rows):
    rows = torch.from_numpy(rows).to(fields[0].device, non_blocking=True)
    return tuple(field.view(len(field), -1).index_select(0, rows)  # flat: each row is one memcpy
                 .view(len(rows), *field.shape[1:]) for field in fields)


def _read_files(files, read_one, tables, rows):
    """files: of each example a tuple of paths; tables: fields that need no reading."""
    examples = [read_one(*files[row]) for row in rows]
    return *map(torch.stack, zip(*examples, strict=True)), *(table[rows] for table in tables)


def _read_arrays(x, tables, size, rows):
    x = x[rows]
    if x.shape[-1] != size:
        x = torch.stack([resize(picture, size) for picture in x])
    return x, *(table[rows] for table in tables)


def _read_drawn(draw, first, fields, rows):
    drawn = draw([first + int(row) for row in rows])
    return tuple(_field(drawn, name) for name in fields)


def _field(drawn, name):
    """A field of builtin.faces or digits in storage form, see Data._finish."""
    if name == "painted":
        return PALETTE[drawn["label_map"].long()].permute(0, 3, 1, 2)
    x = drawn[name]
    if name == "outline":
        return x.expand(-1, 3, -1, -1)  # the channels of the portrait
    return x.int() if name == "label_map" else x.float() if name == "attributes" else x


_LMDB = threading.Lock()


@contextmanager
def _entries(folder: str) -> Iterator:
    """A database, opened for a moment: one process may open it only once, and not across a fork."""
    import lmdb  # here, for only LSUN needs it
    with _LMDB, lmdb.open(folder, readonly=True, lock=False, readahead=False) as database:
        with database.begin() as entries:
            yield entries


def _read_lmdb(folder, keys, size, rows):
    with _entries(folder) as entries:
        files = [io.BytesIO(entries.get(keys[row])) for row in rows]
    pictures = []
    for row, file in zip(rows, files, strict=True):
        with _blame(f"{folder}, entry {keys[row]}"):
            pictures.append(read_image(file, size))
    return torch.stack(pictures),


def _read_crops(whole, size, places):
    """whole: row -> uint8 (c, h, w)."""
    crops = []
    for row, top, left in places.tolist():
        x = whole(row)
        h, w = x.shape[1:]
        top, left = top * (h - size + 1) >> 31, left * (w - size + 1) >> 31
        crops.append(x[:, top:top + size, left:left + size])
    return torch.stack(crops),


def _photo(size, channels, path):
    with _blame(path):
        return read_image(path, size, channels),


def _large_photo(size, channels, files, row):
    with _blame(files[row]):
        x = read_image(files[row], None, channels)
        h, w = x.shape[1:]
        if min(h, w) < size:
            raise ValueError(f"{w}x{h}, smaller than a crop of {size}x{size}")
    return x


def _one_drawn(read, row):
    return read(np.array([row]))[0][0]


def _photos(size, channels, *paths):
    return tuple(_photo(size, channels, path)[0] for path in paths)


def _halves(size, channels, path):
    with _blame(path):
        return read_halves(path, size, channels)


def _photo_and_ids(size, channels, n_classes, ignore, photo, label, *instances):
    x = _photo(size, channels, photo)
    with _blame(label):
        if image_size(label) != image_size(photo):
            raise ValueError("not of the size of its photo {}x{}".format(*image_size(photo)[::-1]))
        y = read_ids(label, size)
        wrong = (y >= n_classes) & (y != ignore) if ignore is not None else y >= n_classes
        if wrong.any():
            raise ValueError(f"id {int(y[wrong][0])}, but the classes are 0..{n_classes - 1}")
    for path in instances:
        with _blame(path):
            return *x, y, read_ids(path, size)
    return *x, y


# What a name or folder consists of

@dataclass
class _Found:
    """A set before it is read: n rows for `read`, or, for crops, the files of pictures."""
    n: int
    read: Callable
    channels: int
    classes: Sequence[str] = ()
    attributes: Sequence[str] = ()
    checked: bool = False  # there is no need to try every example before a stream starts


def _find(data: str, size: int, root, split: str, labels: bool) -> _Found:
    """Images, with their class where `labels`."""
    if data in ("digits", "faces"):
        classes = "0123456789" if data == "digits" else builtin.FACE_CLASSES
        return _drawn(data, size, split, ["image", "label"] if labels else ["image"], classes)
    if data in TORCHVISION:
        return _from_torchvision(data, size, _root(root), split, labels)
    if data == "celeba" and not labels:
        return _celeba(size, _root(root), split, with_attributes=False)
    if data in LSUN and not labels:
        return _lsun(data, size, _root(root), split)
    folder = _folder(data, "classes" if labels else "images")
    files, y, classes = _flat_or_classes(folder)
    if labels and not classes:
        fail(f"{folder}: looked for two or more class folders, and saw {len(files):,} images "
             "directly in it: put those of each class into a folder of its name")
    return _of_files(files, size, (y,) if labels else (), classes=classes)


def _of_files(files: list[Path], size: int, tables=(), **names) -> _Found:
    channels = _channels(files)
    read = partial(_read_files, [(file,) for file in files], partial(_photo, size, channels),
                   tables)
    return _Found(len(files), read, channels, **names)


def _channels(files) -> int:
    return 1 if all(map(is_grey, files)) else 3  # stops at the first file in colour


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
    read = partial(_read_drawn, draw, FIRST_BUILTIN[split] + skip, fields)
    return _Found(N_BUILTIN[split], read, 1 if name == "digits" else 3, classes, attributes,
                  checked=True)


def _from_torchvision(name: str, size: int, root: Path, split: str, labels: bool) -> _Found:
    from torchvision import datasets  # here, for it takes a second that folders need not pay

    kind, url, place = TORCHVISION[name]
    if name == "stl10" and split == "train" and not labels:
        which = {"split": "unlabeled"}  # its 100,000; the labelled ones are 5,000
    elif name in ("svhn", "stl10"):
        which = {"split": split}
    else:
        which = {"train": split == "train"}
    make = partial(getattr(datasets, kind), root, **which)
    try:
        try:
            dataset = make(download=False)
        except RuntimeError:  # not there yet
            dataset = make(download=True)
    except ImportError as e:
        fail(f"{name} needs the package {e.name}: pip install {e.name}")
    except Exception as e:  # of sockets, HTTP, archives, checksums, the disk
        fail(f"{name} could not be downloaded ({e}): get it from {url} and put it into "
             f"{root / place}")
    x = torch.as_tensor(dataset.data)
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    if x.shape[-1] == 28 and size == 32:
        x = F.pad(x, (2, 2, 2, 2))  # 28 px digits are not resampled for the sake of a power of two
    y = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    tables = (torch.as_tensor(y).long(),) if labels else ()
    classes = [name.split(" - ")[0]  # MNIST's are "7 - seven"
               for name in getattr(dataset, "classes", "0123456789")]
    return _Found(len(x), partial(_read_arrays, x, tables, size), x.shape[1], classes,
                  checked=True)


def _celeba(size: int, root: Path, split: str, with_attributes: bool) -> _Found:
    folder = root / "celeba"
    listed, partition = folder / "list_attr_celeba.txt", folder / "list_eval_partition.txt"
    pictures = folder / "img_align_celeba"
    if not (pictures.is_dir() and listed.is_file() and partition.is_file()):
        fail(f"{folder}: looked for img_align_celeba/, list_attr_celeba.txt and "
             "list_eval_partition.txt: get them from "
             "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Google Drive allows no download "
             "by programs)")
    part = "0" if split == "train" else "2"
    lines = (line.split() for line in partition.read_text().splitlines())
    files = [pictures / name for name, number in lines if number == part]
    if not with_attributes:
        return _of_files(files, size)
    names, table = _attributes_of(files, listed)
    return _of_files(files, size, (table,), attributes=names)


def _lsun(name: str, size: int, root: Path, split: str) -> _Found:
    database = f"{name.removeprefix('lsun/')}_{'train' if split == 'train' else 'val'}_lmdb"
    folder = root / database
    if not folder.is_dir():
        fail(f"{folder}: looked for the database of {name}: get "
             f"http://dl.yf.io/lsun/scenes/{database}.zip and unpack it into {root}")
    try:
        with _entries(str(folder)) as entries:
            keys = list(entries.cursor().iternext(keys=True, values=False))
    except ImportError:
        fail(f"{name} needs the package lmdb: pip install lmdb")
    # Not checked: decoding three million pictures would delay each start by an hour.
    return _Found(len(keys), partial(_read_lmdb, str(folder), keys, size), 3, checked=True)


def _from_berkeley(name: str, root: Path, place: str, suffix: str) -> Path:
    """The folder of a set of pairs (place "pix2pix") or unpaired images ("cyclegan")."""
    folder, url = root / place / name, f"{BERKELEY}/{place}/datasets/{name}{suffix}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, and moved there as the last thing: what has its name is complete
        with TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
            archive = Path(part, "archive")
            _download(url, archive)
            if suffix == ".zip":
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(part)  # without any ".." or leading "/"
            else:
                with tarfile.open(archive) as packed:
                    packed.extractall(part, filter="data")  # refuses what leads out
            os.rename(Path(part, name), folder)
    except Exception as e:  # of sockets, HTTP, archives, the disk
        fail(f"{name} could not be downloaded ({e}): get {url} and unpack it as {folder}")
    return folder


def _download(url: str, file: Path) -> None:
    with urlopen(url, timeout=60) as answer, open(file, "wb") as f:
        size, live = int(answer.headers["Content-Length"] or 0), sys.stdout.isatty()
        print(f"data: downloading {url}, {size / 1e6:,.0f} MB", flush=True)
        while piece := answer.read(2**20):
            f.write(piece)
            if live:
                print(f"\rdata: {f.tell() / 1e6:,.0f} MB", end="", flush=True)
        if live:
            print("\r\x1b[K", end="")
        if f.tell() < size:  # a connection that breaks looks like an end
            raise OSError(f"cut off after {f.tell():,} of {size:,} bytes")


def _root(root) -> Path:
    return Path(os.path.abspath(Path(root).expanduser() if root else ROOT))


# Folders

def _name(data) -> str:
    """The name of a set, or the absolute path of a folder: it says the same from everywhere."""
    return data if data in NAMES else os.path.abspath(Path(data).expanduser())


def _folder(data, looked_for: str) -> Path:
    """The absolute path of a folder that exists; `looked_for` is for the message if it does not."""
    if data in NAMES:
        fail(f"{data} has no {looked_for}; a folder of that name is written ./{data}")
    folder = Path(os.path.abspath(Path(data).expanduser()))
    if folder.is_dir():
        return folder
    if folder.is_file():
        fail(f"{folder} is a file: --data takes the folder that it is in, {folder.parent}")
    near = difflib.get_close_matches(str(data), NAMES, 1)
    meant = f"did you mean {near[0]}?" if near else f"the known names are {', '.join(NAMES)}"
    fail(f"{folder} does not exist, and {data} is no known data set: {meant}")


def _images_below(folder: Path) -> list[Path]:
    """All images in a folder and its sub-folders, sorted by path; there must be one."""
    images, others = [], Counter()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        for file in (Path(place, name) for name in files if name[0] != "."):
            if file.suffix.lower() in EXTENSIONS:
                images.append(file)
            else:
                others[file.suffix.lower() or "no extension"] += 1
    if not images:
        seen = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
        fail(f"{folder}: looked for images ({' '.join(EXTENSIONS)}) in it and below, and saw "
             f"{seen or 'no file at all'}: --data takes a folder of images")
    return sorted(images)


def _flat_or_classes(folder: Path) -> tuple[list[Path], torch.Tensor, list[str]]:
    """The images, their classes int64 (n,), and the names of these, none for a flat folder."""
    images = _images_below(folder)
    places = sorted({image.parent.relative_to(folder).parts for image in images})
    tops = sorted({place[0] for place in places if place})
    splits = [top for top in tops if top.lower() in ("train", "training", "val", "valid",
                                                     "validation", "test", "testing")]
    saw = f"{folder}: looked for images in it, or in two or more class folders, and saw "
    if not tops:
        return images, torch.zeros(len(images), dtype=torch.long), []
    if () in places:
        direct = sum(image.parent == folder for image in images)
        fail(f"{saw}{direct:,} in it and {len(images) - direct:,} in sub-folders "
             f"({_some(tops)}): move one kind away, or give one, --data {folder / tops[0]}")
    if splits or len(tops) == 1:
        top = folder / ("train" if "train" in splits else (splits or tops)[0])
        inner = os.path.commonpath([image.parent for image in images if top in image.parents])
        fail(f"{saw}{len(images):,} below {_some(tops)}: images lie deeper, --data {inner}")
    deep = [place for place in places if len(place) > 1]
    if deep:
        fail(f"{saw}{len(images):,}, some in {'/'.join(deep[0])}: class folders hold images "
             f"directly, --data {folder / deep[0][0]}")
    y = [tops.index(image.parent.name) for image in images]
    return images, torch.tensor(y), tops


def _some(names: Sequence) -> str:
    """The first five of a list, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more


def _by_stem(*folders: Path) -> list[tuple[Path, ...]]:
    """The images of several folders, joined by their path without suffix."""
    halves = []
    for folder in folders:
        images = _images_below(folder)
        halves.append({str(image.relative_to(folder).with_suffix("")): image for image in images})
        if len(halves[-1]) < len(images):
            fail(f"{folder}: saw {len(images):,} images of {len(halves[-1]):,} names: a pair is "
                 "found by its name without suffix, so that x.png and x.jpg are one too many")
    common = set(halves[0]).intersection(*halves[1:])
    alone = [image for half in halves for stem, image in half.items() if stem not in common]
    if alone:
        fail(f"{' and '.join(map(str, folders))}: looked for images of the same names, and saw "
             f"{len(common):,} matches, {len(alone):,} without: {_some(alone)}: remove or rename")
    return [tuple(half[stem] for half in halves) for stem in sorted(common)]


def _attributes_of(files: list[Path], listed: Path) -> tuple[list[str], torch.Tensor]:
    """Names, and float {0, 1} (n, k), from attributes.csv or CelebA's list_attr_celeba.txt."""
    with open(listed, newline="", encoding="utf-8-sig") as lines:  # spreadsheets write a BOM
        if listed.suffix == ".csv":
            head, *rows = list(csv.reader(lines)) or [[]]
            names = [name.strip() for name in head[1:]]
        else:  # the count, the names, then a row for each file
            _, names, *rows = [line.split() for line in lines] or [[], []]
    bits = {"1": 1.0, "0": 0.0, "-1": 0.0}
    table = {}
    for row in filter(None, rows):
        file, *values = (cell.strip() for cell in row)
        if len(values) != len(names) or not bits.keys() >= set(values):
            fail(f"{listed}: {file} has the values {' '.join(values)}; looked for {len(names)}, "
                 "each 0 or 1 (or -1 or 1)")
        table[file] = [bits[value] for value in values]
    missing = [file.name for file in files if file.name not in table]
    if missing:
        fail(f"{listed}: no line for {len(missing):,} of {len(files):,} images: {_some(missing)}: "
             "add their lines, or remove the images")
    return names, torch.tensor([table[file.name] for file in files])


# Loading

def load_images(data, size: int, *, root=None, split: str = "train", device="cpu",
                workers: int = 0, skip_bad: bool = False) -> Data:
    """Images x. Of class folders the images of all classes."""
    return _load(_find(data, size, root, split, False), data, size, device, workers, skip_bad)


def load_labelled(data, size: int, *, root=None, split: str = "train", device="cpu",
                  workers: int = 0, skip_bad: bool = False) -> Data:
    """(x, y): y int64 (n,) counts data.classes. A folder has one sub-folder for each class."""
    return _load(_find(data, size, root, split, True), data, size, device, workers, skip_bad)


def load_attributes(data, size: int, *, root=None, split: str = "train", device="cpu",
                    workers: int = 0, skip_bad: bool = False) -> Data:
    """(x, a): a float {0, 1} (n, k), its columns named by data.attributes.

    faces, celeba, or a folder with, in it or beside it, attributes.csv (a header of "file" and the
    names, then a line for each image with 0 or 1, or -1 or 1) or CelebA's list_attr_celeba.txt.
    """
    if data == "faces":
        found = _drawn(data, size, split, ["image", "attributes"], attributes=builtin.ATTRIBUTES)
    elif data == "celeba":
        found = _celeba(size, _root(root), split, with_attributes=True)
    else:
        folder = _folder(data, "attributes")
        lists = [place / name for name in ("attributes.csv", "list_attr_celeba.txt")
                 for place in (folder, folder.parent)]
        listed = next(filter(Path.is_file, lists), None)
        if listed is None:
            fail(f"{folder}: looked for attributes.csv or list_attr_celeba.txt in it and in its "
                 "parent, and saw neither")
        files = _images_below(folder)
        names, table = _attributes_of(files, listed)
        found = _of_files(files, size, (table,), attributes=names)
    return _load(found, data, size, device, workers, skip_bad)


def load_pairs(data, size: int, *, root=None, split: str = "train", device="cpu",
               workers: int = 0, skip_bad: bool = False) -> Data:
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
        return _load(_drawn(data, size, split, [a, "image"]), data, size, device, workers, skip_bad)
    if data in PAIRED:
        folder = _from_berkeley(data, _root(root), "pix2pix", ".tar.gz")
    else:
        folder = _folder(data, "pairs")
    names = [name for part in SPLITS[split] for name in (
        (f"A/{part}", f"B/{part}"), (f"{part}/A", f"{part}/B"), (f"{part}A", f"{part}B"))]
    for a, b in [*names, ("A", "B")]:
        a, b = folder / a, folder / b
        if a.is_dir() != b.is_dir():
            here, missing = (a, b) if a.is_dir() else (b, a)
            fail(f"{missing} does not exist: looked for the other half of the pairs in {here}")
        if a.is_dir():
            files = _by_stem(a, b)
            read_one = _photos
            break
    else:
        parts = [folder / part for part in SPLITS[split] if (folder / part).is_dir()]
        files = [(file,) for file in _images_below(parts[0] if parts else folder)]
        read_one = _halves
    channels = _channels(itertools.chain(*files))
    read = partial(_read_files, files, partial(read_one, size, channels), ())
    return _load(_Found(len(files), read, channels), data, size, device, workers, skip_bad)


def load_unpaired(data, size: int, *, root=None, split: str = "train", device="cpu",
                  workers: int = 0, skip_bad: bool = False) -> tuple[Data, Data]:
    """Two sets of images, A and B, whose streams have nothing to do with each other.

    A folder holds trainA/ and trainB/; testA/ and testB/ (or valA/, valB/) are the split "test".
    Built in: faces, of which A are portraits in colour, B pencil drawings of other people. The
    names in UNPAIRED are downloaded once.
    """
    if data == "faces":
        found = [_drawn(data, size, split, ["image"]),
                 _drawn(data, size, split, ["pencil"], skip=N_BUILTIN[split])]
    else:
        if data in UNPAIRED:
            folder = _from_berkeley(data, _root(root), "cyclegan", ".zip")
        else:
            folder = _folder(data, "unpaired sets")
        pairs = [(folder / f"{part}A", folder / f"{part}B") for part in SPLITS[split]]
        both = next((pair for pair in pairs if all(map(Path.is_dir, pair))), None)
        if both is None:
            seen = sorted(place.name for place in folder.iterdir() if place.is_dir())
            fail(f"{folder}: looked for the folders {pairs[0][0].name} and {pairs[0][1].name} of "
                 f"the two sets, and saw {_some(seen) or 'no folder'}")
        found = [_of_files(_images_below(half), size) for half in both]
    a, b = (_load(half, data, size, device, workers, skip_bad) for half in found)
    b.salt = 1
    return a, b


def load_label_maps(data, size: int, *, root=None, split: str = "train", device="cpu",
                    workers: int = 0, skip_bad: bool = False, n_classes: int | None = None,
                    ignore: int | None = None) -> Data:
    """(x, y) or (x, y, instances): photos, class ids and instance ids, int64 (n, h, w) both.

    A folder holds {split}_img, {split}_label and perhaps {split}_inst, joined by file name. Ids are
    0..n_classes - 1, n_classes = 1 + the largest one where it is not given; pixels of the id
    `ignore` stay as they are. data.classes has n_classes names. Built in: faces, of their PARTS.
    """
    if data == "faces":
        found = _drawn(data, size, split, ["image", "label_map"], classes=builtin.PARTS)
        return _load(found, data, size, device, workers, skip_bad)
    folder = _folder(data, "label maps")
    part = next((p for p in SPLITS[split] if (folder / f"{p}_img").is_dir()), split)
    folders = [folder / f"{part}_{kind}" for kind in ("img", "label", "inst")]
    for needed in folders[:2]:
        if not needed.is_dir():
            fail(f"{needed} does not exist: looked for {part}_img, {part}_label and perhaps "
                 f"{part}_inst in {folder}")
    files = _by_stem(*filter(Path.is_dir, folders))
    if n_classes is None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            n_classes = 1 + max(pool.map(partial(_largest_id, ignore), (f[1] for f in files)))
    channels = _channels(photo for photo, *_ in files)
    read = partial(_read_files, files, partial(_photo_and_ids, size, channels, n_classes, ignore),
                   ())
    found = _Found(len(files), read, channels, [str(i) for i in range(n_classes)])
    return _load(found, data, size, device, workers, skip_bad)


def _largest_id(ignore: int | None, label: Path) -> int:
    try:
        y = read_ids(label)
    except (OSError, ValueError):
        return 0  # reported when all files are read
    return int(y.max() if ignore is None else torch.where(y == ignore, 0, y).max())


def load_crops(data, size: int, *, root=None, split: str = "train", device="cpu",
               workers: int = 0, skip_bad: bool = False) -> Data:
    """Random size x size windows, at full resolution, of pictures of any size.

    The windows of batch k are a function of (seed, k) too; data[i] is the one in the middle.
    A folder is as for load_images. Built in: faces, drawn at twice the size.
    """
    _check_size(size)
    if data == "faces":
        found = _drawn(data, 2 * size, split, ["image"])
        found.n = N_CROPPED
        whole = partial(_one_drawn, found.read)
        n_bytes = found.n * 3 * (2 * size)**2
    else:
        files, _, _ = _flat_or_classes(_folder(data, "large images"))
        channels = _channels(files)
        whole = partial(_large_photo, size, channels, files)
        found = _Found(len(files), whole, channels)
        n_bytes = channels * sum(map(_pixels, files))
    resident = n_bytes <= RESIDENT_BYTES
    device = torch.device(device)
    pictures = {}

    def keep(rows: range) -> None:
        several = found.read(np.array(rows))[0] if found.checked else map(whole, rows)
        for row, picture in zip(rows, several, strict=True):
            if resident:
                pictures[row] = picture.to(device)

    rows = _try_all(found, keep, data, f"{found.channels} channels", resident, skip_bad)
    read = partial(_read_crops, pictures.__getitem__ if resident else whole, size)
    return Data(read, rows, _name(data), size, found.channels, device=device, workers=workers,
                resident=resident, crops=True)


def _pixels(file: Path) -> int:
    try:
        h, w = image_size(file)
    except (OSError, ValueError):
        return 0  # reported when all files are read
    return h * w


# From what was found to a Data

def _load(found: _Found, data, size: int, device, workers: int, skip_bad: bool) -> Data:
    """Reads all examples once: to keep them, or, of a set too large for that, to check them."""
    _check_size(size)
    example = _first_good(found)
    n_bytes = found.n * sum(field.nbytes for field in example)
    resident = n_bytes <= RESIDENT_BYTES
    device = torch.device(device)
    store = [torch.empty(found.n, *field.shape[1:], dtype=field.dtype) if resident else None
             for field in example]

    def keep(rows: range) -> None:
        for kept, field in zip(store, found.read(np.array(rows)), strict=True):
            if resident:
                kept[rows.start:rows.stop] = field

    rows = _try_all(found, keep, data, f"{found.channels}x{size}x{size}", resident, skip_bad)
    read = found.read
    if resident:
        read = partial(_read_resident, [kept.to(device) for kept in store])
    return Data(read, rows, _name(data), size, found.channels, found.classes, found.attributes,
                device=device, workers=workers, resident=resident)


def _check_size(size: int) -> None:
    if size < 1:
        fail(f"--size {size}: looked for a number of pixels, 1 or more")


def _first_good(found: _Found) -> tuple[torch.Tensor, ...]:
    """The fields of one example, to know their shapes; empty if every file is bad."""
    for row in range(found.n):
        try:
            return found.read(np.array([row]))
        except BadFile:
            continue
    return ()


def _try_all(found: _Found, keep: Callable[[range], None], data, shape: str, resident: bool,
             skip_bad: bool) -> np.ndarray:
    """Calls keep(rows) for all rows, in parallel; returns the rows that are no bad files."""
    n, began, shown, bad = found.n, time.monotonic(), 0.0, {}
    if found.checked and not resident:
        return np.arange(n)

    def tried(rows: range) -> dict[int, BadFile]:
        try:
            keep(rows)
        except BadFile as e:
            if len(rows) == 1:
                return {rows[0]: e}
            return {row: e for one in rows for row, e in tried(range(one, one + 1)).items()}
        return {}

    # Files in threads of our own. Drawings and arrays come in larger chunks, from this thread: they
    # bring their own threads, and the drawings set torch's number of them for a while.
    size = 1024 if found.checked else 64
    chunks = [range(i, min(i + size, n)) for i in range(0, n, size)]
    live = sys.stdout.isatty()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        run = map if found.checked else pool.map
        for rows, found_bad in zip(chunks, run(tried, chunks), strict=True):
            bad.update(found_bad)
            if live and time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                print(f"\rdata: {rows.stop:,} of {n:,} images", end="", flush=True)
    if live:
        print("\r\x1b[K", end="")
    if bad:
        names = _some([f"{e.args[0]} ({e.args[1]})" for e in bad.values()])
        seen = f"{len(bad):,} of {n:,} in {data} cannot be used: {names}"
        if len(bad) == n:
            fail(f"{seen}: no image is left")
        if not skip_bad:
            fail(f"{seen}: repair or remove them, or --skip-bad to leave them out")
        print(f"data: left out {seen}")
    print(f"data: {n - len(bad):,} images, {shape}, from {data} in {time.monotonic() - began:.1f} s"
          + ("" if resident else " (checked; too many to keep, they are read again and again)"))
    return np.array([row for row in range(n) if row not in bad])


# Photographs to be translated, of any size

def read_photos(source: Path, out: Path, channels: int, side: int | None = None,
                bytes_per_pixel: int = 0) -> Iterator[tuple[Path, torch.Tensor]]:
    """Of the image `source`, or of all in and below that folder, one by one: the place below `out`
    for what is made of it, under its own name, and the picture, float (1, channels, h, w) in
    [-1, 1]. With `side` it is resized first, the shorter side to that many pixels.

    What cannot be read is left out and named at the end, and so is what would take more than the
    machine's memory, by `bytes_per_pixel`; if nothing is left, the program ends.
    """
    folder, made = source if source.is_dir() else source.parent, out.resolve()
    files = sorted(file for file in (source.rglob("*") if source.is_dir() else [source])
                   if file.suffix.lower() in EXTENSIONS and file.name[0] != "." and file.is_file())
    if folder.resolve() in made.parents:  # what was made before is no input
        files = [file for file in files if made not in file.resolve().parents]
    if not files:
        fail(f"--input {source.resolve()}: looked for an image, or a folder of images "
             f"({' '.join(EXTENSIONS)}), and saw {'none' if source.exists() else 'nothing there'}")
    originals = {file.resolve() for file in files}
    if any((made / file.relative_to(folder)).resolve() in originals for file in files):
        fail(f"--out {out}: images of --input would be overwritten there: name another folder")
    bad = []
    for file in files:
        try:
            h, w = image_size(file)
            needed = bytes_per_pixel * h * w * (side / min(h, w) if side else 1) ** 2
            if needed > _memory():
                raise ValueError(f"{w}x{h} pixels would take about {needed / 2**30:,.0f} GiB of "
                                 "memory: --side makes them fewer")
            x = read_image(file, None, channels)[None] / 127.5 - 1
        except (OSError, ValueError) as e:
            bad.append(f"{file} ({getattr(e, 'strerror', None) or e})")
            continue
        if side:
            size = [max(1, round(s * side / min(x.shape[2:]))) for s in x.shape[2:]]
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
        yield out / file.relative_to(folder), x
    if len(bad) == len(files):
        fail(f"--input: none of {len(files):,} images could be used: {', '.join(bad)}")
    print(f"wrote {len(files) - len(bad):,} of {len(files):,} to {out}")
    for line in bad:
        print(f"left out: {line}")


def _memory() -> float:
    """Of the machine, in bytes; without end where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return float("inf")
