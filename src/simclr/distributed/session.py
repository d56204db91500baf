"""Communication between the processes of a stage: the same code for one process and for the workers of torchrun.

The number of processes is a property of the machine, not a parameter: see `launch`.
"""

import os
import re
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
from simclr.distributed import torchrun_options


@dataclass(frozen=True)
class Session:
    """The rank of this process, its device and its collectives."""

    rank: int
    world_size: int
    device: torch.device
    cpu_group: "dist.ProcessGroup | None" = None
    """The gloo group for small CPU messages, which no GPU waits for; None with one process."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.rank == 0

    @property
    def shares_gpu(self) -> bool:
        """Whether several processes share a GPU: see `open_session`."""
        return self.world_size > 1 and self.device.type == "cuda" and dist.get_backend() == "gloo"

    def gather_rows(self, rows: Tensor) -> Tensor:
        """All-gather `rows` in rank order: (n, ...) of each rank to (world_size * n, ...); no gradient flows."""
        if self.world_size == 1:
            return rows.detach()
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

    def max_async(self, numbers: Sequence[int]) -> Callable[[], list[int]]:
        """Start an all-reduce of the `numbers`; return a function that waits for the maximum over the ranks of each.

        The messages go between the hosts, so that no one waits for a GPU.
        """
        if self.world_size == 1:
            return lambda: list(numbers)
        maxima = torch.tensor(numbers)
        work = dist.all_reduce(maxima, dist.ReduceOp.MAX, group=self.cpu_group, async_op=True)

        def wait() -> list[int]:
            work.wait()
            return [int(number) for number in maxima]

        return wait

    def broadcast(self, value: Any) -> Any:
        """The main process's `value` on every rank: tensors on the CPU and plain values."""
        if self.world_size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, group=self.cpu_group)
        return objects[0]


@contextmanager
def open_session(
    *, deterministic: bool = False, benchmark: bool = False, tf32: bool = True, memory_hint: str = ""
) -> Iterator[Session]:
    """Join the process group that torchrun describes in the environment; without one, open a session of one process.

    If there are more processes than GPUs, they share the GPUs and communicate by gloo, because NCCL refuses that.

    On a GPU cuDNN uses deterministic algorithms, selected by its heuristics; with `benchmark` it times all algorithms
    for a shape, once, and uses the fastest. `deterministic` restricts all of torch to deterministic algorithms: an
    operation without one raises a RuntimeError. Without `tf32`, float32 convolutions run in full precision, slower, as
    matrix products always do, whatever the environment says.
    On a CPU torch has `processor.threads` threads, so that results do not depend on the number of cores.

    Raises:
        UserError: WORLD_SIZE is set without MASTER_ADDR, or one of torchrun's variables is impossible; or the GPU's
            memory does not suffice for what is done within: says what takes less, by the `memory_hint`.
    """
    torch.set_num_threads(processor.threads())  # importing ffcv sets it to 1
    world_size, rank = _of_torchrun("WORLD_SIZE", least=1), _of_torchrun("RANK")
    if world_size > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(f"environment: WORLD_SIZE = {world_size} without MASTER_ADDR; torchrun sets both, or unset it")
    if rank >= world_size:
        raise UserError(f"environment: RANK = {rank} is not allowed with WORLD_SIZE = {world_size}; unset both")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device("cuda", _of_torchrun("LOCAL_RANK") % gpus) if gpus else torch.device("cpu")
    with _precision_flags(deterministic, benchmark, tf32), _out_of_memory_in_one_line(memory_hint):
        if gpus:
            torch.cuda.set_device(device)
        else:
            malloc.keep_freed_memory()
        if world_size == 1:
            yield Session(rank=0, world_size=1, device=device)
            return
        if _of_torchrun("LOCAL_WORLD_SIZE", least=1) <= gpus:
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        yield Session(rank, world_size, device, cpu_group=cast(dist.ProcessGroup, dist.new_group(backend="gloo")))
        # skipped after an exception: NCCL would wait for the ranks that are gone
        dist.destroy_process_group()


def _of_torchrun(name: str, *, least: int = 0) -> int:
    """The number in a variable that torchrun sets; `least` without it."""
    value = os.environ.get(name, str(least))
    if not torchrun_options.is_within(value, least):
        raise UserError(f"environment: {name} = {value} is not allowed; torchrun sets it to a number, or unset it")
    return int(value)


@contextmanager
def _out_of_memory_in_one_line(hint: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:  # of NumPy
        raise _no_memory(str(error) or "MemoryError", hint) from error
    except RuntimeError as error:  # of torch's allocators, of CUDA itself, or of cuBLAS
        if asked := re.search(r"you tried to allocate \d+ bytes", str(error)):
            raise _no_memory(asked[0], hint) from error
        if not re.search(r"CUDA.*out of memory|ALLOC_FAILED", str(error)):
            raise
        said = re.search(r"Tried to allocate .*? is free", str(error), re.DOTALL)
        way_out = hint or "run the stage without it (CUDA_VISIBLE_DEVICES=)"
        figures = said[0] if said else str(error).partition("\n")[0]
        raise UserError(
            f"the GPU's memory does not suffice: {way_out}, or end other programs there ({figures})"
        ) from error


def _no_memory(said: str, hint: str) -> UserError:
    return UserError(f"this machine's memory does not suffice: {hint or 'take a smaller model or less data'} ({said})")


@contextmanager
def _precision_flags(deterministic: bool, benchmark: bool, tf32: bool) -> Iterator[None]:
    before, before_matmul = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, of some containers, has others
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
        torch.set_float32_matmul_precision(before_matmul)
