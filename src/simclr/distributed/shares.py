"""Rows, such as a split's features, distributed over the ranks: each holds one contiguous share.

All shares have `size` rows except the last ones, which end with the rows; with fewer rows than ranks some are empty.
"""

import math

import torch
from torch import Tensor

from simclr.distributed.session import Session

_BLOCK_BYTES = 1 << 28
"""The size of a block that `gather_to_main` gathers on every rank."""


def size(count: int, session: Session) -> int:
    """The number of rows in a share of `count` rows."""
    return -(-count // session.world_size)


def own(count: int, session: Session) -> slice:
    """This rank's share of `count` rows."""
    length = size(count, session)
    return slice(min(count, session.rank * length), min(count, (session.rank + 1) * length))


def all_gather(rows: Tensor, count: int, session: Session) -> Tensor:
    """All `count` rows on every rank, from each rank's share `rows` (n, ...)."""
    return session.gather_rows(_pad(rows, size(count, session)))[:count]


def gather_to_main(rows: Tensor, count: int, session: Session) -> Tensor:
    """All `count` rows on the main process's CPU, from each rank's share `rows` (n, ...); no rows on the others.

    They are gathered block by block, so that no GPU holds them all.
    """
    if session.world_size == 1:
        return rows.cpu()
    length = size(count, session)
    shape = (session.world_size, length if session.is_main else 0, *rows.shape[1:])
    whole = torch.empty(shape, dtype=rows.dtype)
    height = max(1, _BLOCK_BYTES // (session.world_size * rows.element_size() * math.prod(rows.shape[1:])))
    for start in range(0, length, height):
        stop = min(start + height, length)
        block = session.gather_rows(_pad(rows[start:stop], stop - start))
        if session.is_main:
            whole[:, start:stop] = block.view(session.world_size, stop - start, *rows.shape[1:]).cpu()
    return whole.flatten(0, 1)[:count]


def _pad(rows: Tensor, length: int) -> Tensor:
    if len(rows) == length:
        return rows
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])
