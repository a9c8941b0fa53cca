"""common/data.py and stream.py: what is refused and how, and that the stream is a function."""
import contextlib
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import builtin, data
from common.images import PALETTE


def write(folder, *names, size=(8, 8), colour=None, mode="RGB"):
    """One picture for each name, of the grey of its place in the list or of `colour`."""
    for i, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = 10 * i if colour is None else colour
        Image.new("RGB", size, (grey,) * 3).convert(mode).save(path)
    return folder


def pngs(n, prefix=""):
    return [f"{prefix}{i:02d}.png" for i in range(n)]


def error(capsys, call, *args, **options):
    """The one line on stderr with which `call` ends the program."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call(*args, **options)
    line = capsys.readouterr().err
    assert stop.value.code == 2
    assert line.startswith("error: ") and line.count("\n") == 1 and line.endswith("\n")
    return line


def identity(x):
    """The number of the picture that write() gave a grey, from pixels in [-1, 1]."""
    return ((x[:, 0, 0, 0] + 1) * 127.5 / 10).round().long().tolist()


def take(n, batches):
    return list(itertools.islice(batches, n))


@pytest.fixture
def ten(tmp_path):
    return write(tmp_path / "ten", *pngs(10))


@pytest.fixture
def streamed(monkeypatch):
    monkeypatch.setattr(data, "RESIDENT_BYTES", 0)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(data, "N_BUILTIN", {"train": 8, "test": 8})
    monkeypatch.setattr(data, "N_CROPPED", 4)


# Folders

def test_flat_folder_any_suffix_and_case(tmp_path, capsys):
    names = ["b.PNG", "a.jpg", "c.JPeG", "d.bmp", "e.webp", "f.TIF", "g.tiff", "h.jpeg", "i.ppm",
             "j.pgm", "k.gif"]
    write(tmp_path, *names, ".h.png", "__MACOSX/i.png", ".j/k.png")
    (tmp_path / "h.jpeg").rename(tmp_path / "h.jfif")
    for name in ("notes.txt", "a.heic", "b.HEIC", "attributes.csv"):
        (tmp_path / name).write_text("no image")
    x = data.load_images(tmp_path, 4)
    assert len(x) == 11 and x[:].shape == (11, 3, 4, 4)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"data: left out in {tmp_path}, by suffix: 2 .heic, 1 .txt"
    assert second.startswith(f"data: 11 images, 3x4x4, from {tmp_path} in ")


def test_range_and_order(ten):
    x = data.load_images(ten, 8)[:]
    assert identity(x) == list(range(10)) and x.dtype == torch.float32
    assert x[3].unique().item() == pytest.approx(30 / 127.5 - 1, abs=1e-6)


@pytest.mark.parametrize("mode, channels", [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("P", 3)])
def test_one_channel_only_if_all_files_are_grey(tmp_path, mode, channels):
    write(tmp_path, "a.png", "b.png", mode="L")
    write(tmp_path, "c.png", mode=mode)
    x = data.load_images(tmp_path, 8)
    assert x.channels == channels and x[:1].shape == (1, channels, 8, 8)


def test_class_folders(tmp_path):
    write(tmp_path, "cat/0.png", "cat/1.png", "dog/0.png")
    x, y = data.load_labelled(tmp_path, 8)[:]
    assert identity(x) == [0, 1, 2] and y.tolist() == [0, 0, 1] and y.dtype == torch.int64
    assert data.load_labelled(tmp_path, 8).classes == ["cat", "dog"]
    assert len(data.load_images(tmp_path, 8)) == 3


LOADERS = {name: getattr(data, "load_" + name) for name in (
    "images", "labelled", "attributes", "pairs", "unpaired", "label_maps", "crops")}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_folder_names_its_path_and_the_nearest_name(tmp_path, monkeypatch, capsys,
                                                              loader):
    monkeypatch.chdir(tmp_path)
    line = error(capsys, LOADERS[loader], "mnits", 8)
    assert str(tmp_path / "mnits") in line and "did you mean mnist?" in line


@pytest.mark.parametrize("loader, names, told", [
    ("images", [], "no file at all"), ("labelled", [], "no file at all"),
    ("crops", ["a.txt", "b.txt", "c.mp4"], "2 .txt, 1 .mp4"),
    ("labelled", ["x/a.png", "x/b.png"], "2 images in one folder, {}/x: put those of each class"),
    ("labelled", ["x/y/a.png", "x/z/a.png"], "2 images below x: images lie deeper, --data {}/x"),
    ("labelled", ["Train/a.png", "test/b.png"], "--data {}/Train"),
    ("labelled", ["train/cat/a.png", "train/dog/a.png", "test/cat/b.png"], "--data {}/train"),
    ("labelled", ["a.png", "x/b.png", "y/c.png"], "some in sub-folders (x, y)"),
    ("labelled", ["x/a.png", "y/z/b.png"], "some in y/z"),
    ("images", ["train/a.png", "test/b.png"], "--data {}/train"),
    ("crops", ["x/Training/cat/a.png", "x/valid/dog/b.png"], "--data {}/x/Training"),
    ("attributes", ["train/a.png", "val/b.png"], "--data {}/train"),
])
def test_folders_of_another_layout(tmp_path, capsys, loader, names, told):
    write(tmp_path, *(name for name in names if name.endswith("png")))
    for name in [*names, "attributes.csv"]:
        (tmp_path / name).touch()
    line = error(capsys, LOADERS[loader], tmp_path, 4)
    assert str(tmp_path) in line and told.format(tmp_path) in line


def test_photos_by_year_and_month(tmp_path):
    names = ["2019/05/a.png", "2019/11/b.png", "2021/c.png", "d.png", "train/e.png"]
    for loader in (data.load_images, data.load_crops):
        assert identity(loader(write(tmp_path, *names), 8)[:]) == [0, 1, 2, 3, 4]


def test_a_file_is_no_folder(ten, capsys):
    line = error(capsys, data.load_images, ten / "00.png", 8)
    assert f"{ten / '00.png'} is a file" in line and f"in, {ten}" in line


def test_a_flat_folder_has_no_classes(ten, capsys):
    line = error(capsys, data.load_labelled, ten, 8)
    assert f"10 images in one folder, {ten}: put those of each class into a" in line


@pytest.mark.parametrize("size", [0, -3])
def test_size(ten, capsys, size):
    assert f"--size {size}" in error(capsys, data.load_images, ten, size)
    assert f"--size {size}" in error(capsys, data.load_images, "digits", size)


def test_names_win_over_folders(tmp_path, few, monkeypatch, capsys):
    assert "digits has no attributes" in error(capsys, data.load_attributes, "digits", 8)
    monkeypatch.chdir(write(tmp_path, "digits/a.png"))
    assert len(data.load_images("digits", 8)) == 8
    assert "the folder of that name beside is written ./digits" in capsys.readouterr().out
    assert len(data.load_images("./digits", 8)) == 1
    assert "written ./digits" not in capsys.readouterr().out


# Bad files

@pytest.fixture
def damaged(ten):
    (ten / "03.png").write_bytes(b"not a picture")
    (ten / "07.png").write_bytes((ten / "07.png").read_bytes()[:50])
    return ten


@pytest.mark.parametrize("budget", [0, 2**30])
def test_bad_files_stop_the_run_before_training(damaged, monkeypatch, capsys, budget):
    monkeypatch.setattr(data, "RESIDENT_BYTES", budget)
    line = error(capsys, data.load_images, damaged, 8)
    assert "2 of 10" in line and "--skip-bad" in line
    assert f"{damaged / '03.png'} (not an image)" in line and str(damaged / "07.png") in line


@pytest.mark.parametrize("budget", [0, 2**30])
def test_skip_bad(damaged, monkeypatch, capsys, budget):
    monkeypatch.setattr(data, "RESIDENT_BYTES", budget)
    x = data.load_images(damaged, 8, skip_bad=True)
    assert identity(x[:]) == [0, 1, 2, 4, 5, 6, 8, 9] and x.resident == (budget > 0)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and "left out 2 of 10" in out[0] and "8 images" in out[1]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_nothing_but_bad_files(tmp_path, capsys, skip_bad):
    (tmp_path / "a.png").write_bytes(b"x")
    line = error(capsys, data.load_images, tmp_path, 8, skip_bad=skip_bad)
    assert "1 of 1" in line and str(tmp_path / "a.png") in line


@pytest.fixture
def vanishing(ten, streamed):
    """A streamed set, of which 03.png has gone since."""
    def load(**options):
        x = data.load_images(write(ten, *pngs(10)), 8, **options)
        (ten / "03.png").unlink()
        return x
    return load


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_is_named_in_the_main_process(vanishing, ten, workers):
    x = vanishing(workers=workers)
    with pytest.raises(data.BadFile) as bad:
        take(3, x.batches(4, seed=0))
    assert bad.value.args == (str(ten / "03.png"), "No such file or directory")
    assert str(bad.value) == f"{ten / '03.png'} cannot be used: No such file or directory"
    with pytest.raises(data.BadFile):
        x[3:4]


def test_with_skip_bad_its_neighbour_takes_its_place(vanishing, ten):
    expected = [[4 if i == 3 else i for i in identity(batch)]
                for batch in take(5, data.load_images(ten, 8).batches(4, seed=0))]
    for workers in (0, 2):
        x = vanishing(skip_bad=True, workers=workers)
        assert [identity(batch) for batch in take(5, x.batches(4, seed=0))] == expected
        assert identity(x[2:4]) == [2, 4]
        assert identity(x.subset(0, 4)[3:]) == [0]  # and not 4, which may be held out


def test_a_crop_of_a_neighbour(ten, streamed):
    x = data.load_crops(write(ten, *pngs(10), size=(30, 20)), 8, skip_bad=True)
    whole = take(4, x.batches(5, seed=0))
    (ten / "03.png").unlink()
    for a, b in zip(whole, x.batches(5, seed=0), strict=False):
        assert [4 if i == 3 else i for i in identity(a)] == identity(b) and b.shape == a.shape


def test_a_damaged_entry_of_lsun(tmp_path, streamed, monkeypatch):
    entries = {b"%d" % i: (write(tmp_path, *pngs(3)) / f"{i:02d}.png").read_bytes()
               for i in range(3)}
    entries[b"1"] = b"damaged"
    begun = SimpleNamespace(get=entries.get, cursor=lambda: SimpleNamespace(
        iternext=lambda **_: iter(entries)))
    opened = SimpleNamespace(begin=lambda: contextlib.nullcontext(begun))
    monkeypatch.setitem(sys.modules, "lmdb", SimpleNamespace(
        Error=KeyError, open=lambda *_, **__: contextlib.nullcontext(opened)))
    (tmp_path / "tower_train_lmdb").mkdir()
    load = partial(data.load_images, "lsun/tower", 8, root=tmp_path)
    with pytest.raises(data.BadFile, match="lmdb, entry b'1' cannot be used: not an image"):
        load()[:]
    assert identity(load(skip_bad=True)[:]) == [0, 2, 2]


def test_workers_outlive_the_signals_of_their_group(ten, streamed):
    batches = data.load_images(ten, 8, workers=2).batches(4, seed=0)
    next(batches)
    pids = [str(child.pid) for child in multiprocessing.active_children()]
    for name in ("-INT", "-TERM", "-TERM"):
        subprocess.run(["kill", name, *pids], check=True)
        assert len(take(10, batches)) == 10


@pytest.mark.parametrize("raised", [OSError(28, "No space left"), RuntimeError("is killed")])
def test_readers_that_fail_are_no_full_disk(ten, streamed, raised):
    """Their shared memory may be full, or one may be killed: torch says so by these errors."""
    def broken():
        raise raised
        yield
    images = data.load_images(ten, 8, workers=2)
    with pytest.raises(data.BadFile, match="its 2 readers failed .*--workers 0 reads without"):
        next(images._streamed(broken()))


@pytest.mark.parametrize("kept", [False, True])
def test_a_program_ends_with_its_workers(ten, kept):
    done = subprocess.run([sys.executable, "-c", f"""if True:
        import multiprocessing, subprocess, sys
        sys.path.insert(0, {str(data.folders.CLONE)!r})
        from common import data
        data.RESIDENT_BYTES = 0
        batches = data.load_images({str(ten)!r}, 8, workers=2).batches(4, seed=0)
        next(batches), next(batches)  # by now both have begun
        for child in multiprocessing.active_children():
            subprocess.run(["kill", str(child.pid)])
        next(batches)
        if not {kept}:
            batches.close()
            assert not multiprocessing.active_children()
        sys.exit(143)"""], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")


def test_what_does_not_fit_is_streamed_or_named(ten, monkeypatch, capsys):
    free = {"cpu": 2 * 10 * 3 * 64, "meta": 2**40}  # a set may take half of it
    monkeypatch.setattr(data.stream, "free_bytes", lambda device: free[device.type])
    assert data.load_images(ten, 8).resident
    free["cpu"] -= 1
    assert not data.load_images(ten, 8).resident
    assert not data.load_images(ten, 8, device="meta").resident
    free["cpu"], free["meta"] = free["meta"], free["cpu"]
    assert not data.load_images(ten, 8, device="meta").resident
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.zeros(2**60))
    line = error(capsys, data.load_images, ten, 8)
    assert f"{ten}: 10 examples, 3x8x8, take 0.0 GiB, and cpu has no room for them" in line


def test_free_bytes_are_those_of_this_machine():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**26 < data.stream.free_bytes(torch.device("cpu")) <= total


def test_copies_do_not_wait_for_the_device(monkeypatch):
    copies = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: copies.append("pinned") or x)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, **how: copies.append(how) or x)
    data.stream._to(torch.zeros(2), torch.device("cuda"))
    assert copies == ["pinned", {"non_blocking": True}]
    monkeypatch.setattr(data.stream, "_to", lambda x, device: copies.append(device) or x)
    data.stream.read_resident([torch.zeros(3, 4)], np.array([1]))  # its indices likewise
    assert copies[2:] == [torch.device("cpu")]


# The stream

def test_every_image_once_in_an_epoch_and_batches_wrap(ten):
    x = data.load_images(ten, 8)
    seen = [i for batch in take(5, x.batches(4, seed=0)) for i in identity(batch)]
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert seen != [i for batch in take(5, x.batches(4, seed=1)) for i in identity(batch)]


def test_a_batch_does_not_depend_on_where_the_run_began(ten):
    x = data.load_images(ten, 8)
    whole = take(12, x.batches(4, seed=3))
    for start in (1, 2, 7):
        for a, b in zip(whole[start:], x.batches(4, seed=3, start=start), strict=False):
            assert torch.equal(a, b)
    assert next(x.batches(4, seed=3, start=10**9)).shape == (4, 3, 8, 8)  # at once


@pytest.mark.parametrize("loader", ["images", "labelled", "crops"])
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_is_resident(tmp_path, monkeypatch, loader, workers):
    for k, folder in enumerate("ab"):
        for i in range(6):
            noise = np.random.default_rng([k, i]).integers(0, 256, (20, 24 + i, 3), "u1")
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(noise).save(tmp_path / folder / f"{i}.jpg")
    resident = LOADERS[loader](tmp_path, 16)
    monkeypatch.setattr(data, "RESIDENT_BYTES", 0)
    streamed = LOADERS[loader](tmp_path, 16, workers=workers)
    assert resident.resident and not streamed.resident
    state = torch.get_rng_state()
    for a, b in zip(take(6, resident.batches(5, seed=1, start=2)),
                    streamed.batches(5, seed=1, start=2), strict=False):
        for u, v in zip(a, b, strict=True):
            assert torch.equal(u, v)
    assert torch.equal(torch.get_rng_state(), state)  # else a streamed run would draw other z
    index = torch.tensor([7, 0, 7])
    for u, v in zip(resident[index], streamed[index], strict=True):
        assert torch.equal(u, v)


def test_drawn_sets_stream_too(streamed):
    x = data.load_images("digits", 16)
    assert not x.resident and next(x.batches(4, seed=0)).shape == (4, 1, 16, 16)
    expected = builtin.digits([5], 16)["image"].float() / 127.5 - 1
    assert torch.equal(x[[5]], expected)


def test_ranks_share_a_batch(ten):
    x = data.load_images(ten, 8)
    whole = next(x.batches(6, seed=0, start=4))
    for rank in range(3):
        part = next(x.batches(6, seed=0, start=4, rank=rank, world=3))
        assert torch.equal(part, whole[rank::3])


def test_subset_shares_storage(ten):
    x = data.load_images(ten, 8)
    part = x.subset(2, 6)
    assert len(part) == 4 and len(x) == 10 and part._read is x._read
    assert identity(part[:]) == [2, 3, 4, 5] and identity(part[[3, 0]]) == [5, 2]
    assert sorted(identity(next(part.batches(4, seed=0)))) == [2, 3, 4, 5]


def test_a_set_smaller_than_a_batch(ten, capsys):
    line = error(capsys, data.load_images(ten, 8).batches, 11, seed=0)
    assert "10 examples" in line and "--batch-size 10" in line


# Pairs, unpaired sets, label maps, attributes, crops

@pytest.mark.parametrize("layout, a, b", [
    ("A and B", "A", "B"), ("trainA", "trainA", "trainB"), ("A/train", "A/train", "B/train"),
    ("train/A", "train/A", "train/B")])
def test_pairs_by_name(tmp_path, capsys, layout, a, b):
    write(tmp_path / a, *pngs(3))
    write(tmp_path / b, "00.jpg", "01.jpg", "02.jpg", colour=200, mode="L")
    pairs = data.load_pairs(tmp_path, 8)
    x, y = pairs[:]
    assert identity(x) == [0, 1, 2] and identity(y) == [20] * 3 and y.shape == (3, 3, 8, 8)
    write(tmp_path / a, "alone.png")
    line = error(capsys, data.load_pairs, tmp_path, 8)
    assert str(tmp_path / a / "alone.png") in line and "3 matches, 1 without" in line


def test_pairs_have_one_shape(tmp_path, capsys):
    write(tmp_path / "A", *pngs(2), size=(96, 64))
    write(tmp_path / "B", *pngs(2), size=(48, 32))
    assert len(data.load_pairs(tmp_path, 8)) == 2
    write(tmp_path / "B", "01.png", size=(64, 64))
    line = error(capsys, data.load_pairs, tmp_path, 8)
    assert "1 of 2" in line
    assert f"{tmp_path / 'B/01.png'} (64x64, where {tmp_path / 'A/01.png'} is 96x64" in line


HALVES = {"halves": ["{}"], "two": ["{}/A", "{}/B"], "A, B": ["{}A", "{}B"],
          "inner": ["A/{}", "B/{}"]}


@pytest.mark.parametrize("train, test", [("train", "test"), ("training", "valid"), ("Train", "VAL"),
                                         ("train", "eval"), ("train", None)])
@pytest.mark.parametrize("layout", HALVES)
def test_what_is_held_out_was_not_trained_on(tmp_path, capsys, layout, train, test):
    for name, n in ((train, 4), (test, 2)):
        for half in HALVES[layout] * bool(name):
            write(tmp_path / half.format(name), *pngs(n), size=(16 if layout == "halves" else 8, 8))
    held_out = test not in ("eval", None)  # else a caller takes a part of what there is
    for load in [data.load_pairs] + [data.load_unpaired] * (layout != "halves"):
        sets = [load(tmp_path, 8, split=split) for split in ("train", "test")]
        for part, n, split in zip(sets, (4, 2 if held_out else 4),
                                  ("train", "test" if held_out else "train"), strict=True):
            for one in part if isinstance(part, tuple) else [part]:
                assert (len(one), one.split) == (n, split)
    if held_out:
        for half in HALVES[layout]:
            shutil.rmtree(tmp_path / half.format(train))
        assert "nothing to train on beside it" in error(capsys, data.load_pairs, tmp_path, 8)


def test_half_a_pair_of_folders(tmp_path, capsys):
    write(tmp_path / "A", *pngs(2))
    line = error(capsys, data.load_pairs, tmp_path, 8)
    assert f"{tmp_path / 'B'} does not exist" in line and str(tmp_path / "A") in line


@pytest.mark.parametrize("place, split", [("", "train"), ("train", "train"), ("val", "test")])
def test_pairs_side_by_side(tmp_path, place, split):
    both = np.repeat(np.array([[40, 200]], "u1"), 8, 1).repeat(8, 0)
    (tmp_path / place).mkdir(exist_ok=True)
    Image.fromarray(both).save(tmp_path / place / "a.png")
    a, b = data.load_pairs(tmp_path, 8, split=split)[:]
    assert identity(a) == [4] and identity(b) == [20] and a.shape == (1, 1, 8, 8)


def test_a_plain_photo_is_no_pair(ten, capsys):
    assert "8x8 is not two pictures" in error(capsys, data.load_pairs, ten, 8)


def test_built_in_pairs_show_one_face(few):
    outline, x = data.load_pairs("faces-outline", 16).subset(0, 4)[:]
    assert outline.shape == x.shape == (4, 3, 16, 16)
    painted, y = data.load_pairs("faces", 16, split="test")[:2]
    drawn = builtin.faces(range(1_000_000, 1_000_002), 16, 0, want=("image", "flat", "label_map"))
    assert torch.equal(y, drawn["image"].float() / 127.5 - 1)
    flat, y = data.load_pairs("faces-flat", 16, split="test")[:2]
    assert torch.equal(flat, drawn["flat"].float() / 127.5 - 1)
    assert torch.equal(y, drawn["image"].float() / 127.5 - 1)
    colours = PALETTE[drawn["label_map"].long()].permute(0, 3, 1, 2)
    assert torch.equal(painted, colours.float() / 127.5 - 1)


def test_unpaired_streams_are_uncorrelated(tmp_path, capsys):
    write(tmp_path, *pngs(25, "trainA/"))
    write(tmp_path, *pngs(25, "trainB/"))
    a, b = data.load_unpaired(tmp_path, 8)
    same = [i == j for x, y in zip(take(40, a.batches(25, 0)), b.batches(25, 0), strict=False)
            for i, j in zip(identity(x), identity(y), strict=True)]
    assert sum(same) < 3 * len(same) / 25  # one in 25 by chance
    line = error(capsys, data.load_unpaired, tmp_path / "trainA", 8)
    assert str(tmp_path) in line and "trainA and trainB, train/A and" in line
    assert "saw no folder" in line


def labelled_photos(folder, ids, part="train"):
    """Photos of 8x8 whose label maps are 4 ids in quarters."""
    write(folder / f"{part}_img", *(f"{i}.jpg" for i in range(len(ids))))
    (folder / f"{part}_label").mkdir()
    for i, four in enumerate(ids):
        quarters = np.array(four, "u1").reshape(2, 2).repeat(4, 0).repeat(4, 1)
        Image.fromarray(quarters).save(folder / f"{part}_label" / f"{i}.png")
    return folder


def test_label_maps(tmp_path):
    maps = data.load_label_maps(labelled_photos(tmp_path, [[0, 1, 2, 3], [0, 0, 0, 6]]), 4)
    x, y = maps[:]
    assert len(maps.classes) == 7 and x.shape == (2, 3, 4, 4)
    assert y.dtype == torch.int64 and y[0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    write(tmp_path / "train_inst", "0.png", "1.png", mode="L")
    assert [field.shape[0] for field in data.load_label_maps(tmp_path, 4)[:1]] == [1, 1, 1]
    labelled_photos(tmp_path, [[1, 1, 1, 1]], "val")
    assert len(data.load_label_maps(tmp_path, 4, split="test")) == 1


def test_label_ids_out_of_range_are_named(tmp_path, capsys):
    labelled_photos(tmp_path, [[0, 1, 2, 3], [0, 0, 0, 255]])
    line = error(capsys, data.load_label_maps, tmp_path, 4, n_classes=4)
    assert f"{tmp_path / 'train_label' / '1.png'} (id 255, but the classes are 0..3)" in line
    maps = data.load_label_maps(tmp_path, 4, ignore=255)
    assert len(maps.classes) == 4 and maps[:][1].max() == 255
    assert len(data.load_label_maps(tmp_path, 4, n_classes=4, skip_bad=True)) == 1


def test_label_maps_of_another_size_or_missing(tmp_path, capsys):
    labelled_photos(tmp_path, [[0, 1, 2, 3]])
    write(tmp_path / "train_img", "0.jpg", size=(8, 10))
    assert "not of the size of its photo 8x10" in error(capsys, data.load_label_maps, tmp_path, 4)
    line = error(capsys, data.load_label_maps, tmp_path / "train_img", 4, split="test")
    assert str(tmp_path) in line and "train_img, train_label and perhaps" in line
    Image.fromarray(np.full((8, 8), -7, np.int32)).save(tmp_path / "train_label" / "0.tif")
    (tmp_path / "train_label" / "0.png").unlink()
    write(tmp_path / "train_img", "0.jpg")
    line = error(capsys, data.load_label_maps, tmp_path, 4, n_classes=3)
    assert "0.tif (id -7, but the classes are 0..2)" in line


@pytest.mark.parametrize("name, text", [
    ("attributes.csv", "file,hat, beard\n00.png,1,-1\n01.png,0,1\n02.png,1,1\n"),
    ("list_attr_celeba.txt", "3\nhat beard\n00.png  1 -1\n01.png -1  1\n02.png  1  1\n")])
@pytest.mark.parametrize("above", [False, True])
def test_attributes(tmp_path, capsys, name, text, above):
    folder = write(tmp_path / "faces", *pngs(2))
    listed = (tmp_path if above else folder) / name
    listed.write_text(text)
    faces = data.load_attributes(folder, 8)
    x, a = faces[:]
    assert faces.attributes == ["hat", "beard"] and a.dtype == torch.float32
    assert a.tolist() == [[1, 0], [0, 1]] and identity(x) == [0, 1]
    write(folder, "new.png")
    line = error(capsys, data.load_attributes, folder, 8)
    assert str(listed) in line and "new.png" in line and "1 of 3" in line
    listed.write_text(text.replace("1", "2"))
    assert "00.png" in error(capsys, data.load_attributes, folder, 8)
    for content, says in ((b"\xff\xfe\x00", "looked for text in UTF-8"), (b"", "saw none"),
                          (b"3", "saw none"), (b"1\n2 3\n00.png\n1\n", ""),
                          (b"a a\n" * 2 if name.endswith("txt") else b"file,a,a\n", "each once")):
        listed.write_bytes(content)
        assert says in error(capsys, data.load_attributes, folder, 8)
    listed.unlink()
    assert f"{folder}: looked for attributes.csv" in error(capsys, data.load_attributes, folder, 8)


def test_crops_are_windows_and_a_function_of_the_batch(tmp_path, capsys):
    y, x = np.mgrid[:30, :40]
    for i in range(3):
        Image.fromarray(np.stack([x * 6, y * 6, np.full_like(x, i)], 2).astype("u1")).save(
            tmp_path / f"{i}.png")
    crops = data.load_crops(tmp_path, 16)
    batches = take(30, crops.batches(3, seed=0))
    seen = ((torch.cat(batches) + 1) * 127.5).round().long()
    left, top = seen[:, 0, 0, 0] // 6, seen[:, 1, 0, 0] // 6
    for corner, axis, limit in ((left, 0, 24), (top, 1, 14)):
        steps = seen[:, axis] - seen[:, axis, :1, :1]
        assert torch.equal(steps[0], steps[1])  # one window after another, nothing resized
        assert corner.min() < limit / 5 and limit * 4 / 5 < corner.max() <= limit
    assert torch.equal(next(crops.batches(3, seed=0, start=20)), batches[20])
    assert ((crops[:1] + 1) * 127.5).round()[0, :2, 0, 0].tolist() == [12 * 6, 7 * 6]
    line = error(capsys, data.load_crops, tmp_path, 35)
    assert "3 of 3" in line and "40x30, smaller than a crop of 35x35" in line


# Built-in and torchvision's sets

def test_built_in_digits(few):
    x, y = data.load_labelled("digits", 16)[:]
    drawn = builtin.digits(range(8), 16)
    assert torch.equal(x, drawn["image"].float() / 127.5 - 1) and torch.equal(y, drawn["label"])
    test = data.load_images("digits", 16, split="test")
    expected = builtin.digits(range(1_000_000, 1_000_008), 16)["image"].float() / 127.5 - 1
    assert torch.equal(test[:], expected) and test.channels == 1


def test_built_in_faces_serve_every_task(few):
    faces = data.load_attributes("faces", 16)
    assert faces.attributes == list(builtin.ATTRIBUTES)
    assert set(faces[:][1].unique().tolist()) <= {0.0, 1.0}
    assert data.load_labelled("faces", 16).classes == list(builtin.FACE_CLASSES)
    maps = data.load_label_maps("faces", 16)
    assert maps.classes == list(builtin.PARTS) and maps[:][1].max() < len(builtin.PARTS)
    assert next(data.load_crops("faces", 16).batches(4, seed=0)).shape == (4, 3, 16, 16)
    colour, pencil = data.load_unpaired("faces", 16)
    others = builtin.faces(range(8, 16), 16, 0, want=("pencil",))["pencil"].float() / 127.5 - 1
    assert torch.equal(pencil[:], others) and colour[:].shape == pencil[:].shape


def idx(path, array):
    """An IDX file, the format of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.astype("u1").tobytes())


