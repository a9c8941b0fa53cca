"""The endless stream of a set's batches: a function of (seed, place), wherever its pixels lie."""
import copy
import io
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader

from common import fail, images


class BadFile(Exception):
    """A file, or a whole set, that cannot be read: BadFile(path, reason)."""

    def __str__(self) -> str:
        return "{} cannot be used: {}".format(*self.args)


class Data:
    """n examples, each of one or more fields, and the endless shuffled stream of them.

    A field of images is float32 (n, c, h, w) in [-1, 1]; of class labels int64 (n,), of label maps
    int64 (n, h, w); of attributes float32 (n, k). A set of one field yields tensors, another set
    tuples of them. name: what to give for `data` to load it again, see folders.portable.
    split: "test" if these are held out, "train" if there may be trained on them. channels: of the
    images, 1 or 3. classes, attributes: their names, or empty.

    Reading a streamed set may raise BadFile, for a file may vanish at any time. With skip_bad the
    next good example takes its place.
    """

    def __init__(self, found, read: Callable, rows: np.ndarray, name: str, size: int,
                 device: torch.device, workers: int, resident: bool, skip_bad: bool):
        self.name, self.size, self.channels, self.split = name, size, found.channels, found.split
        self.classes, self.attributes = list(found.classes), list(found.attributes)
        self.crops, self.skip_bad = bool(found.whole), skip_bad
        self.device, self.workers, self.resident = device, workers, resident
        self.salt = 0      # sets of different salt are shuffled differently by the same seed
        self._read = read  # rows, int64 (b,) -> the fields in storage form, see _finish
        self._rows = rows  # example i is row _rows[i]; they ascend

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        """The examples at a slice, sequence or LongTensor of positions, in that order."""
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        return self._finish(self._reader()[self._placed(self._rows[index])])

    def of(self, channels: int) -> "Data":
        """Itself, if its images have so many channels: a run's networks take no others."""
        if self.channels != channels:
            fail(f"{self.name}: its images have {self.channels} channels, the run's {channels}")
        return self

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
        return self._streamed(iter(DataLoader(
            self._reader(), sampler=plan, batch_size=None, num_workers=self.workers,
            pin_memory=self.device.type == "cuda", worker_init_fn=_outlive_signals,
            generator=torch.Generator())))  # else it draws from the global one

    def _streamed(self, loader: Iterator) -> Iterator:
        while True:
            try:
                fields = next(loader)
            except (OSError, RuntimeError, EOFError) as e:  # of processes and their shared memory
                if not self.workers:
                    raise
                reason = f"{e}".strip().splitlines() or [type(e).__name__]
                raise BadFile(self.name, f"its {self.workers} readers failed ({reason[-1]}): "
                              "--workers 0 reads without them") from e
            yield self._finish(fields)

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

    def _reader(self) -> "Reader":
        return Reader(self._read, self._rows if self.skip_bad else None)

    def _finish(self, fields):
        """From storage to the caller: uint8 is pixels, any other integer ids, a float itself."""
        if isinstance(fields, BadFile):
            raise fields
        done = []
        for x in fields:
            x = _to(x, self.device)
            if x.dtype == torch.uint8:
                x = x.float().div_(127.5).sub_(1)
            elif not x.is_floating_point():
                x = x.long()
            done.append(x)
        return done[0] if len(done) == 1 else tuple(done)


class Reader:
    """What a DataLoader calls, perhaps in another process: item `rows` is one whole batch, or the
    BadFile in it, which would lose its two parts if it were raised there. spare: the rows of which
    the next good one takes the place of a bad one."""

    def __init__(self, read: Callable, spare: np.ndarray | None = None):
        self.read, self.spare = read, spare

    def __getitem__(self, rows: np.ndarray) -> tuple[torch.Tensor, ...] | BadFile:
        try:
            return self.read(rows)
        except BadFile as e:
            if self.spare is None:
                return e
        examples = [self._near(rows[i:i + 1].copy()) for i in range(len(rows))]
        bad = [e for e in examples if isinstance(e, BadFile)]
        return bad[0] if bad else tuple(map(torch.cat, zip(*examples, strict=True)))

    def _near(self, row: np.ndarray) -> tuple[torch.Tensor, ...] | BadFile:
        for spare in np.roll(self.spare, -np.searchsorted(self.spare, row.flat[0])):
            row.flat[0] = spare  # of a crop, its window stays
            try:
                return self.read(row)
            except BadFile as e:
                bad = e
        return bad


