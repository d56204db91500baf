"""What the kernel is asked for, and when."""

import ctypes
import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from simclr.core import control_groups
from simclr.data import loader, readahead
from simclr.data.beton import JPEG, Beton, StoredImage
from simclr.data.readahead import read_ahead
from simclr.data.sampling import Indices
from simclr.views import stream as streams
from simclr.views.stream import ViewStream
from tests.data.test_loader import SOUND, write
from tests.helpers.augmentations import views
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE


def test_neighbors_are_read_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stored(tmp_path / "x.beton", noise(40, 64, seed=0), np.zeros(40, np.int64))  # 12 KiB each
    samples = np.array([7, 30, 5, 6, 31, 39])
    read_ahead(file, samples)  # by the real kernel
    asked: list[tuple[int, int]] = []

    def madvise(address: int, length: int, advice: int) -> int:
        assert advice == (mmap.MADV_WILLNEED if asked else mmap.MADV_RANDOM)
        asked.append((address - file.data.ctypes.data, length))
        return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(madvise=madvise))
    read_ahead(file, samples)
    assert asked.pop(0) == (0, len(file.data))
    assert len(asked) == 3  # 5 to 7, 30 and 31, 39
    assert all((file.data.ctypes.data + first) % mmap.PAGESIZE == 0 for first, _ in asked)
    for sample in samples:
        start, stop = file.starts[sample], file.starts[sample] + file.sizes[sample]
        assert any(first <= start and stop <= first + length for first, length in asked)
    assert sum(length for _, length in asked) < 6 * 64 * 64 * 3 + 3 * mmap.PAGESIZE
    read_ahead(file, samples[:0])  # as of a rank without a share of a small last batch
    assert len(asked) == 3


def is_random(path: Path) -> bool:
    """Whether the kernel was told not to read around what is asked for (proc(5), /proc/pid/smaps: VmFlags rr)."""
    flags, here = "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            here = line.endswith(str(path))
        elif here and line.startswith("VmFlags:"):
            flags = line
    return " rr" in flags


def test_of_jpegs_that_do_not_fit_the_kernel_reads_what_a_batch_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def spy(file: Beton, samples: Indices) -> None:
        asked.append(samples.tolist())
        read_ahead(file, samples)

    monkeypatch.setattr(loader, "read_ahead", spy)
    jpegs = write(tmp_path / "jpegs.beton", [StoredImage(JPEG, 48, 64, SOUND)] * 5)
    pixels = stored(tmp_path / "pixels.beton", noise(5, 8, seed=0), np.zeros(5, np.int64))
    loader.thumbnails(jpegs, np.array([3, 1]), 8)
    assert asked == []
    assert not is_random(jpegs.path)
    monkeypatch.setattr(readahead, "_memory", lambda: 2.0 * len(jpegs.data) - 1)
    for file in (jpegs, pixels):
        loader.thumbnails(file, np.array([3, 1]), 8)
    assert asked == [[3, 1]]
    assert is_random(jpegs.path)


def test_the_memory_is_that_of_the_machine_or_of_its_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = readahead._memory.__wrapped__
    monkeypatch.setattr(control_groups, "memory", lambda: 1e6)
    assert memory() == 1e6
    monkeypatch.setattr(control_groups, "memory", lambda: float("inf"))
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert memory() == 1024 * int(total.split()[1])


def test_each_window_is_read_ahead_while_the_one_before_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stored(tmp_path / "x.beton", noise(90, 8, seed=0), np.zeros(90, np.int64))
    events: list[tuple[str, set[int]]] = []
    monkeypatch.setattr(streams, "fits_memory", lambda _: False)
    monkeypatch.setattr(streams, "read_ahead", lambda _, samples: events.append(("ahead", set(samples.tolist()))))
    load = ViewStream.load

    def spy(self: ViewStream, samples: Indices, epoch: int) -> Any:
        events.append(("load", set(samples.tolist())))
        return load(self, samples, epoch)

    monkeypatch.setattr(ViewStream, "load", spy)
    for first in (0, 5):
        events.clear()
        stream = ViewStream(file, (views(8, count=2, seed=3),), torch.device("cpu"), window=30)
        list(stream.epoch(1, 10, ALONE, drop_last=False, first=first))
        ahead: set[int] = set()
        sizes = []
        for kind, samples in events:
            if kind == "ahead":
                assert not samples & ahead  # once
                ahead |= samples
                sizes.append(len(samples))
            else:
                assert samples <= ahead
        assert sizes == ([60, 30] if first == 0 else [40])
