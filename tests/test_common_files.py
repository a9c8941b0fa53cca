"""common/: folders as they come, published sets, photographs to be translated."""
import hashlib
import io
import os
import signal
import sys
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_common_data import error, identity, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import data, folders, images, published
from common import photos as module
from common.photos import read_photos

# Folders as they come

def seen(folder):
    return [str(file.relative_to(folder)) for file in folders.images_below(folder)]


def test_links_in_a_circle(tmp_path):
    write(tmp_path, "a/b/0.png", "c/1.png")
    (tmp_path / "a/b/up").symlink_to("../..")
    (tmp_path / "c/self").symlink_to("self")
    (tmp_path / "c/a").symlink_to("../a")
    (tmp_path / "a/c").symlink_to("../c")
    assert seen(tmp_path) == ["a/b/0.png", "a/c/1.png", "c/1.png", "c/a/b/0.png"]


def test_the_order_is_that_of_paths(tmp_path):
    write(tmp_path, "b.png", "a-b/0.png", "a/1.png", "a.png", "B/0.png")
    assert seen(tmp_path) == [str(path.relative_to(tmp_path))
                              for path in sorted(tmp_path.rglob("*.png"))]


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    write(tmp_path, "a/0.png", "b/1.png")
    scan = os.scandir

    def refusing(path):
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert seen(tmp_path) == ["b/1.png"]
    assert f"data: left out {tmp_path}/a (Permission denied)" in capsys.readouterr().out


def test_a_long_walk_is_no_silent_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "PATIENCE", -1)
    seen(write(tmp_path, "a/0.png"))
    assert f"0 images in {tmp_path} so far, looking into {tmp_path}/a" in capsys.readouterr().out


@pytest.mark.parametrize("name, says", [
    ("/", "/ is all of a disk"), ("~nosuchuser", "~nosuchuser does not exist"),
    (5, "5 is neither the name of a data set nor a path"), (None, "None is neither")])
def test_what_is_no_folder(capsys, name, says):
    assert says in error(capsys, data.load_images, name, 8)


def test_names_that_are_not_utf_8(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"\xff")
    write(folder, "0.png")
    (folder / os.fsdecode(b"\xfe.png")).write_text("no image")
    assert len(data.load_images(folder, 8, skip_bad=True)) == 1
    said = capsys.readouterr().out
    assert "from " + str(tmp_path) + r"/\udcff in" in said and r"\udcfe.png (not an image)" in said


def test_a_clone_that_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CLONE", tmp_path / "old")
    inside, outside = (write(tmp_path / name, "0.png") for name in ("old/my/photos", "photos"))
    names = [data.load_images(folder, 8).name for folder in (inside, outside)]
    assert names == ["clone:my/photos", str(outside)]
    assert data.portable(tmp_path / "older") == str(tmp_path / "older")
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setattr(folders, "CLONE", tmp_path / "new")
    monkeypatch.chdir(outside)
    for name in names:
        assert data.load_images(name, 8).name == name
    assert data.ROOT == Path(data.__file__).parents[1] / "data"  # of root=None


def deep(folder, *arrays, suffix="png"):
    for i, a in enumerate(arrays):
        Image.fromarray(a).save(folder / f"{i}.{suffix}")
    return folder


@pytest.mark.parametrize("kind, tops, white, says", [
    (np.uint16, (900, 4095), 4095, "16-bit files lie in 0 to 4095: 0 is taken for black and 4095 "),
    (np.uint16, (90, 65535), 65535, None), (np.float32, (0.5, 200), 255, None),
    (np.float32, (0.01, 0.05), 0.0625, "float files lie in 0 to 0.05: 0 is taken for black and 0")])
