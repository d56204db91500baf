"""Loading from a file that memory cannot hold: images per second in random order, and in windows.

    systemd-run --scope -p MemoryMax=2G -p "IOReadIOPSMax=/dev/sda 150" python -m benchmarks.disk

The limits of the control group make the machine, here one of 2 GB whose disk answers 150 times a second; without them
the file has to be larger than half of the memory there is. What is measured is what a GPU is fed with: two views of
224 px, decoded, cut and flipped. Of each order's time the first half, in which the page cache fills, does not count.
"""

import argparse
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import torch

from benchmarks import images
from benchmarks.contest import CORES, exit_on_signals, recipe
from benchmarks.loading import views_of
from simclr.core import entry
from simclr.core.errors import UserError
from simclr.data import beton, readahead, sampling
from simclr.device.transfer import Parcel
from simclr.distributed.session import open_session
from simclr.tracking import progress
from simclr.views.compose import Views
from simclr.views.stream import ViewStream

_BATCH = 64
_DISTINCT = 400
"""Crops of photographs, which are stored again and again."""
_GB = 10**9
_MOST_GB = 10**5


def main() -> None:
    arguments = _arguments()
    exit_on_signals()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, open_session():
        path = _stored(Path(folder), arguments.gigabytes)
        print("| order | images/s | kB read for an image |\n|---|--:|--:|", flush=True)
        for window in (None, *arguments.windows):
            order = f"windows of {window}" if window else "random"
            rate, kilobytes = measured(path, window, arguments.seconds, order)
            print(f"| {order} | {rate:.0f} | {kilobytes:.0f} |", flush=True)


def _stored(folder: Path, gigabytes: float) -> Path:
    """A .beton of so many gigabytes in `folder`, and on the disk.

    Raises:
        UserError: memory can hold it.
    """
    files = images.cut(folder, _DISTINCT)
    repeats = max(1, round(gigabytes * _GB / sum(file.stat().st_size for file in files)))
    print(f"disk: writing {gigabytes} GB into {folder}", file=sys.stderr, flush=True)
    file = images.stored_files(folder / "train.beton", files * repeats)
    if readahead.fits_memory(file):
        raise UserError(f"--gigabytes {gigabytes}: more than half of the memory that this process may use is needed")
    print(f"{len(file)} JPEG files, {len(file.data) / _GB:.1f} GB, {CORES} cores\n")
    return file.path


def measured(path: Path, window: int | None, seconds: float, title: str) -> tuple[float, float]:
    """The images per second that are loaded from the .beton at `path`, and the kilobytes that are read from the disk
    for each of them."""
    with path.open("rb") as file:  # nothing maps it now, so that the kernel can forget all of it
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with closing(_parcels(path, window)) as parcels, progress.bar(round(2 * seconds), "s", title) as bar:
        _used(parcels, seconds, bar)
        began, read = time.perf_counter(), _bytes_read()
        count = _used(parcels, seconds, bar)
        return count / (time.perf_counter() - began), (_bytes_read() - read) / 1000 / count


def _parcels(path: Path, window: int | None) -> Generator[Parcel]:
    chosen = views_of(recipe("imagenet"))
    cut = [each for each in chosen.augmentations if each.name in ("crop", "flip")]
    file = beton.read(path)
    stream = ViewStream(file, (Views(cut, 2, 224, chosen.seed),), torch.device("cpu"), window)
    for epoch in itertools.count(1):
        shares = sampling.shuffled_batches(len(file), _BATCH, chosen.seed, epoch, drop_last=True, window=window)
        yield from stream.parcels(shares, epoch, _BATCH)


def _used(parcels: Iterator[Parcel], seconds: float, bar: progress.Bar) -> int:
    """Take `parcels` for so many seconds; returns the number of their images."""
    began, start, count = time.perf_counter(), bar.n, 0
    while (passed := time.perf_counter() - began) < seconds:
        next(parcels)
        count += _BATCH
        bar.update(start + int(passed) - bar.n)
    return count


def _bytes_read() -> int:
    """The bytes that the kernel has read from a disk for this process (proc_pid_io(5))."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.disk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=_writable, default=Path(tempfile.gettempdir()),
        help="on the disk to measure (default: that of temporary files); the file is deleted in the end",
    )  # fmt: skip
    parser.add_argument("--gigabytes", type=_positive, default=8.0, help="of the file (default: 8)")
    parser.add_argument("--seconds", type=_positive, default=60.0, help="that count for each order (default: 60)")
    parser.add_argument(
        "--windows", type=int, nargs="*", default=[2048], metavar="SAMPLES", help="orders in windows (default: 2048)"
    )
    arguments = parser.parse_args()
    if arguments.gigabytes > _MOST_GB:
        parser.error(f"argument --gigabytes: {_MOST_GB} at most")
    if min(arguments.windows, default=_BATCH) < _BATCH:
        parser.error(f"argument --windows: at least a batch, {_BATCH}")
    return arguments


def _writable(text: str) -> Path:
    if not (text and os.access(os.path.join(text, "."), os.W_OK)):  # "." is in folders alone
        raise argparse.ArgumentTypeError(f"{text!r} is no folder that can be written to")
    return Path(text)


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")


if __name__ == "__main__":
    entry.run("disk", main)
