"""The samples of each batch of an epoch."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation

Indices = npt.NDArray[np.int64]


def shuffled_batches(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    drop_last: bool,
    pieces: int = 1,
) -> list[Indices]:
    """This rank's share of every batch of an epoch.

    The global batches of `batch_size` samples are the same for any number of ranks; each rank takes a contiguous
    part of each of their `pieces`. `drop_last` drops the last, smaller batch, so that all parts are equal.
    """
    order = permutation(count, seed, epoch)
    stop = count - count % batch_size if drop_last else count
    batches = [order[start : start + batch_size] for start in range(0, stop, batch_size)]
    return [
        np.concatenate([np.array_split(piece, world_size)[rank] for piece in np.array_split(batch, pieces)])
        for batch in batches
    ]


def sequential_batches(indices: Indices, batch_size: int) -> list[Indices]:
    """`indices` split into batches, the last one smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