def test_mnist_from_its_files_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    for part in ("train", "t10k"):
        idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", pixels)
        idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(12) % 10)
    mnist = data.load_labelled("mnist", 32, root=tmp_path)
    x, y = mnist[:]
    assert torch.equal(((x[:, 0, 2:-2, 2:-2] + 1) * 127.5).round().long(), torch.tensor(pixels))
    assert (x[:, :, :2] == -1).all() and y.tolist() == [*range(10), 0, 1]
    assert len(mnist.classes) == 10 and mnist.channels == 1
    assert data.load_images("mnist", 64, root=tmp_path, split="test")[:].shape == (12, 1, 64, 64)


def no_network(*args, **options):
    raise OSError("no network")


@pytest.mark.parametrize("name, url, place", [
    ("mnist", "https://ossci-datasets", "MNIST/raw"), ("cifar10", "cifar-10-python.tar.gz", ""),
    ("celeba", "mmlab.ie.cuhk.edu.hk", "celeba"), ("lsun/bedroom", "bedroom_train_lmdb.zip", "")])
def test_a_failed_download_names_the_url_and_the_folder(tmp_path, monkeypatch, capsys, name, url,
                                                        place):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    line = error(capsys, data.load_images, name, 32, root=tmp_path)
    assert url in line and str(tmp_path / place) in line


