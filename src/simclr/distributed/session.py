"""One process, or those that torchrun started: the same code for all.

The number of processes belongs to the machine and never stands in params.yaml: see `launch`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from simclr.core import processor
from simclr.core.errors import UserError
from simclr.device import malloc


@dataclass(frozen=True)
class Session:
    """This process among the others."""

    rank: int
    world_size: int
    device: torch.device
    cpu_group: "dist.ProcessGroup | None" = None
    """The group for what is exchanged between hosts without a GPU waiting for it; None alone."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The `rows` of all ranks in rank order: (n, ...) of each becomes (world_size * n, ...); no gradient flows."""
        if self.world_size == 1:
            return rows
        gathered = rows.new_empty((self.world_size * len(rows), *rows.shape[1:]))
        dist.all_gather(list(gathered.chunk(self.world_size)), rows.contiguous())
        return gathered

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over the ranks, elementwise; no gradient flows."""
        if self.world_size == 1:
            return value.detach()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the ranks, elementwise; no gradient flows."""
        return self.sum(value) / self.world_size if self.world_size > 1 else value.detach()

    def max_later(self, numbers: Sequence[int]) -> Callable[[], list[int]]:
        """A function that waits for, and returns, the largest over the ranks of each of the `numbers`.

        They are exchanged meanwhile, between the hosts, so that no GPU is waited for.
        """
        if self.world_size == 1:
            return lambda: list(numbers)
        found = torch.tensor(numbers)
        exchange = dist.all_reduce(found, dist.ReduceOp.MAX, group=self.cpu_group, async_op=True)

        def waited() -> list[int]:
            exchange.wait()
            return [int(number) for number in found]

        return waited

    def broadcast(self, value: Any) -> Any:
        """What the main process gives here, on every rank; tensors on the CPU and plain values."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, group=self.cpu_group)
        return box[0]


@contextmanager
def open_session(*, deterministic: bool = False, benchmark: bool = False, tf32: bool = True) -> Iterator[Session]:
    """Join the process group that torchrun describes in the environment, or stand alone without one.

    Processes that are more than the GPUs of their machine share them, and exchange by gloo: NCCL refuses that.

    On a GPU cuDNN keeps to algorithms that repeat their results, chosen without timing them; with `benchmark` it
    times all that it has for a shape, once, and takes the fastest. `deterministic` holds all of torch to those that
    repeat: an operation that has none raises a RuntimeError. Without `tf32` convolutions of float32 are computed as
    such, slower. On a CPU torch has the threads that `processor.threads`
    says, so that results do not depend on the number of cores.
    """
    torch.set_num_threads(processor.threads())  # importing ffcv sets 1
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if world > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(f"environment: WORLD_SIZE = {world} without MASTER_ADDR; torchrun sets both, or unset it")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % gpus)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        malloc.keep_freed_memory()
    with _repeatable(deterministic, benchmark, tf32):
        if world == 1:
            yield Session(rank=0, world_size=1, device=device)
            return
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= gpus:
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        yield Session(rank, world, device, cpu_group=cast(dist.ProcessGroup, dist.new_group(backend="gloo")))
        # not after an exception: NCCL would wait here for the ranks that are gone
        dist.destroy_process_group()


@contextmanager
def _repeatable(deterministic: bool, benchmark: bool, tf32: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    # read by cuBLAS when it first runs (its documentation, section "Results reproducibility")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            benchmark=benchmark,
            deterministic=not benchmark,
            allow_tf32=tf32 and torch.backends.cudnn.allow_tf32,
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
