"""What the tests of all papers share: loading a folder's files, and running its scripts tiny."""
import argparse
import ast
import contextlib
import functools
import importlib.util
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # of the programs that tests start; here see below
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import pytest
import torch
from PIL import Image

from common import data

PAPERS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
FEW = {"train": 64, "test": 32}  # built-in pictures in a tiny run: the paper's code, quickly fed
FORK = None  # starts processes that have imported torch already
if "forkserver" in multiprocessing.get_all_start_methods():
    FORK = multiprocessing.get_context("forkserver")
    FORK.set_forkserver_preload(["torch", "torchvision", "PIL.Image", "pytest"])
torch.set_num_threads(1)  # tensors are tiny, and the bits must not depend on the machine


def pytest_configure(config):
    for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
        config.addinivalue_line("filterwarnings", f"error::{kind}")


# Importing and running a paper's files

@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """As Python sees a script of this folder: its own `model`, not that of the paper before."""
    path = sys.path[:]
    sys.modules.pop("model", None)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        sys.modules.pop("model", None)


def load(paper: str, module: str) -> ModuleType:
    """A folder's model, train or sample, under a name of its own."""
    name = f"{paper}_{module}"
    spec = importlib.util.spec_from_file_location(name, ROOT / paper / f"{module}.py")
    sys.modules[name] = loaded = importlib.util.module_from_spec(spec)
    with importing(ROOT / paper):
        spec.loader.exec_module(loaded)
    return loaded


def main(paper: str, *args, script: str = "train.py") -> int:
    """`python paper/script args` in this process, with its `__main__` part; the exit code."""
    path = str(ROOT / paper / script)
    with importing(ROOT / paper), mock.patch.object(sys, "argv", [path, *map(str, args)]):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as e:
            return e.code or 0
    return 0


def run(paper: str, *args, cwd: Path, script: str = "train.py", root: Path = ROOT,
        **options) -> subprocess.CompletedProcess:
    """The same in a process of its own, from the folder `cwd`, with deprecations as errors."""
    rules = [f"-Werror::{kind}" for kind in ("DeprecationWarning", "FutureWarning")]
    command = [sys.executable, "-B", *rules, root / paper / script, *args]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, text=True,
                          capture_output=True, timeout=300, **options)


def start(paper: str, *args) -> multiprocessing.Process:
    """`main` in a process that can be killed; it is running when this returns."""
    process = FORK.Process(target=_main_alone, args=(paper, *map(str, args)))
    process.start()
    return process


def _main_alone(paper: str, *args: str) -> None:
    torch.set_num_threads(1)
    data.N_BUILTIN.update(FEW)
    with open(os.devnull, "w") as sys.stdout:
        sys.exit(main(paper, *args))


def parser(paper: str, script: str = "train") -> argparse.ArgumentParser:
    """The script's own, caught at the moment of its use."""
    caught = []

    def catch(self, *args, **kwargs):
        caught.append(self)
        raise SystemExit

    module = load(paper, script)
    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch):
        with contextlib.suppress(SystemExit):
            module.parse_args([]) if script == "train" else module.main([])
    return caught[0]


def smallest(paper: str) -> int:
    """Of the legal values of --size."""
    return min(parser(paper)._option_string_actions["--size"].choices)


def tiny(paper: str, out: Path, *more) -> list[str]:
    """Flags of a run of 8 steps; `more` goes last and so overrides."""
    flags = ["--batch-size", 4, "--size", smallest(paper), "--steps", 8, "--log-every", 1,
             "--sample-every", 2, "--save-every", 2, "--out", out, "--seed", 0, "--device", "cpu"]
    options = parser(paper)._option_string_actions
    if "--steps-mse" in options:  # its second stage, too
        flags += ["--steps-mse", 2]
    if "--standing" in options:  # batches for each picture
        flags += ["--standing", 2]
    return list(map(str, [*flags, *more]))


@pytest.fixture(scope="module")
def small_data():
    """Built-in sets of few pictures, as they take seconds to draw."""
    with mock.patch.dict(data.N_BUILTIN, FEW), mock.patch.object(data, "N_CROPPED", FEW["train"]):
        yield


