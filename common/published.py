"""Published data sets: their names, where they come from, and getting them once."""
import hashlib
import os
import shutil
import signal
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import torch

from common import fail, say
from common.folders import cells

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
# Published with pix2pix and CycleGAN; a name of both is two sets, for load_pairs and load_unpaired.
# Of an archive, what is known: its bytes, as its server has announced them (cityscapes: an earlier
# server), or the first 16 digits of its SHA-256, as TensorFlow Datasets records it.
BERKELEY = "http://efrosgans.eecs.berkeley.edu"
PAIRED = {"facades": 30_168_306, "maps": 250_242_400, "edges2shoes": None, "edges2handbags": None,
          "cityscapes": 103_441_232, "night2day": None}
UNPAIRED = {
    "horse2zebra": "a74d9d392eecca99", "apple2orange": "845a191e9af89264",
    "summer2winter_yosemite": "167fe1726807a9d2", "monet2photo": "88f91b00fc228f97",
    "cezanne2photo": "3a6c10ca21f94858", "ukiyoe2photo": "02a2a2fb5ecf425c",
    "vangogh2photo": "362c3473e70be094", "maps": "639534f69dbf9f36", "facades": "9a31ebf3a31b9b5c",
    "cityscapes": "d2f6910fd056c1ee", "iphone2dslr_flower": "8fcb5e374d631b10", "ae_photos": None}
MAX_BYTES = 20 * 2**30  # of an archive, packed and unpacked; edges2handbags has 8.6 GB


def torchvision_set(name: str, root: Path, split: str, labels: bool
                    ) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """uint8 (n, c, h, w), classes int64 (n,), and the names of these."""
    from torchvision import datasets  # here, for it takes a second that folders need not pay

    kind, url, place = TORCHVISION[name]
    which = {"split": split} if name in ("svhn", "stl10") else {"train": split == "train"}
    if name == "stl10" and split == "train" and not labels:
        which = {"split": "unlabeled"}  # its 100,000; the labelled ones are 5,000
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
    y = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    classes = [name.split(" - ")[0]  # MNIST's are "7 - seven"
               for name in getattr(dataset, "classes", "0123456789")]
    return x, torch.as_tensor(y).long(), classes


def celeba_files(root: Path, split: str) -> tuple[list[Path], Path]:
    """The pictures of a split, and the list of their attributes."""
    folder = root / "celeba"
    pictures, listed = folder / "img_align_celeba", folder / "list_attr_celeba.txt"
    partition = folder / "list_eval_partition.txt"
    if not (pictures.is_dir() and listed.is_file() and partition.is_file()):
        fail(f"{folder}: looked for {pictures.name}/, {listed.name} and {partition.name}: get them "
             "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Google Drive allows no "
             "download by programs)")
    rows = cells(partition)
    if wrong := [row for row in rows if len(row) != 2]:
        fail(f"{partition}: looked for a name and 0, 1 or 2 in each line, and saw {wrong[0]}")
    part = "0" if split == "train" else "2"
    return [pictures / name for name, number in rows if number == part], listed


def lsun_folder(name: str, root: Path, split: str) -> Path:
    """An LMDB database."""
    database = f"{name.removeprefix('lsun/')}_{'train' if split == 'train' else 'val'}_lmdb"
    folder = root / database
    if not folder.is_dir():
        fail(f"{folder}: looked for the database of {name}: get "
             f"http://dl.yf.io/lsun/scenes/{database}.zip and unpack it into {root}")
    return folder


def berkeley_folder(name: str, root: Path, kind: str) -> Path:
    """A set of pairs (kind "pix2pix") or of two unpaired sets ("cyclegan")."""
    suffix, known = {"pix2pix": (".tar.gz", PAIRED), "cyclegan": (".zip", UNPAIRED)}[kind]
    folder, url = root / kind / name, f"{BERKELEY}/{kind}/datasets/{name}{suffix}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, and moved there as the last thing: what has its name is complete
        with _sigterm_raises(), TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
            archive = Path(part, "archive")
            _download(url, archive, known[name])
            _unpack(archive, Path(part))
            os.rename(Path(part, name), folder)
    except Exception as e:  # of sockets, HTTP, archives, the disk
        fail(f"{name} could not be downloaded ({e}): get {url} and unpack it as {folder}")
    return folder


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """As Ctrl-C does: so that what was begun is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main one may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _download(url: str, file: Path, known: int | str | None) -> None:
    """known: the size in bytes, or the beginning of the SHA-256, or nothing."""
    with urlopen(url, timeout=60) as answer, open(file, "wb") as f:
        size, live = int(answer.headers["Content-Length"] or 0), sys.stdout.isatty()
        say(f"data: downloading {url}, {size / 1e6:,.0f} MB")
        digest = hashlib.sha256()
        while piece := answer.read(2**20):
            digest.update(piece)
            f.write(piece)
            if f.tell() > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES:,} bytes")
            if live:
                say(f"\rdata: {f.tell() / 1e6:,.0f} MB", end="")
        if live:
            say("\r\x1b[K", end="")
        if f.tell() < size:  # a connection that breaks looks like an end
            raise OSError(f"cut off after {f.tell():,} of {size:,} bytes")
        if known not in (None, f.tell(), digest.hexdigest()[:16]):
            raise OSError(f"{f.tell():,} bytes, SHA-256 {digest.hexdigest()}, where {known} is "
                          "known of it")


def _unpack(archive: Path, folder: Path) -> None:
    """Its files, and nothing else that it may hold: links, devices, what leads out of the folder.
    Not by extractall, which is safe in no Python before 3.10.12."""
    total, zipped = 0, zipfile.is_zipfile(archive)
    with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as packed:
        for member in packed.infolist() if zipped else packed:
            if member.is_dir() if zipped else not member.isfile():
                continue
            file = Path(os.path.normpath(folder / (member.filename if zipped else member.name)))
            total += member.file_size if zipped else member.size
            if folder not in file.parents:
                raise ValueError(f"{file} lies outside")
            if total > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes unpacked")
            file.parent.mkdir(parents=True, exist_ok=True)
            content = packed.open(member) if zipped else packed.extractfile(member)
            with content, open(file, "wb") as f:
                shutil.copyfileobj(content, f)
