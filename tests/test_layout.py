"""What every paper's folder promises. New folders are found by themselves.

What is the run's text alone, the same in all folders, is tried on the two that it is copied from.
"""
import ast
import errno
import importlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import copy_run
import numpy as np
import pytest
import torch
from conftest import (
    FEW,
    FORK,
    PAPERS,
    ROOT,
    importing,
    load,
    main,
    parser,
    run,
    start,
    tiny,
    write_data,
)
from PIL import Image

from common import data

pytestmark = pytest.mark.usefixtures("small_data")
FLAGS = """--data --size --batch-size --lr --steps --log-every --sample-every --save-every
           --keep-every --workers --seed --device --data-root --out --skip-bad --paper
           --resume""".split()
SCRIPTS = ("train", "sample")
SOURCES = [name for name in ("dcgan", "stylegan") if name in PAPERS]  # of the run's text


@pytest.fixture(scope="module", params=PAPERS)
def paper(request):
    return request.param


@pytest.fixture(scope="module")
def done(paper, small_data, tmp_path_factory):
    """A finished run of 8 steps. Tests copy it, none changes it."""
    out = tmp_path_factory.mktemp(paper) / "run"
    assert main(paper, *tiny(paper, out)) == 0
    return SimpleNamespace(out=out, ckpt=out / "ckpt.pt")


@pytest.fixture
def refuse(place, capfd):
    """Checks that a command ends in one line and code 2 and leaves no trace; returns the line."""
    def check(paper, *args, script="train.py"):
        before = contents(place)
        capfd.readouterr()
        code, err = main(paper, *args, script=script), capfd.readouterr().err
        assert code == 2 and one_error(err)
        assert contents(place) == before
        return err
    return check


def one_error(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err


def contents(folder: Path) -> dict[str, tuple]:
    """Of every path below: the time of its last change, and its bytes."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.is_file()
            and path.read_bytes()) for path in sorted(folder.rglob("*"))}


def equal(a, b) -> bool:
    """Bit for bit, over nested dicts and lists with tensors in them."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (isinstance(b, dict) and a.keys() == b.keys()
                and all(equal(a[k], b[k]) for k in a))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def leaves(x) -> list:
    if isinstance(x, (dict, list, tuple)):
        return [leaf for part in (x.values() if isinstance(x, dict) else x)
                for leaf in leaves(part)]
    return [x]


def read(ckpt: Path) -> dict:
    return torch.load(ckpt, weights_only=True)


def assert_same_run(a: Path, b: Path) -> None:
    """The checkpoints hold the same numbers, all other files are the same, byte for byte."""
    one, other = read(a / "ckpt.pt"), read(b / "ckpt.pt")
    assert one.keys() == other.keys()
    assert [k for k in one if not equal(one[k], other[k])] == []
    files = [{str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*")
              if path.is_file() and path.name != "ckpt.pt"} for out in (a, b)]
    assert files[0].keys() == files[1].keys()
    assert [name for name in files[0] if files[0][name] != files[1][name]] == []


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as im:
        return np.asarray(im).astype(int)


# The folder

def test_files(paper):
    for name in ("model.py", "train.py", "sample.py", "README.md", "samples.png",
                 f"../tests/test_{paper}.py"):
        assert (ROOT / paper / name).is_file(), name
    assert pixels(ROOT / paper / "samples.png").std() > 10
    shown = (ROOT / paper / "README.md").read_text()
    assert all(f"]({path.name})" in shown for path in (ROOT / paper).glob("*.png")
               if path.name != "samples.png")
    assert not (ROOT / paper / "__init__.py").exists()


@pytest.mark.parametrize("module, others", [
    ("model", {"torch"}),
    ("train", {"torch", "torchvision", "numpy", "PIL", "common", "model"}),
    ("sample", {"torch", "torchvision", "numpy", "PIL", "common", "model"})])
