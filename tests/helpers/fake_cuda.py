"""A GPU that is not there: tensors on it have shapes and no values, and whatever is asked of it is counted.

with fake_cuda.counted() as asked:
    images = parcel.to(torch.device("cuda"))["pixels"] / 255
assert asked.operations == 1
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from simclr.augment import blur
from simclr.device import constant

CUDA = torch.device("cuda")
_FREE = ("aten.empty", "aten.new_empty", "aten.lift_fresh", "aten.detach", "aten.record_stream", "prim.")
"""Operations that start no kernel, beside those that return views."""


class Asked(TorchDispatchMode):
    """What operations on a GPU would do, each read and written once; a view, or making memory, is none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0
        """Read and written by kernels."""
        self.copied: list[int] = []
        """The bytes of every copy from the host."""
        self.waits: list[str] = []
        """Operations for which the host waits until the GPU is idle."""

    @property
    def operations(self) -> int:
        """Kernels and copies."""
        return self.names.total()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        given, made = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in ((args, kwargs), result)
        )
        if not any(tensor.device.type == "cuda" for tensor in (*given, *made)):
            return result
        name, returns = str(operation), operation._schema.returns
        if name.startswith("aten._local_scalar_dense"):
            self.waits.append(name)
        if name.startswith(_FREE) or (returns and all(r.alias_info and not r.alias_info.is_write for r in returns)):
            return result
        self.names[name] += 1
        here = [tensor for tensor in given if tensor.device.type == "cuda"]
        if any(tensor.device.type == "cpu" and tensor.ndim for tensor in (*given, *made)):
            self.copied.append(_size(made[0]))
            if not (kwargs.get("non_blocking") or True in args[2:]):
                self.waits.append(name)
        if name.startswith("simclr.jitter"):  # it reads the images once for their mean luma and once to change them
            here.append(given[0])
        self.bytes += sum(map(_size, (*here, *made)))
        return result


def _size(tensor: Tensor) -> int:
    """Bytes; what is repeated along an axis counts once."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(length for length, stride in axes if stride) * tensor.element_size()


@contextmanager
def counted() -> Iterator[Asked]:
    """Within it tensors can be on the device "cuda", and what is asked of it is counted."""
    asked = Asked()
    with FakeTensorMode(allow_non_fake_inputs=True), asked:
        yield asked


@contextmanager
def present() -> Iterator[None]:
    """Within it host memory can be pinned and streams made, which does nothing; what lies on the GPU for good belongs
    to it alone."""
    empty = torch.empty
    replaced = {
        "torch.empty": lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs),
        "torch.cuda.get_device_capability": lambda _: (9, 0),
        "torch.cuda.Stream": mock.Mock(),
        "torch.cuda.stream": lambda _: nullcontext(),
        "torch.cuda.current_stream": mock.Mock(),
        "torch.Tensor.record_stream": mock.Mock(),
    }
    kept = (constant.constant, blur._reflected)
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch(name, value))
        for cache in kept:
            cache.cache_clear()
            stack.callback(cache.cache_clear)
        yield
