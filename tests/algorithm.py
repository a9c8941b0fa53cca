"""For the tests of one whole step: a run in float64, also in two processes, and what it is compared
with."""
import contextlib
import functools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from conftest import FEW, FORK, load

from common.data import N_BUILTIN, Data


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Weights, noise and images are doubles: two ways to compute the same differ by 1e-15."""
    def double(x):
        if isinstance(x, tuple):
            return tuple(map(double, x))
        return x.double() if x.is_floating_point() else x

    batches, item = Data.batches, Data.__getitem__
    torch.set_default_dtype(torch.float64)
    try:
        with (mock.patch.object(Data, "batches", lambda *a, **k: map(double, batches(*a, **k))),
              mock.patch.object(Data, "__getitem__", lambda *a: double(item(*a)))):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def _one_of_two(paper: str, eps: float, rank: int, port: int, *flags: str) -> None:
    os.environ.update(WORLD_SIZE="2", RANK=f"{rank}", LOCAL_RANK=f"{rank}",
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}")
    torch.set_num_threads(1)
    N_BUILTIN.update(FEW)
    torch.optim.Adam = functools.partial(torch.optim.Adam, eps=eps)
    train = load(paper, "train")
    with open(os.devnull, "w") as sys.stdout, float64():
        train.train(train.parse_args(list(flags)))


def start_two(paper: str, *flags: str, eps: float = 1e-8) -> list:
    """What torchrun starts: a run in two processes, in float64, with this eps of Adam."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    two = [FORK.Process(target=_one_of_two, args=(paper, eps, rank, port, *flags))
           for rank in range(2)]
    for process in two:
        process.start()
    return two


def join_two(two: list) -> None:
    for process in two:
        process.join(120)
    assert [process.exitcode for process in two] == [0, 0]


def assert_same_weights(a: dict, b: dict) -> None:
    """Of two checkpoints, but for the order in which a batch was summed up."""
    for name in {"G", "D", "G_ema", "a"} & a.keys():
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-9)


def assert_resumed(go: Callable, tmp_path: Path, last: int, stop: int, *flags) -> dict:
    """go(out, *flags) trains and returns its checkpoint: stopped and resumed, of the same bits."""
    whole = go(tmp_path / "run", "--steps", last, *flags)
    go(tmp_path / "again", "--steps", stop, *flags)
    torch.manual_seed(12345)
    again = go(tmp_path / "again", "--steps", last, "--resume")
    for name in {"G", "D", "G_ema", "a", "shown"} & whole.keys():
        torch.testing.assert_close(whole[name], again[name], rtol=0, atol=0)
    return again


class SGD:
    """With momentum, as torch has it: v = m v + gradient, w = w - lr v."""

    def __init__(self, weights):
        self.weights = list(weights)
        self.v = [torch.zeros_like(w) for w in self.weights]

    def step(self, loss: torch.Tensor, lr: float, m: float) -> None:
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for w, v, g in zip(self.weights, self.v, gradients, strict=True):
                w -= lr * v.mul_(m).add_(g)


class RMSProp:
    """As torch has it: v = 0.99 v + 0.01 gradient^2, w = w - lr gradient / (sqrt(v) + 1e-8)."""

    def __init__(self, weights):
        self.weights = list(weights)
        self.v = [torch.zeros_like(w) for w in self.weights]

    def step(self, loss: torch.Tensor, lr: float) -> None:
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for w, v, g in zip(self.weights, self.v, gradients, strict=True):
                v.mul_(0.99).add_(0.01 * g ** 2)
                w -= lr * g / (v.sqrt() + 1e-8)


class Adam:
    """Kingma, Ba, ICLR 2015, Algorithm 1."""

    def __init__(self, weights, beta1: float, beta2: float = 0.999):
        self.weights, self.betas, self.t = list(weights), (beta1, beta2), 0
        self.m, self.v = ([torch.zeros_like(w) for w in self.weights] for _ in "mv")

    def step(self, loss: torch.Tensor, lr: float) -> None:
        self.t += 1
        (b1, b2), t = self.betas, self.t
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for w, m, v, g in zip(self.weights, self.m, self.v, gradients, strict=True):
                m.mul_(b1).add_((1 - b1) * g)
                v.mul_(b2).add_((1 - b2) * g ** 2)
                w -= lr * (m / (1 - b1 ** t)) / ((v / (1 - b2 ** t)).sqrt() + 1e-8)


def assert_same_run(out: Path, rows: list[list[float]], tolerance: float = 1e-11,
                    **nets: torch.nn.Module) -> None:
    """The run in `out` has these networks, buffers too, and these rows of numbers in its log. (Adam
    makes much of the rounding in a gradient that is 0, a bias's before batch norm: 1e-7.)"""
    ckpt = torch.load(out / "ckpt.pt", weights_only=True)
    for name, net in nets.items():
        torch.testing.assert_close(ckpt[name], net.state_dict(), rtol=tolerance, atol=tolerance)
    log = [[float(cell) for cell in line.split(",")[1:]]
           for line in (out / "log.csv").read_text().splitlines()[1:]]
    log, rows = (torch.tensor(table, dtype=torch.float64) for table in (log, rows))
    torch.testing.assert_close(log, rows, rtol=0, atol=6e-6)
