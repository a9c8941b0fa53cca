"""For the tests of one whole step: a run of train.py's own train() in float64, step by step."""
import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from conftest import load, tiny

from common.data import Data


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """New tensors, and the pictures of every stream, are float64."""
    batches = Data.batches

    def cast(fields):
        if isinstance(fields, tuple):
            return tuple(map(cast, fields))
        return fields.double() if fields.is_floating_point() else fields

    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(Data, "batches", lambda *args, **kwargs:
                               map(cast, batches(*args, **kwargs))):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def three_steps(paper: str, out: Path, *flags) -> tuple[dict, dict]:
    """The checkpoints after step 1, for a test to go on from by the paper's algorithm, and after
    step 3. Call within float64(). Step s begins with torch.manual_seed(s), the stream with
    batches(4, seed=0), of which step s has batch s - 1."""
    train = load(paper, "train")
    train.train(train.parse_args(tiny(paper, out, "--steps", 3, "--keep-every", 1, *flags)))
    return tuple(torch.load(out / name, weights_only=True)
                 for name in ("ckpt-000001.pt", "ckpt.pt"))


def assert_same(parts: dict, ckpt: dict, tolerance: float = 1e-7) -> None:
    """parts: name -> network, optimiser or tensor: what the checkpoint holds, to rounding. (Adam
    makes much of the rounding in a gradient that is 0, such as a bias's before batch norm.)"""
    for name, part in parts.items():
        state = part if isinstance(part, torch.Tensor) else part.state_dict()
        torch.testing.assert_close(state, ckpt[name], rtol=tolerance, atol=tolerance,
                                   msg=lambda m, name=name: f"{name}: {m}")
