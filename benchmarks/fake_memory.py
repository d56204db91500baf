"""What tensors take at most, counted where there is no GPU: their shapes are computed, their values are not.

The count is that of the tensors alone: CUDA's context, the allocator's gaps and a library's workspaces come on top.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed._tools.mod_tracker import ModTracker

from simclr.device.constant import constant

MIB, GIB = 2**20, 2**30
CUDA = torch.device("cuda", 0)


class Peak:
    """The most that was held at once, in bytes, of a GPU and of its host; known after the block of `counted`."""

    gpu: int
    host: int


class _NoModules(ModTracker):
    """Which follows no module: its hooks keep the graph of a forward pass that no backward pass frees, and refuse a
    module that is called twice."""

    def __enter__(self) -> "_NoModules":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class _Tensors(MemTracker):
    """Which takes no account of the modules that tensors belong to."""

    def __init__(self) -> None:
        super().__init__()
        self._mod_tracker = _NoModules()  # type: ignore[no-untyped-call]


@contextmanager
def counted() -> Iterator[Peak]:
    """Have every tensor that is made in here, on "cuda" or the CPU, counted and never filled."""
    peak, tracker = Peak(), _Tensors()
    constant.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True), tracker:
        yield peak
    constant.cache_clear()
    by_device = tracker.get_tracker_snapshot("peak")
    peak.gpu, peak.host = (
        next((int(kinds["Total"]) for device, kinds in by_device.items() if device.type == name), 0)
        for name in ("cuda", "cpu")
    )