def test_of_as_many_channels(capsys):
    digits = data.load_images("digits", 8, split="test")
    assert digits.of(1) is digits
    assert "digits: its images have 1 channels, the run's 3" in error(capsys, digits.of, 3)


def test_celeba(tmp_path, capsys):
    folder = write(tmp_path / "celeba" / "img_align_celeba", *pngs(4)).parent
    (folder / "list_eval_partition.txt").write_text(
        "00.png 0\n01.png 1\n02.png 2\n03.png 0\n")
    (folder / "list_attr_celeba.txt").write_text(
        "4\nhat beard\n" + "".join(f"{name} 1 -1\n" for name in pngs(4)))
    celeba = data.load_attributes("celeba", 8, root=tmp_path)
    assert identity(celeba[:][0]) == [0, 3] and celeba[:][1].tolist() == [[1, 0]] * 2
    assert identity(data.load_images("celeba", 8, root=tmp_path, split="test")[:]) == [2]
    (folder / "list_eval_partition.txt").write_text("00.png\n01.png 1\n")
    assert "saw ['00.png']" in error(capsys, data.load_images, "celeba", 8, root=tmp_path)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / "tower_train_lmdb").mkdir()
    line = error(capsys, data.load_images, "lsun/tower", 8, root=tmp_path)
    assert "pip install lmdb" in line
