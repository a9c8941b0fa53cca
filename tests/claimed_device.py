"""A pretended CUDA device, for machines without one: all is computed on the CPU, but each storage
remembers where it would lie, and what CUDA refuses is refused.

    with pretended_cuda() as waits:      # a list that fills with the places where Python waits for
        x = torch.rand(3, device="cuda") # results of the device, or for a copy to it
        x + torch.rand(3)                # RuntimeError: two devices
"""
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
COPIES = {"aten::copy_", "aten::_foreach_copy_"}
INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
WAITS = {"aten::_local_scalar_dense",  # .item(), float(), bool(), an f-string
         "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2",
         "aten::unique_dim", "aten::repeat_interleave.Tensor"}


def tensors(x) -> list[Tensor]:
    return [t for t in tree_leaves(x) if isinstance(t, Tensor)]


def on_cuda(x: Tensor) -> bool:
    return getattr(x.untyped_storage(), "on_cuda", False)


def put(x, there: bool):
    """x, whose tensors lie there from now on."""
    for t in tensors(x):
        t.untyped_storage().on_cuda = there
    return x


class Operations(TorchDispatchMode):
    """What is computed: results lie where the inputs do, two devices are refused."""

    def __init__(self):
        super().__init__()
        self.waits, self.ambient = [], False  # ambient: where what has no inputs is made

    def wait(self, what: str) -> None:
        """Noted with the innermost line of the repository's, tests apart."""
        lines = [f"{path.parent.name}/{path.name}:{frame.lineno}: "
                 for frame in traceback.extract_stack()
                 if ROOT in (path := Path(frame.filename)).parents and path.parent.name != "tests"]
        self.waits.append((lines or [""])[-1] + what)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, given = func.name(), tensors((args, kwargs))
        there = [t for t in given if on_cuda(t)]
        here = [t for t in given if not on_cuda(t) and t.dim()]  # CUDA takes numbers from the CPU
        if there and here and name not in COPIES | INDEXING:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least "
                               f"two devices, cuda:0 and cpu! ({name})")
        if name in INDEXING:
            places = tensors(args[1])
            if any(map(on_cuda, places)) and not on_cuda(args[0]):
                raise RuntimeError("indices should be on the same device as the indexed tensor")
            if on_cuda(args[0]) and not all(on_cuda(t) and t.dtype != torch.bool for t in places):
                self.wait(name)
        if there and (name in WAITS or name in COPIES and here):
            self.wait(name)
        out = func(*args, **(kwargs or {}))
        if name == "aten::lift_fresh" or not given:  # made of a list, or of nothing
            put(out, self.ambient)
        elif there and name not in COPIES:
            put([t for t in tensors(out) if all(t is not x for x in given)], True)
        return out


class Functions(TorchFunctionMode):
    """What Python sees: names of devices, and the copies between them."""

    def __init__(self, operations: Operations):
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, ops = dict(kwargs or {}), self.operations
        if func == Tensor.device.__get__:
            return CUDA if on_cuda(args[0]) else CPU
        if func in (Tensor.numpy, Tensor.__array__) and on_cuda(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.tolist and on_cuda(args[0]):
            ops.wait("tolist")
        if func is Tensor.__deepcopy__:
            return put(func(*args, **kwargs), on_cuda(args[0]))
        if func is Tensor.cpu:
            return self.move(args[0], CPU, False)
        if func is Tensor.to:
            x, *rest = args
            device, dtype, non_blocking, _ = torch._C._nn._parse_to(*rest, **kwargs)
            if rest and isinstance(rest[0], Tensor):
                device = CUDA if on_cuda(rest[0]) else CPU
            return self.move(x if dtype is None else func(x, dtype), device, non_blocking)
        before, device = ops.ambient, kwargs.get("device")
        if device is None:
            ops.ambient = any(map(on_cuda, tensors((args, kwargs))))
        else:
            ops.ambient, kwargs["device"] = torch.device(device).type == "cuda", CPU
            if func is torch.tensor and ops.ambient:
                ops.wait("torch.tensor, a copy to the device")
            if (g := kwargs.get("generator")) is not None and ops.ambient:
                raise RuntimeError(f"Expected a 'cuda' device type for generator, found {g.device}")
        noted = len(ops.waits)
        try:
            return func(*args, **kwargs)
        finally:
            ops.ambient = before
            if func is F.one_hot and (*args, *kwargs.values())[1:] not in ((), (-1,)):
                del ops.waits[noted:]  # only on the CPU it looks at the classes

    def move(self, x: Tensor, device: torch.device | None, non_blocking: bool) -> Tensor:
        if device is None or (device.type == "cuda") == on_cuda(x):
            return x
        if on_cuda(x) or not non_blocking:
            self.operations.wait(f"a copy to {device}")
        y = put(x.clone(), device.type == "cuda")
        if y.requires_grad:  # the gradient goes the other way
            y.register_hook(lambda grad: put(grad.clone(), on_cuda(x)))
        return y


@contextmanager
def pretended_cuda() -> Iterator[list[str]]:
    operations, load = Operations(), torch.load
    with (operations, Functions(operations), mock.patch.object(
            torch, "load", lambda path, map_location, **options: put(
                load(path, map_location="cpu", **options),
                torch.device(map_location).type == "cuda"))):
        yield operations.waits
