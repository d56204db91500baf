"""Metrics of the projections for TensorBoard."""

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.distributed.pairwise import other_views

_ROWS = 1024
"""Rows compared with each other, at most."""


@torch.no_grad()
def contrast(z: Tensor, views: int) -> dict[str, Tensor]:
    """Metrics of the projections z (V n, d) of one process, second views after first ones.

    Cosine similarity of positives and of negatives; alignment E |u - v|^2 of positives and uniformity
    log E exp(-2 |u - v|^2) of all pairs (Wang and Isola 2020, equations 4 and 5, alpha = t = 2), u, v on the sphere.
    With one sample there are no pairs, and no negative similarity and uniformity.
    """
    z = F.normalize(z.float(), dim=1)
    positive = torch.stack([(z * other).sum(dim=1) for other in other_views(z, views)])
    first = z[: len(z) // views][:_ROWS]
    scalars = {"positive_similarity": positive.mean(), "alignment": (2 - 2 * positive).mean()}
    if len(first) == 1:
        return scalars
    pairs = (first @ first.T)[~torch.eye(len(first), dtype=torch.bool, device=z.device)]
    return {
        **scalars,
        "negative_similarity": pairs.mean(),
        "uniformity": (-2 * (2 - 2 * pairs)).exp().mean().log(),
    }
