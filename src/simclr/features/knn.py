"""The weighted k-nearest-neighbor classifier on representations (Wu et al. 2018, section 3.4)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.data.sampling import Indices
from simclr.device import precision
from simclr.distributed import shares
from simclr.distributed.session import Session

_BLOCK_ROWS = 1 << 14
"""Rows of the bank in a block, at most."""
_BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Similarities in a block: 16 MiB of float32 on a CPU, 512 MiB on a GPU; sorting takes some six times as much."""
_INDEX = (1 << 32) - 1
"""Mask of the lower 32 bits, and the largest index that fits into them."""


def most_neighbors(labels: Indices) -> int:
    """The largest k for a bank with `labels` (N,): no more neighbors can be of its smallest class."""
    return int(np.unique(labels, return_counts=True)[1].min())


def neighbors(queries: Tensor, bank: Tensor, size: int, count: int, session: Session) -> tuple[Tensor, Tensor]:
    """The `count` rows of a bank with the highest cosine similarity to each of `queries` (M, D), on every rank.

    Among equally similar rows the first in the bank is the nearest.

    Args:
        queries: the same on all ranks.
        bank: (n, D), this rank's share (see `shares`) of a bank of `size` rows.

    Returns:
        Similarities (M, k) float32 and indices (M, k) int64, best first, with k = min(count, size).
    """
    count = min(count, size)
    queries = F.normalize(queries.float(), dim=1)
    best = torch.full((len(queries), count), torch.iinfo(torch.int64).min, device=queries.device)
    first = shares.own(size, session).start
    height = max(1, _BLOCK_ELEMENTS[queries.device.type] // max(1, min(len(bank), _BLOCK_ROWS)))
    for start in range(0, len(bank), _BLOCK_ROWS):
        block = F.normalize(bank[start : start + _BLOCK_ROWS].float(), dim=1)
        for part, best_keys in zip(queries.split(height), best.split(height), strict=True):
            with precision.full(block.device):
                similarities = part @ block.T
            keys = _sort_keys(similarities, first + start).topk(min(count, len(block)), dim=1).values
            best_keys.copy_(torch.cat([best_keys, keys], dim=1).topk(count, dim=1).values)
    # only the keys of the best rows are sent, as each holds a similarity and an index
    keys_by_rank = session.gather_rows(best).view(session.world_size, *best.shape)
    return _similarities_and_indices(keys_by_rank.transpose(0, 1).flatten(1).topk(count, dim=1).values)


def _sort_keys(similarities: Tensor, first: int) -> Tensor:
    """int64 keys in the order of the `similarities` (M, N) float32; of two equal ones the first has the larger key.

    The upper 32 bits are the similarity's, the lower 32 count down with the index, which is `first` in the first
    column. All keys of a row differ, so topk has no ties to break, and its result does not depend on blocks or ranks.
    """
    # As integers, the bits of non-negative floats are in the order of the floats. Negative ones are in reverse: their
    # sign bit, shifted over all 32 bits, selects them, and inverts all other bits.
    bits = similarities.add_(0.0).view(torch.int32)  # -0.0 becomes 0.0, whose bits differ
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    countdown = torch.arange(_INDEX - first, _INDEX - first - len(bits.T), -1, device=bits.device)
    # a sum instead of an or: one pass, which also widens `ordered` to int64
    return torch.add(countdown, ordered, alpha=1 << 32)


def _similarities_and_indices(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `_sort_keys`."""
    ordered = (keys >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), _INDEX - (keys & _INDEX)


def scores(similarities: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Votes (M, classes) of neighbors with `similarities`, best first, and `labels` (M, k); -inf for a sum of 0.

    A neighbor's weight is exp(s / temperature), relative to that of the best one, so that nothing overflows.
    """
    # a smaller temperature may be 0 in this type, and the best one's weight 0 / 0
    temperature = max(temperature, torch.finfo(similarities.dtype).tiny)
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)
    return votes.masked_fill_(votes == 0, -torch.inf)


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> float:
    """The share, 0 to 1, of rows of `scores` (M, C) whose `labels` (M,) entry is among the `top` highest, and is not
    -inf if there are more classes than `top`."""
    if top >= scores.shape[1]:
        return 1.0
    ranked = scores.topk(top, dim=1)
    found = (ranked.indices == labels[:, None]) & (ranked.values > -torch.inf)
    return found.any(dim=1).double().mean().item()