@pytest.mark.parametrize("budget", [0, 2**30])
def test_what_is_white_is_decided_for_the_set(tmp_path, monkeypatch, capsys, kind, tops, white,
                                              says, budget):
    monkeypatch.setattr(data, "RESIDENT_BYTES", budget)
    arrays = [np.linspace(0, top, 64).reshape(8, 8).astype(kind) for top in tops]
    x = data.load_images(deep(tmp_path, *arrays, suffix="tif"), 8)[:]
    expected = np.stack(arrays).astype(np.float64) * (255 / white)
    assert np.abs((x[:, 0].numpy() + 1) * 127.5 - expected).max() <= 0.51
    said = capsys.readouterr().out
    assert says in said if says else "taken for black" not in said
    (_, y), *_ = read_photos(tmp_path, tmp_path / "out", 1)  # as the training set's
    assert np.abs((y[0, 0].numpy() + 1) * 127.5 - expected[0]).max() <= 0.51


def test_a_damaged_deep_file_does_not_decide(tmp_path):
    deep(tmp_path, np.full((8, 8), 4095, np.uint16), np.full((8, 8), 0, np.uint16))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    assert data.load_images(tmp_path, 8, skip_bad=True)[:].max() == 1


@pytest.mark.parametrize("budget", [0, 2**30])
def test_a_set_of_almost_one_grey_is_named(tmp_path, monkeypatch, capsys, budget):
    monkeypatch.setattr(data, "RESIDENT_BYTES", budget)
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    deep(tmp_path / "A", ids % 6, ids % 3)
    deep(tmp_path / "B", ids, ids * 2)
    data.load_pairs(tmp_path, 8)
    said = capsys.readouterr().out
    assert "data: A use only the values 0..5 of 0..255" in said and "data: B" not in said
    data.load_images(tmp_path / "B", 8)
    data.load_crops(tmp_path / "B", 4)
    assert "use only" not in capsys.readouterr().out
    data.load_crops(tmp_path / "A", 4)
    assert "data: images use only the values 0..5" in capsys.readouterr().out


def test_pages_beyond_the_first_are_named(tmp_path, capsys):
    page = Image.new("L", (8, 8), 50)
    for name in ("a.tif", "b.tif", "c.gif"):
        page.save(tmp_path / name, save_all=True, append_images=[Image.new("L", (8, 8), 200)])
    page.save(tmp_path / "d.tif")
    assert identity(data.load_images(tmp_path, 8)[:]) == [5] * 4
    assert "data: 3 of these files have more than one page: the first" in capsys.readouterr().out


# The sets of pix2pix and CycleGAN, from a server on loopback