@pytest.fixture
def sharp(monkeypatch):
    """float64. A gradient may be rounding alone, as that of a bias before a normalisation: Adam's
    step is then a toss of the coin, which a larger eps makes small."""
    from algorithm import float64
    monkeypatch.setattr(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=0.01))
    with float64():
        yield


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def same_signals():
    """train() takes over Ctrl-C and SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def caught(monkeypatch, sample: ModuleType) -> dict:
    """What sample.py draws from now on, by file name: grids as (rows, columns, c, h, w), films."""
    pictures = {}
    monkeypatch.setattr(sample, "save_grid", lambda path, x, n_cols=8, **options: pictures.update(
        {path.name: x.unflatten(0, (-1, n_cols))}))
    monkeypatch.setattr(sample, "save_gif", lambda path, frames, **options: pictures.update(
        {path.name: frames}))
    return pictures


# A folder of the kind of images that a paper trains on

SUBFOLDERS = {
    "load_images": ["."], "load_attributes": ["."], "load_crops": ["."],
    "load_labelled": ["one", "two"], "load_pairs": ["A", "B"],
    "load_unpaired": ["trainA", "trainB"], "load_label_maps": ["train_img", "train_label"]}


def write_data(paper: str, folder: Path, n: int) -> list[Path]:
    """n photos (per sub-folder) for this paper's --data; returns the files of the first one."""
    tree = ast.parse((ROOT / paper / "train.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             for alias in node.names}
    side = 2 * smallest(paper)
    pixels = np.random.default_rng(0).integers(256, size=(n, side, side + 9, 3), dtype="u1")
    subfolders = SUBFOLDERS[next(name for name in SUBFOLDERS if name in names)]
    for sub in subfolders:
        (folder / sub).mkdir(parents=True)
        for i, a in enumerate(pixels):
            if sub.endswith("label"):
                Image.fromarray(a[..., 0] // 128).save(folder / sub / f"{i}.png")
            else:
                Image.fromarray(a).save(folder / sub / f"{i}.jpg", quality=95)
    rows = "".join(f"{i}.jpg,{i % 2}\n" for i in range(n))
    (folder / "attributes.csv").write_text("file,odd\n" + rows)
    return sorted((folder / subfolders[0]).glob("*.jpg"))


# Checks that several papers share

def assert_resume_refused(train: ModuleType, out: Path, capfd, flags) -> None:
    """These flags do not fit the networks of the run in `out`: one line, and nothing is lost."""
    before = (out / "ckpt.pt").read_bytes()
    with pytest.raises(SystemExit):
        train.train(train.parse_args(["--resume", "--out", str(out), *map(str, flags)]))
    assert "does not fit" in capfd.readouterr().err
    assert (out / "ckpt.pt").read_bytes() == before


def assert_input_is_checked(paper: str, ckpt, place: Path, capfd) -> None:
    """sample.py's mistakes with the folder photos: one line each, and nothing is written."""
    before = sorted(place.rglob("*"))
    for flags, says in (("--input photos", "--out"), ("--input photos --out photos", "overw"),
                        ("--input photos --out out --side 0", "--side"),
                        ("--input photos --each more", "--each"),
                        ("--side 8", "--side 8 goes with --input")):
        assert main(paper, "--ckpt", ckpt, *flags.split(), script="sample.py") == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and says in err
    assert sorted(place.rglob("*")) == before


def assert_exported(G: torch.nn.Module, z: torch.Tensor) -> None:
    """By torch.jit.trace, saved and loaded, and by torch.export, for any number of z."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(G, z[:2]), file)
        file.seek(0)
        assert torch.allclose(torch.jit.load(file)(z), G(z), atol=1e-5)
        n = torch.export.Dim("n", max=4096)
        program = torch.export.export(G, (z[:2],), dynamic_shapes=[{0: n}])
    assert torch.allclose(program.module()(z), G(z), atol=1e-5)


def assert_no_neighbours(train: ModuleType, model: ModuleType) -> None:
    """sample() uses batch norm's averages, gives the same image alone, and changes nothing."""
    torch.manual_seed(0)
    G, z = model.Generator(16, 3, 10, 8), train.sample_z(6, 10)
    G(z)
    averages = [b.clone() for b in G.buffers()]
    together = train.sample(G, z)
    assert torch.allclose(together[2:3], train.sample(G, z[2:3]), atol=1e-6)
    assert all(map(torch.equal, averages, G.buffers()))
    assert not torch.allclose(together, G(z), atol=1e-3)  # the averages are not the batch's
    assert G.training and all(m.training for m in G.modules())


def assert_reaches_both_ends(G: torch.nn.Module, z: torch.Tensor) -> None:
    """Of [-1, 1], and goes no further, whatever the weights of its last convolution."""
    torch.nn.init.normal_(G.net[-2].weight)
    x = G(z)
    assert -1 <= x.min() < -0.9 and 0.9 < x.max() <= 1


def kinds(net: torch.nn.Module) -> list[type]:
    """Of its layers, those that consist of no others, in their order."""
    return [type(m) for m in net.modules() if not list(m.children())]


def n_train() -> int:
    """Images that a run of few digits trains on: the rest is held out for Parzen's window."""
    return FEW["train"] - FEW["train"] // 6


def assert_normal_weights(*nets: torch.nn.Module) -> None:
    """N(0, 0.02), as the DCGAN paper has it; the gains of batch norms N(1, 0.02), biases 0."""
    gains = []
    for m in (m for net in nets for m in net.modules()):
        if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.06)
            assert m.weight.mean().abs() < 0.002
        elif isinstance(m, torch.nn.BatchNorm2d):
            assert (m.bias == 0).all()
            gains.append(m.weight)
    gains = torch.cat(gains)
    assert gains.mean().item() == pytest.approx(1, abs=0.003)
    assert gains.std().item() == pytest.approx(0.02, rel=0.15)


def assert_uniform(*functions) -> None:
    """Each sample_z(n, z_dim) is uniform in (-1, 1)."""
    for sample_z in functions:
        z = sample_z(20_000, 5)
        assert z.shape == (20_000, 5) and -1 <= z.min() < -0.99 < 0.99 < z.max() <= 1
        assert z.mean().abs() < 0.01 and z.var().item() == pytest.approx(1 / 3, abs=0.01)


def assert_loss_at(loss, logit: float, value: float, slope: float) -> None:
    """Of four equal logits, the loss and, of their mean, its gradient."""
    a = torch.full((4,), float(logit), requires_grad=True)
    loss(a).backward()
    assert loss(a).item() == pytest.approx(value, abs=1e-6)
    assert a.grad.tolist() == pytest.approx([slope / 4] * 4, abs=1e-6)


def assert_sgd(watch, rate, momentum) -> None:
    """Of step i, G's rate(i), half of it for D, momentum(i) for both, and nothing else."""
    for i, (step_d, step_g) in enumerate(zip(*[iter(watch.all("step"))] * 2, strict=True)):
        assert step_g.group["lr"] == pytest.approx(rate(i), rel=1e-12)
        assert step_d.group["lr"] == pytest.approx(rate(i) / 2, rel=1e-12)
        for group in (step_d.group, step_g.group):
            assert group["momentum"] == momentum(i)
            assert (group["dampening"], group["weight_decay"], group["nesterov"]) == (0, 0, False)


def feature_maps(*nets: torch.nn.Module) -> list[list[tuple[int, ...]]]:
    """Lists that fill with the shapes (c, h, w) of what the nets' convolutions return."""
    lists: list[list] = [[] for _ in nets]
    for net, shapes in zip(nets, lists, strict=True):
        for m in net.modules():
            if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                m.register_forward_hook(
                    lambda m, x, y, shapes=shapes: shapes.append(tuple(y.shape[1:])))
    return lists


# What a run does, step by step

def watching(paper: str, train: ModuleType, optimiser, small: tuple, tmp_path, monkeypatch):
    """A function of more flags: train() with `small` and these, and what happened in it."""
    def go(*flags):
        watch = Watch(monkeypatch, train, optimiser)
        train.train(train.parse_args(tiny(paper, tmp_path / "run", *small, *flags)))
        return watch
    return go


class Watch:
    """Records, while train() runs, every training pass through G and D and every optimiser step.

    events: objects with `what`, "G" or "D" for a pass (its input x, output y, the network's mode
    and weights), or "step" (moved and fresh: the networks whose weights it changed, and whose
    gradients are new since the step before; group: the optimiser's settings).
    """

    def __init__(self, monkeypatch, module: ModuleType, optimiser: type[torch.optim.Optimizer]):
        self.nets, self.events, self.grads = {}, [], {}
        for name, kind in (("G", "Generator"), ("D", "Discriminator"), ("D", "Critic")):
            if hasattr(module, kind):
                self._wrap(monkeypatch, module, name, kind)
        step = optimiser.step
        monkeypatch.setattr(optimiser, "step", lambda opt, *args: self._step(opt, step))

    def _wrap(self, monkeypatch, module, name, kind):
        build = getattr(module, kind)

        def built(*args, **kwargs):
            self.nets[name] = net = build(*args, **kwargs)
            net.register_forward_hook(lambda net, x, y: self._passed(name, net, x[0], y))
            return net

        monkeypatch.setattr(module, kind, built)

    def _passed(self, name, net, x, y):
        if torch.is_grad_enabled():  # sampling is no training
            self.events.append(SimpleNamespace(
                what=name, x=x.detach().clone(), y=y.detach().clone(), training=net.training,
                weights=_copies(net)))

    def _step(self, opt, step):
        grads = {name: _copies(net, grads=True) for name, net in self.nets.items()}
        before = {name: _copies(net) for name, net in self.nets.items()}
        step(opt)
        self.events.append(SimpleNamespace(
            what="step", group={k: v for k, v in opt.param_groups[0].items() if k != "params"},
            moved={k for k, net in self.nets.items() if not _same(before[k], _copies(net))},
            fresh={k for k in grads if not _same(grads[k], self.grads.get(k, [None]))}))
        self.grads = grads

    def all(self, what: str) -> list[SimpleNamespace]:
        return [event for event in self.events if event.what == what]

    def order(self) -> str:
        """The events as a line: G D D step(D) ..."""
        return " ".join(e.what if e.what != "step" else f"step({','.join(sorted(e.moved))})"
                        for e in self.events)


def _copies(net, grads: bool = False) -> list[torch.Tensor | None]:
    parts = [p.grad if grads else p for p in net.parameters()]
    return [p if p is None else p.detach().clone() for p in parts]


def _same(a, b) -> bool:
    if all(p is None for p in (*a, *b)):
        return True
    return len(a) == len(b) and all(
        p is q or (p is not None and q is not None and torch.equal(p, q))
        for p, q in zip(a, b, strict=True))


def n_parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