def test_imports(paper, module, others):
    tree = ast.parse((ROOT / paper / f"{module}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in ast.walk(tree)
              if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= others | sys.stdlib_module_names


@pytest.mark.parametrize("script", SCRIPTS)
def test_text_below_the_line_is_the_same_everywhere(paper, script):
    path = ROOT / paper / f"{script}.py"
    assert copy_run.LINE in path.read_text()
    assert copy_run.first_difference(path) == ""  # python tests/copy_run.py copies it


def test_model_builds_alone(paper, place):
    shutil.copy(ROOT / paper / "model.py", place / "model.py")
    with importing(place), mock.patch.dict(sys.modules, {"common": None, "torchvision": None}):
        import model
    assert hasattr(model, "Generator")
    assert hasattr(model, "Discriminator") or hasattr(model, "Critic")
    with torch.device("meta"):  # the paper's setting, in no memory
        nets = [getattr(model, name)() for name in ("Generator", "Discriminator", "Critic")
                if hasattr(model, name)]
    assert all(len(list(net.parameters())) for net in nets)


@pytest.mark.parametrize("module", ["model", "train", "sample"])
def test_import_has_no_side_effects(paper, module, place, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["nobody", "--reads", "this"])
    monkeypatch.setattr(socket, "socket", mock.Mock(side_effect=AssertionError("network")))
    tree, rng, handler = contents(place), torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    threads = torch.get_num_threads()
    load(paper, module)
    assert contents(place) == tree and torch.equal(torch.get_rng_state(), rng)
    assert signal.getsignal(signal.SIGINT) is handler and torch.get_num_threads() == threads
    assert "".join(capfd.readouterr()) == ""


def test_copied_folder_runs_alone(paper, tmp_path):
    for name in ("common", paper):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns(
            "sample.py", "README.md", "samples.png", "__pycache__"))
    with open(tmp_path / "copy" / "common" / "data.py", "a") as f:
        f.write(f"\nN_BUILTIN = {FEW}\nN_CROPPED = {FEW['train']}\n")
    before = contents(tmp_path / "copy")
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    flags = tiny(paper, "unused", "--steps", 2, "--out", f"runs/{paper}")
    done = run(paper, *flags, cwd=cwd, root=tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "copy") == before
    assert [path.name for path in cwd.iterdir()] == ["runs"]
    out = cwd / "runs" / paper
    assert read(out / "ckpt.pt")["step"] == 2
    for name in ("losses.png", "samples/000002.png", "samples.gif"):
        assert pixels(out / name).size
    lines = done.stdout.splitlines()
    assert paper in lines[0] and "--paper" in lines[0]
    assert any("2/2" in line and "images/s" in line and "ETA" in line for line in lines)


def test_networks_of_all_papers_in_one_program(monkeypatch):
    """from dcgan.model import Generator, beside the others, as the front page has it."""
    monkeypatch.syspath_prepend(str(ROOT))
    models = [importlib.import_module(f"{paper}.model") for paper in PAPERS]
    assert len({model.__file__ for model in models}) == len(PAPERS)


def test_in_your_own_program(small_data, place):
    """The front page's lines, as they stand there."""
    assert main("dcgan", *tiny("dcgan", "runs/dcgan", "--size", 32, "--steps", 1)) == 0
    readme = (ROOT / "README.md").read_text()
    code, = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    (place / "gans").symlink_to(ROOT)
    done = subprocess.run([sys.executable, "-c", code + "print(tuple(x.shape))"], cwd=place,
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(64, 3, 32, 32)\n", "")


# The command line

def test_flags(paper):
    options = parser(paper)._option_string_actions
    assert [flag for flag in options if flag in FLAGS] == FLAGS  # in the same order everywhere
    assert not [flag for flag in options if "_" in flag]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(paper, script, place, capfd):
    assert main(paper, "--help", script=f"{script}.py") == 0
    text = "".join(capfd.readouterr().out.split())  # wherever its lines are broken
    for action in parser(paper, script)._actions:
        assert action.help, action.option_strings
        if action.default not in (None, "==SUPPRESS=="):
            assert f"(default:{action.default})" in text, action.option_strings
    assert contents(place) == {}


def test_defaults_and_paper(paper, place):
    train = load(paper, "train")
    args, bare = (vars(train.parse_args(argv)) for argv in (["--paper"], []))
    assert args == {**bare, **train.PAPER, "paper": True}
    assert bare["out"] == f"runs/{paper}" and train.PAPER.keys() <= bare.keys()
    assert train.parse_args(["--paper", "--steps", "7"]).steps == 7  # what is given, rules


def test_commands_in_the_texts(paper):
    """Those of the README, and of the two docstrings, name files and flags that there are."""
    readme = (ROOT / paper / "README.md").read_text()
    texts = re.findall(r"^```.*?^```", readme, re.M | re.S)
    assert texts
    texts += [load(paper, script).__doc__ for script in SCRIPTS]
    for text in texts:
        for name in re.findall(r"[\w./-]+\.(?:py|txt|md)\b", text):
            assert (ROOT / name).is_file() or (ROOT / paper / name).is_file(), name
    for name in re.findall(r"\]\((?!https?:)([^)#]+)", readme):  # links and pictures
        assert (ROOT / paper / name).exists(), name
    commands = re.findall(r"python (\w+)/(\w+)\.py([^\n]*)", "\n".join(texts).replace("\\\n", " "))
    assert commands
    for folder, script, rest in commands:
        if script in SCRIPTS:
            known = parser(folder, script)._option_string_actions
            assert set(re.findall(r"(?<!\S)--[\w-]+", rest)) <= known.keys(), rest


def test_commands_of_the_readme_run(paper, place, capfd):
    """All of them, one after the other in an empty directory: only the scale is tiny, a set that
    would be downloaded gives way to the built-in one, and --official needs a file of others."""
    readme = (ROOT / paper / "README.md").read_text()
    lines = [line.partition("  #")[0].split()
             for block in re.findall(r"^```.*?^```", readme, re.M | re.S)
             for line in block.splitlines() if line.startswith("python ")]
    assert any("--resume" in line for line in lines) and any("--n" in line for line in lines)
    for number, (_, script, *flags) in enumerate(lines):
        folder, script = script.split("/")
        if "--official" in flags or script not in ("train.py", "sample.py"):
            continue  # toy.py and its like have tests of their own
        if script == "train.py":
            at = flags.index("--data") + 1 if "--data" in flags else None
            if at is None or "/" not in flags[at] or flags[at] in data.NAMES:
                flags += ["--data", parser(folder).get_default("data")]
            elif not Path(flags[at]).exists():
                write_data("cgan" if "classes" in flags[at] else folder, Path(flags[at]), 8)
            out = "runs/" + (paper if number == 0 or "--resume" in flags else f"{number}")
            if "--out" in flags:
                out = flags[flags.index("--out") + 1]
            wide = ["--size", 32] if "--paper" in flags else []  # its networks look at 32 at least
            wide += ["--accumulate", 1] if "--accumulate" in flags else []  # batches are tiny, too
            for flag in ("--width", "--fmap-base", "--fmap-max") if "--paper" in flags else ():
                if flag in parser(folder)._option_string_actions:
                    wide += [flag, parser(folder).get_default(flag[2:].replace("-", "_"))]
            flags += (["--steps", 3] if "--resume" in flags else
                      tiny(paper, out, "--steps", 1 if "--paper" in flags else 2, *wide))
        for count, few in {"--n": "2", "--ppl": "20"}.items():
            if count in flags:
                flags[flags.index(count) + 1] = few
        if "--input" in flags and not Path(flags[flags.index("--input") + 1]).exists():
            write_data(folder, Path(flags[flags.index("--input") + 1]), 2)
        assert main(folder, *flags, script=script) == 0, (lines[number], capfd.readouterr().err)


def test_row_of_the_front_page(paper):
    """Its picture and its README. (python tests/copy_run.py writes the numbers of lines.)"""
    rows = [row for row in (ROOT / "README.md").read_text().splitlines()
            if row.startswith("|") and f"({paper}/README.md)" in row]
    assert len(rows) == 1 and f'"{paper}/samples.png"' in rows[0]


# A run

def test_what_a_run_leaves(paper, done):
    grids = ["000001.png", "000002.png", "000004.png", "000006.png", "000008.png"]
    assert sorted(path.name for path in done.out.iterdir()) == [
        "ckpt.pt", "log.csv", "losses.png", "samples", "samples.gif"]
    assert sorted(path.name for path in (done.out / "samples").iterdir()) == grids
    for path in (done.out / "losses.png", *(done.out / "samples").iterdir()):
        assert pixels(path).std() > 0
    with Image.open(done.out / "samples.gif") as film:
        assert film.n_frames >= 4  # Pillow joins equal ones
    head, *rows = [line.split(",") for line in (done.out / "log.csv").read_text().splitlines()]
    assert head[0] == "step" and any(name.startswith("loss") for name in head)
    assert [row[0] for row in rows] == list("12345678")
    assert np.isfinite(np.array(rows, dtype=float)).all()


def test_checkpoint_is_plain(paper, done):
    ckpt = read(done.ckpt)
    assert ckpt["paper"] == paper and ckpt["step"] == 8
    kinds = {type(leaf) for leaf in leaves(ckpt)}
    assert kinds <= {torch.Tensor, str, int, float, bool, type(None)}
    # every flag, so that none is repeated, but not where the run lay: it may be moved
    assert ckpt["args"].keys() == {
        action.dest for action in parser(paper)._actions} - {"help", "out", "resume"}
    assert not any(leaf.requires_grad for leaf in leaves(ckpt) if isinstance(leaf, torch.Tensor))


def test_seeds(paper, done, place):
    logs = []
    for seed in (0, 1):
        assert main(paper, *tiny(paper, f"run{seed}", "--steps", 2, "--seed", seed)) == 0
        logs.append(Path(f"run{seed}/log.csv").read_text())
    assert (done.out / "log.csv").read_text().startswith(logs[0])
    assert logs[1].splitlines()[1:] != logs[0].splitlines()[1:]
    assert pixels(place / "run0/samples/000002.png").tolist() == pixels(
        done.out / "samples/000002.png").tolist() != pixels(
        place / "run1/samples/000002.png").tolist()


def test_resume_is_exact(paper, done, place):
    out = place / "run"
    assert main(paper, *tiny(paper, out, "--steps", 4)) == 0
    with open(out / "log.csv", "a") as f:
        f.write("5,0.1,0.2\n6,0.")  # as a kill leaves it: rows later than the checkpoint
    torch.manual_seed(12345)
    assert main(paper, "--out", out, "--steps", 8, "--resume") == 0  # all else is remembered
    assert_same_run(out, done.out)


def test_resume_takes_new_flags(paper, done, place):
    lr = parser(paper).get_default("lr")
    assert main(paper, *tiny(paper, "run", "--steps", 7)) == 0
    assert main(paper, "--out", "run", "--resume", "--steps", 8, "--lr", 2 * lr) == 0
    new, old = read(Path("run/ckpt.pt")), read(done.ckpt)
    assert (new["step"], new["args"]["steps"], new["args"]["lr"]) == (8, 8, 2 * lr)
    rates = [[group["lr"] for part in ckpt.values() if isinstance(part, dict)
              for group in part.get("param_groups", ())] for ckpt in (new, old)]
    assert any(a == pytest.approx(2 * b) for a, b in zip(*rates, strict=True))  # perhaps D's alone
    assert main(paper, "--out", "run", "--resume", "--paper") == 2  # a run keeps its scale
    assert len(Path("run/log.csv").read_text().splitlines()) == 9


@pytest.mark.skipif(not FORK, reason="kill -9 is Unix")
@pytest.mark.parametrize("paper", SOURCES)
def test_kill_9_at_any_moment(paper, place):
    """Each time --resume goes on, and the end is that of the run that was never killed."""
    rng, out, ckpt = random.Random(0), place / "run", place / "run" / "ckpt.pt"
    flags = "--steps", 40, "--save-every", 1, "--sample-every", 10
    assert main(paper, *tiny(paper, place / "whole", *flags)) == 0
    kills = 8  # after one to four saves and some milliseconds more
    while kills:
        process = start(paper, *tiny(paper, out, *flags), *["--resume"] * ckpt.exists())
        for _ in range(1 + rng.randint(1, 4)):  # the first one is that of the step it starts from
            before = saved_at(ckpt)
            while process.is_alive() and saved_at(ckpt) == before:
                time.sleep(0.001)
        process.join(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills -= process.exitcode != 0
        if process.exitcode == 0:  # it was done already: once more from the start
            assert_same_run(out, place / "whole")
            shutil.rmtree(out)
    if ckpt.exists():
        assert main(paper, *tiny(paper, out, *flags), "--resume") == 0
        assert_same_run(out, place / "whole")


def saved_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.parametrize("paper", SOURCES)
@pytest.mark.parametrize("step", [3, 8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_and_save(paper, place, monkeypatch, capfd, number, step):
    assert main(paper, *tiny(paper, "whole")) == 0
    train, handlers, before = load(paper, "train"), [], signal.getsignal(number)
    seed = torch.manual_seed

    def interrupt(value):  # a step begins with its seed
        seed(value)
        if value == step and not handlers:
            os.kill(os.getpid(), number)
            handlers.append(signal.getsignal(number))

    monkeypatch.setattr(torch, "manual_seed", interrupt)
    with pytest.raises(SystemExit) as stopped:
        train.train(train.parse_args(tiny(paper, "run")))
    assert stopped.value.code == 128 + number
    assert handlers == [signal.SIG_DFL]  # a second one stops at once
    assert signal.getsignal(number) is before
    assert read(Path("run/ckpt.pt"))["step"] == step
    assert Path(f"run/samples/{step:06d}.png").exists() and Path("run/samples.gif").exists()
    hint = capfd.readouterr().out.splitlines()[-1].partition("next: python ")[2].split()
    assert hint[1:] == ["--resume", "--out", "run"] and Path(hint[0]) == ROOT / paper / "train.py"
    assert main(paper, "--out", "run", "--resume") == 0
    assert_same_run(place / "run", place / "whole")


@pytest.mark.parametrize("loss", ["d_loss", "g_loss"])
def test_nan_stops_the_run(paper, place, monkeypatch, capfd, loss):
    """From the third step on; no row is due then, so the checkpoint of the fourth finds it."""
    train, ckpt = load(paper, "train"), place / "run" / "ckpt.pt"
    if not hasattr(train, loss):
        pytest.skip(f"{paper} has no {loss}")
    right = getattr(train, loss)
    monkeypatch.setattr(train, loss, lambda *args, **kwargs: right(*args, **kwargs) * (
        float("nan") if read(ckpt)["step"] == 2 else 1))
    with pytest.raises(SystemExit) as stopped:
        train.train(train.parse_args(tiny(paper, "run", "--log-every", 100)))
    err = capfd.readouterr().err
    assert stopped.value.code == 2 and one_error(err)
    assert "not finite at step 4;" in err and str(ckpt) in err
    assert read(ckpt)["step"] == 2
    assert all(x.isfinite().all() for x in leaves(read(ckpt)) if isinstance(x, torch.Tensor))


def test_nan_weights_are_not_saved(paper, place, monkeypatch, capfd):
    """After G's last update of a step all its losses are still finite."""
    train, made = load(paper, "train"), []
    build = train.Generator
    monkeypatch.setattr(train, "Generator", lambda *a, **k: made.append(build(*a, **k)) or made[-1])

    def step(self, *_):
        for p in self.param_groups[0]["params"]:
            if any(p is q for q in made[0].parameters()):
                p.data.fill_(float("nan"))
    for opt in (torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop):
        monkeypatch.setattr(opt, "step", step)
    with pytest.raises(SystemExit):
        train.train(train.parse_args(tiny(paper, "run", "--steps", 1)))
    assert "not finite at step 1;" in capfd.readouterr().err


@pytest.mark.parametrize("paper", SOURCES)
def test_full_disk_leaves_the_last_checkpoint(paper, place, monkeypatch, capfd):
    fsync, kept = os.fsync, []

    def full(fd):
        if len(kept) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)
        kept.append(Path("run/.part-ckpt.pt").read_bytes())

    monkeypatch.setattr(os, "fsync", full)
    assert main(paper, *tiny(paper, "run")) == 2
    assert one_error(capfd.readouterr().err)
    assert len(kept) == 2 and Path("run/ckpt.pt").read_bytes() == kept[-1]
    assert not [path for path in place.rglob("*") if "tmp" in path.name or "part" in path.name]


def test_every_step_of_every_seed_has_its_own_seed(paper, place, monkeypatch):
    train, right, seen = load(paper, "train"), torch.manual_seed, []
    monkeypatch.setattr(torch, "manual_seed", lambda s: seen.append(s) or right(s))
    steps, flags = [], ("--steps", 3, "--sample-every", 100, "--save-every", 100)
    for seed in (0, 1):
        seen.clear()
        train.train(train.parse_args(tiny(paper, f"{seed}", *flags, "--seed", seed)))
        steps += [s for s in seen if s > seed * 1_000_003][-3:]
    assert len(set(steps)) == 6


# What the run's text does beside that, on the folders that it is copied from

@pytest.fixture(scope="module")
def source(small_data, tmp_path_factory):
    """A finished run of dcgan."""
    out = tmp_path_factory.mktemp("source") / "run"
    assert main("dcgan", *tiny("dcgan", out)) == 0
    return out


def test_resume_at_the_end_changes_nothing(source, place):
    shutil.copytree(source, place / "run")
    assert main("dcgan", "--out", "run", "--resume") == 0
    assert_same_run(place / "run", source)


def test_resume_bears_with_half_written_and_with_missing_pictures(source, place):
    shutil.copytree(source, place / "run")
    litter = place / "run" / "samples" / ".part-000004.png"  # of a kill
    litter.write_bytes(b"half a picture")
    assert main("dcgan", "--out", "run", "--resume") == 0
    shutil.rmtree(litter.parent)
    assert main("dcgan", "--out", "run", "--resume") == 0


def test_one_run_a_folder(place, refuse):
    """Taken before the data are read: the second one is told, and nothing is mixed."""
    process = start("dcgan", *tiny("dcgan", place / "run", "--steps", 10_000))
    while process.is_alive() and not (place / "run" / "log.csv").exists():
        time.sleep(0.01)
    try:
        assert process.is_alive()
        for more in ((), ("--resume",)):
            assert main("dcgan", *tiny("dcgan", place / "run", *more)) == 2
    finally:
        process.kill()
        process.join()
    assert main("dcgan", "--out", place / "run", "--resume", "--steps", 1) == 0  # and it is free


def test_torchrun_of_a_paper_for_one_gpu(place, refuse, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun" in refuse("dcgan", *tiny("dcgan", "run"))


def test_keep_every(source, place):
    assert main("dcgan", *tiny("dcgan", "run", "--keep-every", 3)) == 0
    assert sorted(path.name for path in Path("run").glob("ckpt*")) == [
        "ckpt-000003.pt", "ckpt-000006.pt", "ckpt.pt"]
    assert read(Path("run/ckpt-000003.pt"))["step"] == 3


def test_a_users_own_pictures_stay(source, place):
    shutil.copytree(source, place / "run")
    for name in ("000002 copy.png", "best.png"):
        shutil.copy(place / "run/samples/000002.png", place / "run/samples" / name)
    (place / "run/samples/000099.png").write_text("of a later step, cut by a kill")
    assert main("dcgan", "--out", "run", "--resume") == 0
    names = {path.name for path in Path("run/samples").iterdir()}
    assert {"000002 copy.png", "best.png"} < names and "000099.png" not in names


def test_a_flipped_bit_is_seen(source, place, refuse):
    shutil.copytree(source, place / "run")
    path = place / "run/ckpt.pt"
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1  # in the middle of the weights
    path.write_bytes(blob)
    assert str(path) in refuse("dcgan", "--out", "run", "--resume")
    assert str(path) in refuse("dcgan", "--ckpt", path, script="sample.py")


@pytest.mark.parametrize("edit, says", [
    (lambda c: c["args"].update(log_every=0), "--log-every 0"),
    (lambda c: c["args"].update(size="large"), "large"),
    (lambda c: c["args"].update(nonsense=1), "--nonsense"),
    (lambda c: c.pop("opt_g"), "opt_g"),
    (lambda c: c.pop("step"), "step"),
    (lambda c: c.update(channels=1), "channels"),
    (lambda c: c["opt_g"]["state"][0].update(exp_avg=torch.zeros(3)), "opt_g")], ids=str)
def test_edited_checkpoints(source, place, refuse, edit, says):
    shutil.copytree(source, place / "run")
    ckpt = read(place / "run/ckpt.pt")
    edit(ckpt)
    torch.save(ckpt, place / "run/ckpt.pt")
    assert says in refuse("dcgan", "--out", "run", "--resume", "--steps", 9)


def test_nan_weights_are_not_drawn(source, place, refuse):
    ckpt = read(source / "ckpt.pt")
    next(iter(ckpt["G"].values())).fill_(float("nan"))
    torch.save(ckpt, "ckpt.pt")
    assert "not finite" in refuse("dcgan", "--ckpt", "ckpt.pt", script="sample.py")


def test_status_line_fits_the_terminal(source, place, monkeypatch, capfd):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    assert main("dcgan", *tiny("dcgan", "run", "--steps", 2)) == 0
    lines = [line for line in capfd.readouterr().out.replace("\x1b[K", "").split("\r")
             if line.startswith("step")]
    assert lines and all(len(line.splitlines()[0]) < 40 and "ETA" in line for line in lines)


def test_train_in_a_thread(source, place):
    train = load("dcgan", "train")
    thread = threading.Thread(target=train.train, args=[train.parse_args(tiny("dcgan", "run"))])
    thread.start()
    thread.join()
    assert_same_run(place / "run", source)


def test_resume_refuses_other_classes_in_the_same_number(place, refuse):
    for i, names in enumerate((("a", "b"), ("b", "c"))):
        for name in names:
            write_data("dcgan", place / f"{i}" / name, 4)
    assert main("cgan", *tiny("cgan", "run", "--data", "0", "--steps", 2)) == 0
    line = refuse("cgan", "--out", "run", "--resume", "--data", "1", "--steps", 3)
    assert "classes" in line


# sample.py

def test_sample_needs_the_checkpoint_alone(paper, done, place):
    shutil.copy(done.ckpt, place / "ckpt.pt")
    assert main(paper, "--ckpt", "ckpt.pt", script="sample.py") == 0
    assert [path.name for path in place.iterdir() if path.name != "ckpt.pt"] == ["figures"]
    figures = sorted(Path("figures").iterdir())
    assert len(figures) > 1 and all(pixels(path).std() > 0 for path in figures)
    assert_same_pictures(pixels(done.out / "samples" / "000008.png"),
                         pixels(place / "figures" / "samples.png"))


def assert_same_pictures(small: np.ndarray, large: np.ndarray, pad: int = 2) -> None:
    """Two grids; pictures of the second are twice as large, the lines between them are not.

    n pictures of t pixels make lengths a = pad + n (t + pad) and b = pad + n (2 t + pad).
    """
    a, b = np.array(small.shape[:2]), np.array(large.shape[:2])
    n = (2 * a - b - pad) // pad
    t = (a - pad) // n - pad
    assert (b == pad + n * (2 * t + pad)).all()
    for place in np.ndindex(*n):
        top, left = pad + place * (t + pad)
        one = small[top:top + t[0], left:left + t[1]]
        top, left = pad + place * (2 * t + pad)
        other = large[top:top + 2 * t[0]:2, left:left + 2 * t[1]:2]
        assert abs(one - other).max() <= 1, place


def test_sample_writes_single_files(paper, done, place, capfd):
    args = ("--ckpt", done.ckpt, "--n", 3, "--each")
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(paper, *args, folder, "--seed", seed, script="sample.py") == 0
        assert f"wrote 3 to {folder}" in capfd.readouterr().out
    assert main(paper, *args, "a", script="sample.py") == 2  # two models in it would spoil a metric
    assert main(paper, "--ckpt", done.ckpt, "--n", 3, "--real", "r", script="sample.py") == 0
    reals = [pixels(path) for path in Path("r").iterdir()]
    assert len(reals) == 3 and not np.array_equal(reals[0], reals[1])
    a, b, c = ([pixels(path) for path in sorted(Path(folder).iterdir())] for folder in "abc")
    assert len(a) == 3 and sorted(path.suffix for path in Path("a").iterdir()) == [".png"] * 3
    assert reals[0].shape == a[0].shape
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], a[1]) and not np.array_equal(a[0], c[0])


# Mistakes: one line, code 2, nothing written or lost

def test_a_run_is_not_overwritten(paper, done, place, refuse):
    shutil.copytree(done.out, place / "run")
    line = refuse(paper, *tiny(paper, "run"))
    assert "--resume" in line and "--out" in line and str(place / "run/ckpt.pt") in line


@pytest.mark.parametrize("paper", SOURCES)
@pytest.mark.parametrize("flags, says", [
    ("--size 33", "33"), ("--steps -1", "-1"), ("--steps many", "many"), ("--batch-size 0", "0"),
    ("--nonsense", "--nonsense"), ("--device nonsense", "nonsense"), ("--device meta", "meta"),
    ("--lr -1", "-1"), ("--lr nan", "nan"), ("--seed -1", "-1"), (f"--seed {10**20}", f"{10**20}"),
    (f"--steps {10**19}", f"{10**19}"), ("--data digitss", "digits"), ("--data facess", "faces"),
    ("--out file", "file is no folder"), ("--out file/run", "file is no folder"),
    ("--data=", "--data is empty"), ("--resume", "no checkpoint")], ids=lambda text: text)
def test_wrong_flags(paper, place, refuse, flags, says):
    (place / "file").write_text("in the way")
    assert says in refuse(paper, *tiny(paper, "run", *flags.split()))


@pytest.mark.parametrize("folder, says", [
    ("nowhere", "nowhere"), ("empty", "empty"), ("few", "--batch-size"), ("cut", "--skip-bad")])
def test_wrong_data(paper, place, refuse, folder, says):
    (place / "empty").mkdir()
    write_data(paper, place / "few", 1)
    cut(write_data(paper, place / "cut", 8)[3])
    assert says in refuse(paper, *tiny(paper, "run", "--data", f"./{folder}"))


@pytest.mark.parametrize("flags, says", [
    ("--n many", "many"), ("--n 0", "0"), ("--n -1", "-1"), ("--nonsense", "--nonsense"),
    (f"--seed {10**20}", f"{10**20}"), ("--device meta", "meta"), ("--frames 1", "--frames"),
    ("--n 3 --each file/pngs", "file/pngs"), ("--out file/figures", "file/figures")],
    ids=lambda text: text)
def test_wrong_flags_of_sample(source, place, refuse, flags, says):
    (place / "file").write_text("in the way")
    assert says in refuse("dcgan", "--ckpt", source / "ckpt.pt", *flags.split(),
                          script="sample.py")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def test_skip_bad(paper, place, capfd):
    bad = write_data(paper, place / "photos", 8)[3]
    cut(bad)
    assert main(paper, *tiny(paper, "run", "--steps", 2, "--data", "photos", "--skip-bad")) == 0
    assert bad.name in capfd.readouterr().out
    assert read(Path("run/ckpt.pt"))["step"] == 2


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


DAMAGE = {
    "missing": lambda path, paper: path.unlink(),
    "cut": lambda path, paper: cut(path),
    "empty": lambda path, paper: path.write_bytes(b""),
    "text": lambda path, paper: path.write_text("hello"),
    "foreign": lambda path, paper: torch.save({"paper": "another", "args": {}, "step": 1}, path),
    "evil": lambda path, paper: torch.save({**read(path), "paper": paper, "x": Evil()}, path),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_checkpoints(source, place, refuse, damage, script):
    path, paper = place / "run" / "ckpt.pt", "dcgan"
    path.parent.mkdir()
    shutil.copy(source / "ckpt.pt", path)
    DAMAGE[damage](path, paper)
    args = ["--out", "run", "--resume"] if script == "train" else ["--ckpt", path]
    line = refuse(paper, *args, script=f"{script}.py")  # and no file "executed"
    assert str(path) in line
    assert damage != "foreign" or "another" in line


def test_the_evil_one_works(tmp_path, monkeypatch):
    """Else the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "ckpt.pt")
    torch.load("ckpt.pt", weights_only=False).close()
    assert Path("executed").exists()
