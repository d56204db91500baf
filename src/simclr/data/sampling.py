"""The samples of each batch of an epoch."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from simclr.core import params
from simclr.core.errors import UserError
from simclr.core.randomness import permutation

Indices = npt.NDArray[np.int64]
_RUN = 16
"""Neighbors in the file that `windowed_permutation` keeps together: 2 MB of JPEG files of ImageNet's size."""


def windowed_permutation(count: int, window: int, seed: int, epoch: int) -> Indices:
    """A permutation (count,) for files larger than memory: the file is cut into runs of 16 neighbors, the runs are put
    into a random order, and each `window` samples of that order are shuffled. So a window is read in long pieces.
    """
    runs = permutation(-(-count // _RUN), seed, epoch)
    order = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
    order = order[order < count]
    places = permutation(count, seed, epoch)
    return order[np.lexsort((places, np.arange(count) // window))]


def window_refusals(section: str, window: int | None, batch_size: int, origin: str) -> Iterator[UserError]:
    """The `shuffle_window` of a `section`, if it is smaller than a batch."""
    if window and window < batch_size:
        yield params.refusal(f"{section}.shuffle_window", window, f"at least the batch of {batch_size}", origin)


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
    window: int | None = None,
) -> list[Indices]:
    """This rank's share of every batch of an epoch; with a `window` in the order of `windowed_permutation`.

    The global batches of `batch_size` samples are the same for any number of ranks; each rank takes a contiguous
    part of each of their `pieces`. `drop_last` drops the last, smaller batch, so that all parts are equal.
    """
    order = windowed_permutation(count, window, seed, epoch) if window else permutation(count, seed, epoch)
    stop = count - count % batch_size if drop_last else count
    batches = [order[start : start + batch_size] for start in range(0, stop, batch_size)]
    return [
        np.concatenate([np.array_split(piece, world_size)[rank] for piece in np.array_split(batch, pieces)])
        for batch in batches
    ]


def drawn_by_class(labels: Indices, seed: int, count: Callable[[int, int], int]) -> Indices:
    """Some samples of each class, in ascending order.

    Args:
        labels: (N,).
        count: how many of a class, from its place among the classes and the samples that it has. More of a class with
            the same seed are the fewer ones and others.
    """
    samples = []
    for place, label in enumerate(np.unique(labels)):
        members = np.flatnonzero(labels == label)
        drawn = permutation(len(members), seed, int(label))
        samples.append(members[drawn[: count(place, len(members))]])
    return np.sort(np.concatenate(samples))


def sequential_batches(indices: Indices, batch_size: int) -> list[Indices]:
    """`indices` split into batches, the last one smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
