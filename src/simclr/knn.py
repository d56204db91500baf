"""The weighted k-nearest-neighbor classifier on representations (Wu et al. 2018, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 24
"""Similarities held at once: 64 MiB of float32."""


def neighbors(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` rows of `bank` (N, D) with the highest cosine similarity to each of `queries` (M, D).

    Returns:
        Similarities (M, k) float32 and indices (M, k) int64, best first, with k = min(count, N).
    """
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    found = [
        (block @ bank.T).topk(min(count, len(bank)), dim=1)
        for block in queries.split(max(1, _BLOCK_ELEMENTS // len(bank)))
    ]
    return torch.cat([values for values, _ in found]), torch.cat([indices for _, indices in found])


def scores(similarities: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """The votes (M, classes) of neighbors with `similarities`, best first, and `labels` (M, k).

    A neighbor's weight is exp(s / temperature), relative to that of the best one, so that nothing overflows.
    """
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    return weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> float:
    """The share, 0 to 1, of rows of `scores` (M, C) whose `labels` (M,) entry is among the `top` highest."""
    ranked = scores.topk(min(top, scores.shape[1]), dim=1).indices
    return (ranked == labels[:, None]).any(dim=1).double().mean().item()
