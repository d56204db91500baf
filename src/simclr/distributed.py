"""One process on a CPU, one for each visible GPU, or whatever torchrun started: the same code for all.

The number of processes belongs to the machine and never stands in params.yaml. `CUDA_VISIBLE_DEVICES` chooses the
GPUs; `torchrun` and `srun torchrun` choose everything.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def relaunch_on_every_gpu() -> None:
    """Replace this process by torchrun over all visible GPUs, if there are several and torchrun is not here yet."""
    if torch.cuda.device_count() > 1 and not dist.is_torchelastic_launched():
        processes = f"--nproc-per-node={torch.cuda.device_count()}"
        os.execv(
            sys.executable,
            [sys.executable, "-m", "torch.distributed.run", "--standalone", processes, *sys.argv],
        )


@dataclass(frozen=True)
class Session:
    """This process among the others."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The `rows` of all ranks in rank order: (n, ...) of each becomes (world * n, ...); no gradient flows."""
        if self.world == 1:
            return rows
        gathered = rows.new_empty((self.world * len(rows), *rows.shape[1:]))
        dist.all_gather(list(gathered.chunk(self.world)), rows.contiguous())
        return gathered

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the ranks, elementwise; no gradient flows."""
        if self.world == 1:
            return value.detach()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world


@contextmanager
def session() -> Iterator[Session]:
    """Join the process group that torchrun describes in the environment, or stand alone without one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world == 1:
        yield Session(rank=0, world=1, device=device)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    try:
        yield Session(rank, world, device)
    finally:
        dist.destroy_process_group()