def _outlive_signals(_: int) -> None:
    """In a worker: Ctrl-C and SIGTERM reach all processes, and the main one has yet to save. Of its
    own SIGTERM a worker dies, or the end of the program would wait for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux: it tells who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _to(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Without waiting for the device, which only a copy from pinned memory can."""
    if (x.device.type, device.type) == ("cpu", "cuda") and torch.cuda.is_available():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def free_bytes(device: torch.device) -> float:
    """What is free there, without end where it cannot be told. Of the machine itself, what could
    be made free, or, where it does not say that, all it has."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return float("inf")


# Reading: functions of (..., rows) that partial() makes functions of rows, fit for other processes.

@contextmanager
def _blame(path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as e:
        raise BadFile(str(path), getattr(e, "strerror", None) or str(e)) from e


def read_resident(fields, rows):
    rows = _to(torch.from_numpy(rows), fields[0].device)
    return tuple(field.view(len(field), -1).index_select(0, rows)  # flat: each row is one memcpy
                 .view(len(rows), *field.shape[1:]) for field in fields)


def read_files(files, read_one, tables, rows):
    """files: of each example a tuple of paths; tables: fields that need no reading."""
    examples = [read_one(*files[row]) for row in rows]
    return *map(torch.stack, zip(*examples, strict=True)), *(table[rows] for table in tables)


def read_arrays(x, tables, size, rows):
    x = x[rows]
    if x.shape[-1] != size:
        x = torch.stack([images.resize(picture, size) for picture in x])
    return x, *(table[rows] for table in tables)


def read_drawn(draw, first, fields, rows):
    drawn = draw([first + int(row) for row in rows])

    def stored(name):  # see Data._finish
        if name == "painted":
            return images.PALETTE[drawn["label_map"].long()].permute(0, 3, 1, 2)
        x = drawn[name]
        if name == "outline":
            return x.expand(-1, 3, -1, -1)  # the channels of the portrait
        return x.int() if name == "label_map" else x.float() if name == "attributes" else x

    return tuple(map(stored, fields))


_LMDB = threading.Lock()


@contextmanager
def entries_of(folder: str) -> Iterator:
    """A database, opened for a moment: one process may open it only once, and not across a fork."""
    import lmdb  # here, for only LSUN needs it
    try:
        with _LMDB, lmdb.open(folder, readonly=True, lock=False, readahead=False) as database:
            with database.begin() as entries:
                yield entries
    except lmdb.Error as e:
        raise BadFile(folder, str(e)) from e


def read_lmdb(folder, keys, size, rows):
    with entries_of(folder) as entries:
        files = [io.BytesIO(entries.get(keys[row])) for row in rows]
    pictures = []
    for row, file in zip(rows, files, strict=True):
        with _blame(f"{folder}, entry {keys[row]}"):
            pictures.append(images.read_image(file, size))
    return torch.stack(pictures),


def read_crops(whole, size, places):
    """whole: row -> uint8 (c, h, w)."""
    crops = []
    for row, top, left in places.tolist():
        x = whole(row)
        h, w = x.shape[1:]
        top, left = top * (h - size + 1) >> 31, left * (w - size + 1) >> 31
        crops.append(x[:, top:top + size, left:left + size])
    return torch.stack(crops),


def read_file(function, size, channels, white, path):
    with _blame(path):
        x = function(path, size, channels, white)
    return x if isinstance(x, tuple) else (x,)


def read_whole(size, channels, white, files, row):
    """A picture to take crops from."""
    with _blame(files[row]):
        x = images.read_image(files[row], None, channels, white)
        h, w = x.shape[1:]
        if min(h, w) < size:
            raise ValueError(f"{w}x{h}, smaller than a crop of {size}x{size}")
    return x


def read_several(whole, rows):
    return [whole(row) for row in rows.tolist()],


def one_drawn(read, row):
    return read(np.array([row]))[0][0]


def read_two(size, channels, whites, *paths):
    """Two files of one thing. Of other proportions, the squares in their middles would not be."""
    both = []
    for path, white in zip(paths, whites, strict=True):
        with _blame(path):
            both.append(images.read_upright(path, size, channels, white))
    (a, (h, w)), (b, (g, v)) = both
    if abs(w * g - h * v) > max(h, w, g, v):  # more than rounding a side to whole pixels
        raise BadFile(str(paths[1]), f"{v}x{g}, where {paths[0]} is {w}x{h}: the two of a pair "
                      "have the same proportions")
    return a, b


def read_labelled(size, channels, white, n_classes, ignore, photo, label, *instances):
    with _blame(photo):
        x, size_of_photo = images.read_upright(photo, size, channels, white)
    with _blame(label):
        if images.image_size(label) != size_of_photo:
            raise ValueError("not of the size of its photo {}x{}".format(*size_of_photo[::-1]))
        y = images.read_ids(label, size)
        wrong = (y < 0) | (y >= n_classes)
        if ignore is not None:
            wrong &= y != ignore
        if wrong.any():
            raise ValueError(f"id {int(y[wrong][0])}, but the classes are 0..{n_classes - 1}")
    for path in instances:
        with _blame(path):
            return x, y, images.read_ids(path, size)
    return x, y
