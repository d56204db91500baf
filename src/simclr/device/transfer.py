"""Transfer of arrays from the host to a device, all in one asynchronous copy."""

import math
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes; the widest load of a GPU needs that many."""

Layout = dict[str, tuple[slice, torch.dtype, tuple[int, ...]]]


class Parcel(Mapping[str, Tensor]):
    """Tensors by name in one block of memory, made by `pack`: on the host or, after `to`, on a device."""

    def __init__(self, memory: Tensor, layout: Layout) -> None:
        self._memory, self._layout = memory, layout

    def __getitem__(self, name: str) -> Tensor:
        place, dtype, shape = self._layout[name]
        return self._memory[place].view(dtype).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def to(self, device: torch.device) -> "Parcel":
        """The same tensors on `device`; a GPU copies them on a stream of its own, beside the computation."""
        if device.type == "cpu":
            return self
        compute_stream, copy_stream = torch.cuda.current_stream(device), _copy_stream(device)
        with torch.cuda.stream(copy_stream):
            memory = self._memory.to(device, non_blocking=True)
        compute_stream.wait_stream(copy_stream)
        memory.record_stream(compute_stream)  # the allocator must not reuse it before it has been read
        return Parcel(memory, self._layout)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def pack(
    arrays: Mapping[str, npt.NDArray[np.generic]],
    device: torch.device,
    room: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] | None = None,
) -> Parcel:
    """Copy `arrays` into one block of host memory, to be sent to `device`; for a GPU the memory is pinned.

    Args:
        room: dtype and shape of tensors to allocate in the same block, which the caller fills: large data are read
            straight into it.
    """
    specs = dict(room or {})
    for name, array in arrays.items():
        specs[name] = torch.from_numpy(np.empty(0, array.dtype)).dtype, array.shape
    layout: Layout = {}
    end = 0
    for name, (dtype, shape) in specs.items():
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + math.prod(shape) * dtype.itemsize
        layout[name] = slice(start, end), dtype, shape
    parcel = Parcel(torch.empty(end, dtype=torch.uint8, pin_memory=device.type == "cuda"), layout)
    for name, array in arrays.items():
        parcel[name].numpy()[...] = array
    return parcel
