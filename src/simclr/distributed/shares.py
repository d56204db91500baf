"""How the rows of a whole, a split's features say, lie over the ranks: each holds one contiguous part of them.

All parts are `size` rows long but the last ones, which end where the rows do; with fewer rows than ranks some are
empty.
"""

import math

import torch
from torch import Tensor

from simclr.distributed.session import Session

_BLOCK_BYTES = 1 << 28
"""What `collected` brings together at once on every rank."""


def size(count: int, session: Session) -> int:
    """The rows of a part, of `count` in all."""
    return -(-count // session.world_size)


def own(count: int, session: Session) -> slice:
    """This rank's part of `count` rows."""
    length = size(count, session)
    return slice(min(count, session.rank * length), min(count, (session.rank + 1) * length))


def gathered(rows: Tensor, count: int, session: Session) -> Tensor:
    """All `count` rows on every rank, from its own `rows` (n, ...)."""
    return session.gather_rows(_padded(rows, size(count, session)))[:count]


def collected(rows: Tensor, count: int, session: Session) -> Tensor:
    """All `count` rows in the memory of the leading rank's host, from every rank's own `rows` (n, ...); the others
    get none. They come block by block, so that no GPU holds them all.
    """
    if session.world_size == 1:
        return rows.cpu()
    length = size(count, session)
    shape = (session.world_size, length if session.is_main else 0, *rows.shape[1:])
    whole = torch.empty(shape, dtype=rows.dtype)
    height = max(1, _BLOCK_BYTES // (session.world_size * rows.element_size() * math.prod(rows.shape[1:])))
    for start in range(0, length, height):
        stop = min(start + height, length)
        block = session.gather_rows(_padded(rows[start:stop], stop - start))
        if session.is_main:
            whole[:, start:stop] = block.view(session.world_size, stop - start, *rows.shape[1:]).cpu()
    return whole.flatten(0, 1)[:count]


def _padded(rows: Tensor, length: int) -> Tensor:
    if len(rows) == length:
        return rows
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])
