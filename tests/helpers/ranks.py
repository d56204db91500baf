"""Run a function in several processes, as torchrun would, and bring their results back.

They exchange by gloo and on the CPU; under `pytest -m gpu` they share the GPU.
"""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import torch

from simclr.distributed.session import Session, open_session
from tests.helpers import programs

MOST = 4
ALONE = Session(rank=0, world_size=1, device=torch.device("cpu"))
"""A process without others."""


@cache
def _processes() -> ProcessPoolExecutor:
    """Kept for all tests. They are forked from the process of `programs.warm`, which has imported torch already."""
    return ProcessPoolExecutor(MOST, programs.WARM)


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(session, *arguments)` on each of `world` ranks; its results, by rank."""
    assert world <= MOST  # each rank waits for the others, so that each needs a process of its own
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [_processes().submit(_main, rank, world, port, function, arguments) for rank in range(world)]
    return [rank.result(timeout=300) for rank in ranks]


def _main(rank: int, world: int, port: int, function: Callable[..., Any], arguments: Any) -> Any:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    with open_session() as session:
        return function(session, *arguments)
