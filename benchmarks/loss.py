"""NT-Xent, forward and backward: its time, and the memory that it takes beyond its inputs.

python -m benchmarks --only loss
python -m benchmarks.loss ours 8192 128 cpu      # what one loss takes, in MiB: the process that is asked for it
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contest import OURS, Row, Run, compare, finished, interleaved, milliseconds, peer
from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.losses import nt_xent

TEMPERATURE = 0.1
_WARM_UP = 64
_OWN_MAPPING = 128 << 10
"""Bytes from which a tensor's memory is a mapping of its own, gone when it is freed. If glibc may move this threshold,
as it does by default, it keeps freed blocks of up to 32 MiB, and the peak varies by a third from run to run."""

NOTES = """\
- Forward and backward pass; time in this process, by turns; memory in a process of its own each: the peak above what
  it held with its inputs made and one small loss gone before; the allocator returns there what is freed.
- The dense form is the obvious code: one matrix of all similarities, its diagonal left out, cross entropy."""

Loss = Callable[[Tensor], Tensor]
"""Projections z (2n, d), second views after first ones, to a scalar."""


def ours(z: Tensor) -> Tensor:
    rows = torch.arange(len(z), device=z.device)
    samples = rows[: len(z) // 2]
    batch = Batch(images=(), keys=rows, labels=samples, samples=samples, views=2, total=len(samples))
    parameters = nt_xent.Params(temperature=TEMPERATURE, similarity="cosine")
    return nt_xent.loss(z, batch, parameters, Session(rank=0, world_size=1, device=z.device))


def dense(z: Tensor) -> Tensor:
    """The plain form, with all similarities at once."""
    z = F.normalize(z, dim=1)
    similarities = z @ z.T / TEMPERATURE
    similarities.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarities, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def _lightly() -> Loss:
    loss = peer("lightly.loss").NTXentLoss(TEMPERATURE)

    def call(z: Tensor) -> Tensor:
        found: Tensor = loss(*z.chunk(2))
        return found

    return call


_LOSSES: dict[str, Callable[[], Loss]] = {"ours": lambda: ours, "dense form": lambda: dense, "lightly": _lightly}


def rows(device: torch.device, *, samples: int, most: int, dimension: int, least: float, repeats: int) -> Iterator[Row]:
    """The rows of the table, at `samples` for all, and at `most` for ours alone."""
    peers = [name for name in _LOSSES if name != "ours"]

    def timed(name: str, count: int) -> Run:
        loss = _LOSSES[name]()
        z = _projections(count, dimension, device)
        return milliseconds(lambda: torch.autograd.grad(loss(z), z), device, least)

    def measured(name: str, count: int) -> Run:
        _LOSSES[name]()  # raises here what the other process would
        return lambda: _elsewhere(name, count, dimension, device)

    for quantity, unit, run, turns, target in (
        ("time", "ms", timed, repeats, 1 / 1.1),
        ("peak memory", "MiB", measured, 1, 8.0),
    ):
        yield from compare(
            f"NT-Xent, {samples} samples: {quantity}", unit, run("ours", samples),
            {name: partial(run, name, samples) for name in peers}, turns, targets={"dense form": target},
        )  # fmt: skip
        alone = interleaved({OURS: run("ours", most)}, 1)[OURS]
        yield Row(f"NT-Xent, {most} samples: {quantity}", unit, alone)


def _projections(samples: int, dimension: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * samples, dimension, generator=generator).to(device).requires_grad_()


def _elsewhere(name: str, samples: int, dimension: int, device: torch.device) -> float:
    """`taken` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.loss", name, str(samples), str(dimension), device.type]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(_OWN_MAPPING)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def taken(name: str, samples: int, dimension: int, device: torch.device) -> float:
    """The peak memory in MiB of one forward and backward pass, above what this process holds before it."""
    loss, z = _LOSSES[name](), _projections(samples, dimension, device)
    small = _projections(_WARM_UP, dimension, device)
    torch.autograd.grad(loss(small), small)
    finished(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(loss(z), z)
        return float((torch.cuda.max_memory_allocated() - before) / 2**20)
    Path("/proc/self/clear_refs").write_text("5")  # what was the peak so far is forgotten (proc(5))
    before = _status("VmRSS")
    torch.autograd.grad(loss(z), z)
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> int:
    """A size of this process in KiB, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


if __name__ == "__main__":
    print(taken(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), torch.device(sys.argv[4])))
