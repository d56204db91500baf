"""Arrays that go from the host to a device together, in one copy that nothing waits for."""

import math
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes; as much as the widest load of a GPU wants."""

Layout = dict[str, tuple[slice, torch.dtype, tuple[int, ...]]]


class Parcel(Mapping[str, Tensor]):
    """Tensors by name that lie in one piece of memory: what `packed` made, on the host or, after `to`, on a
    device."""

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
        """The same tensors on `device`; a GPU copies them while it still works on what it was given before."""
        if device.type == "cpu":
            return self
        computing, copying = torch.cuda.current_stream(device), _copying(device)
        with torch.cuda.stream(copying):
            memory = self._memory.to(device, non_blocking=True)
        computing.wait_stream(copying)
        memory.record_stream(computing)  # it is not given to the next copy before it has been read
        return Parcel(memory, self._layout)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def packed(
    arrays: Mapping[str, npt.NDArray[np.generic]],
    device: torch.device,
    room: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] | None = None,
) -> Parcel:
    """Copies of `arrays` on the host, to be sent to `device`; a GPU can copy from this memory by itself.

    Args:
        room: dtype and shape of more tensors, to be filled before they are sent. Large ones are read straight into
            this memory.
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
