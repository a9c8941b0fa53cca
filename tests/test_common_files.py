"""common/: folders as they come, published sets, photographs to be translated."""
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
from test_common_data import error, identity, pngs, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import data, folders, images, photos, published  # noqa: E402
from common.photos import read_photos  # noqa: E402

# The sets of pix2pix and CycleGAN, from a server on loopback

@pytest.fixture
def server(monkeypatch):
    """bodies: of a url's path what it sends, and the length it announces; asked: the paths so far.
    """
    served = SimpleNamespace(bodies={}, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.asked.append(self.path)
            body, length = served.bodies.get(self.path, (b"", 0))
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

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
        with zipfile.ZipFile(packed, "w") as archive:
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
    names = [f"a{suffix}" for suffix in data.EXTENSIONS]
    seen = read_photos(write(tmp_path / "in", *names, colour=51), tmp_path / "out", 1)
    for _, x in seen:
        assert (x + 0.6).abs().max() < 0.02
        names.pop()
    assert not names


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
    assert data._memory() > 2**28
    monkeypatch.setattr(data, "_memory", lambda: 1000 * 2**20)
    per_pixel = 2**20  # so photo.png takes 1,530 MiB, the others 660 and 105
    read = partial(read_photos, photos, tmp_path / "out", 3, bytes_per_pixel=per_pixel)
    assert [place.name for place, _ in read()] == ["grey.JPG", "flat.bmp"]
    assert (f"left out: {photos / 'photo.png'} (51x30 pixels would take about 1 GiB of memory: "
            "--side makes them fewer)") in capsys.readouterr().out
    assert len(list(read(side=10))) == 3


@pytest.mark.parametrize("source, says", [
    ("missing", "nothing there"), ("photos/cut.jpg", "cut.jpg"),
    ("photos/text.png", "text.png (not an image)"), ("photos/notes.txt", ".png"),
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