@pytest.fixture
def server(monkeypatch):
    """bodies: of a url's path what it sends, and the length it announces; asked: the paths so far.
    """
    served = SimpleNamespace(bodies={}, asked=[], middle=lambda: None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.asked.append(self.path)
            body, length = served.bodies.get(self.path, (b"", 0))
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body[:40])
            served.middle()
            self.wfile.write(body[40:])

        def log_message(self, *args):
            pass

    for known in (published.PAIRED, published.UNPAIRED):
        monkeypatch.setitem(known, "maps", None)
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        monkeypatch.setattr(published, "BERKELEY", f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield served
        http.shutdown()
        thread.join()


def packed(suffix, files):
    """An archive of these files, name -> bytes."""
    packed = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(params=["pix2pix", "cyclegan"])
def maps(request, tmp_path):
    """The published set maps of either kind, two examples a split, and how it is loaded."""
    place, names, size = request.param, ["train/1.jpg", "train/2.jpg", "val/1.jpg", "val/2.jpg"], 16
    if place == "cyclegan":
        size = 8
        names = [f"{part}/{i}.jpg" for part in ("trainA", "trainB", "testA", "testB") for i in "12"]
    loader, suffix = {"pix2pix": (data.load_pairs, ".tar.gz"),
                      "cyclegan": (data.load_unpaired, ".zip")}[place]
    write(tmp_path / "origin", *names, size=(size, 8))
    files = {f"maps/{name}": (tmp_path / "origin" / name).read_bytes() for name in names}
    return SimpleNamespace(
        load=partial(loader, "maps", 8, root=tmp_path / "root"), files=files,
        url=f"/{place}/datasets/maps{suffix}", pack=partial(packed, suffix),
        folder=tmp_path / "root" / place / "maps")


def test_a_published_set_is_downloaded_once(server, maps):
    body = maps.pack(maps.files)
    server.bodies[maps.url] = body, len(body)
    for split in ("train", "test", "train"):
        loaded = maps.load(split=split)
        for part in loaded if isinstance(loaded, tuple) else [loaded]:
            assert len(part) == 2 and part.name == "maps"
    assert server.asked == [maps.url] and list(maps.folder.parent.iterdir()) == [maps.folder]


@pytest.mark.parametrize("what, says", [
    ("missing", "404"), ("cut", "cut off after"), ("short", ""), ("no archive", ""),
    ("other name", "maps")])
def test_half_a_download_leaves_nothing(server, maps, capsys, what, says):
    body = maps.pack(maps.files)
    other = maps.pack({f"x{name}": content for name, content in maps.files.items()})
    server.bodies = {maps.url: {
        "missing": (b"", 0), "cut": (body[:-60], len(body)), "short": (body[:-60], len(body) - 60),
        "no archive": (b"<html>", 6), "other name": (other, len(other))}[what]}
    line = error(capsys, maps.load)
    assert f"{published.BERKELEY}{maps.url}" in line and str(maps.folder) in line and says in line
    assert list(maps.folder.parent.iterdir()) == []


@pytest.mark.parametrize("known", ["size", "hash"])
def test_an_archive_is_the_known_one(server, maps, monkeypatch, capsys, known):
    body = maps.pack(maps.files)
    server.bodies[maps.url] = body + b"\0", len(body) + 1  # a byte more
    table = published.PAIRED if "pix2pix" in maps.url else published.UNPAIRED
    right = len(body) if known == "size" else hashlib.sha256(body).hexdigest()[:16]
    monkeypatch.setitem(table, "maps", right)
    assert f"where {right} is known of it" in error(capsys, maps.load)
    assert list(maps.folder.parent.iterdir()) == []
    server.bodies[maps.url] = body, len(body)
    maps.load()
    assert maps.folder.is_dir()


@pytest.mark.parametrize("room, says", [(-1, ""), (999, " unpacked")])
def test_no_archive_fills_the_disk(server, maps, monkeypatch, capsys, room, says):
    body = maps.pack({"maps/train/0.jpg": b"0" * 500, "maps/train/1.jpg": b"1" * 500_000})
    server.bodies[maps.url] = body, len(body)
    monkeypatch.setattr(published, "MAX_BYTES", len(body) + room)
    assert f"more than {len(body) + room:,} bytes{says})" in error(capsys, maps.load)
    assert list(maps.folder.parent.iterdir()) == []


def test_sigterm_leaves_nothing_of_a_download(server, maps):
    body = maps.pack(maps.files)
    server.bodies[maps.url] = body, len(body)
    server.middle = lambda: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        maps.load()
    assert stop.value.code == 143 and list(maps.folder.parent.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_links_in_an_archive_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("maps/out")
            member.type, member.linkname = kind, str(tmp_path / "evil")
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("maps/in/0.jpg"))
    published._unpack(tmp_path / "a", tmp_path / "new")
    assert [path.name for path in sorted((tmp_path / "new").rglob("*"))] == ["maps", "in", "0.jpg"]


@pytest.mark.parametrize("name", ["../../../evil", "{}/evil"])
def test_an_archive_writes_nothing_elsewhere(server, maps, tmp_path, capsys, name):
    body = maps.pack({name.format(tmp_path): b"x"})
    server.bodies[maps.url] = body, len(body)
    before = set(tmp_path.rglob("*"))
    error(capsys, maps.load)
    assert set(tmp_path.rglob("*")) - before == {maps.folder.parents[1], maps.folder.parent}


def test_names_of_pairs_are_no_folders_of_images(capsys):
    assert "./maps" in error(capsys, data.load_images, "maps", 8)
    assert "./edges2shoes" in error(capsys, data.load_unpaired, "edges2shoes", 8)



# Photographs to be translated

@pytest.fixture
def photos(tmp_path):
    """One of 51x30 in colour, a grey one, one in a sub-folder, two damaged ones, and others."""
    folder = write(tmp_path / "photos", "more/flat.bmp", size=(21, 5), colour=99)
    pixels = np.random.default_rng(0).integers(256, size=(30, 51, 3), dtype="u1")
    Image.fromarray(pixels).save(folder / "photo.png")
    Image.fromarray(pixels[:20, :33, 0]).save(folder / "grey.JPG")
    (folder / "cut.jpg").write_bytes((folder / "grey.JPG").read_bytes()[:300])
    for name in ("text.png", ".hidden.png", "notes.txt"):
        (folder / name).write_text("no image")
    return folder


def test_photos_of_a_folder(photos, tmp_path, capsys):
    seen = dict(read_photos(photos, tmp_path / "out", 3))
    names = ["grey.JPG", "more/flat.bmp", "photo.png"]
    assert list(seen) == [tmp_path / "out" / name for name in names]
    for name in names:
        x = torch.from_numpy(np.array(Image.open(photos / name).convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(seen[tmp_path / "out" / name], x[None] / 127.5 - 1)
    said = capsys.readouterr().out
    assert "wrote 3 of 5" in said and f"{photos / 'text.png'} (not an image)" in said
    assert f"left out: {photos / 'cut.jpg'} (" in said
    assert not (tmp_path / "out").exists()  # that is the caller's
    (place, x), = read_photos(photos / "photo.png", tmp_path, 1)
    assert place == tmp_path / "photo.png" and x.shape == (1, 1, 30, 51)


def test_photos_of_every_kind(tmp_path):
    names = [f"a{suffix}" for suffix in images.EXTENSIONS if suffix != ".jfif"]  # a JPEG
    folder = write(tmp_path / "in", *names, colour=51)
    x = torch.cat([x for _, x in read_photos(folder, tmp_path / "out", 1)])
    assert len(x) == len(names) and (x + 0.6).abs().max() < 0.02


@pytest.mark.parametrize("side, h, w", [(10, 10, 17), (60, 60, 102)])
def test_photos_are_resized_first(photos, tmp_path, side, h, w):
    (_, x), = read_photos(photos / "photo.png", tmp_path, 3, side)
    assert x.shape == (1, 3, h, w) and -1 <= x.min() < -0.3 and 0.3 < x.max() <= 1


def test_translations_are_not_translated_again(photos):
    for _ in range(2):
        places = [place for place, _ in read_photos(photos, photos / "out", 3)]
        assert len(places) == 3
        write(photos / "out", *(place.name for place in places))


def test_a_photo_larger_than_the_memory_is_left_out(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "free_bytes", lambda device: 1000 * 2**20)
    per_pixel = 2**20  # so photo.png takes 1,530 MiB, the others 660 and 105
    read = partial(read_photos, photos, tmp_path / "out", 3, bytes_per_pixel=per_pixel)
    assert [place.name for place, _ in read()] == ["grey.JPG", "flat.bmp"]
    assert (f"left out: {photos / 'photo.png'} (51x30 pixels would take about 1 GiB of memory: "
            "--side makes them fewer)") in capsys.readouterr().out
    assert len(list(read(side=10))) == 3


@pytest.mark.parametrize("source, says", [
    ("missing", "missing: looked for an image"), ("photos/cut.jpg", "cut.jpg"),
    ("photos/text.png", "text.png (not an image)"), ("photos/notes.txt", "notes.txt (not an im"),
    ("empty", "empty"), ("bad", "bad/text.png")])
def test_no_photo(photos, tmp_path, capsys, source, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.png").write_text("no image")
    assert says in error(capsys, lambda: list(read_photos(tmp_path / source, tmp_path / "out",
                                                               3)))


@pytest.mark.parametrize("source", ["photos", "photos/photo.png"])
def test_photos_are_not_overwritten(photos, tmp_path, monkeypatch, capsys, source):
    monkeypatch.chdir(tmp_path)
    write(photos / "photos", "photo.png")  # of photos/, to . as photos/photo.png
    for out in ("photos", str(photos), "photos/more/..", *["."] * (source == "photos")):
        line = error(capsys, lambda out=out: next(read_photos(Path(source), Path(out), 3)))
        assert "overwritten" in line
