"""Which samples make up each batch of an epoch."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation

Indices = npt.NDArray[np.int64]


def shuffled(
    count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1, *, drop_last: bool
) -> list[Indices]:
    """This rank's share of every batch of an epoch.

    The global batches of `batch_size` samples are the same for any number of ranks; each rank takes a contiguous
    part. The last, smaller batch is dropped where all parts must be equal.
    """
    order = permutation(count, seed, epoch)
    stop = count - count % batch_size if drop_last else count
    batches = [order[start : start + batch_size] for start in range(0, stop, batch_size)]
    return [np.array_split(batch, world)[rank] for batch in batches]


def in_order(indices: Indices, batch_size: int) -> list[Indices]:
    """`indices` cut into batches, the last one smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
