"""How much of their space the representations of test use; no labels.

- effective_rank: exp of the entropy of the normalised singular values of h (RankMe; Garrido et al. 2023, equation 1).
- uniformity: log of the mean of exp(-2 |u - v|^2) over pairs of images, of normalised h; lower is more uniform, 0 is
  collapse (Wang and Isola 2020, equation 2 of section 4.1.2, with t = 2).
- similarity: the mean cosine similarity of two images.

The table is the cumulative share of the variance in the first k principal components (Jing et al. 2022, section 3).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params
from simclr.device import precision
from simclr.evaluations import Findings, Subject

_ROWS = 512
"""Images whose similarities to all others are in memory at once."""
_POINTS = 64
"""Rows of the table, at most."""


@dataclass(kw_only=True)
class Params:
    """`evaluations.health` of params.yaml."""

    images: int = params.at_least(2)


def evaluate(parameters: Params, subject: Subject) -> Findings:
    """See `evaluations`."""
    h = subject.rows("test", subject.draw("test", parameters.images))
    uniformity, similarity = _uniformity(F.normalize(h, dim=1))
    spectrum = singular_values(h.double() - h.double().mean(dim=0)).square().cumsum(0)
    shares = 100 * spectrum / spectrum[-1].clamp(min=torch.finfo(spectrum.dtype).tiny)
    last = len(shares) - 1
    components = sorted({round(last ** (point / (_POINTS - 1))) for point in range(_POINTS)} | {0}) if last else [0]
    return Findings(
        {"effective_rank": effective_rank(h), "uniformity": uniformity, "similarity": similarity},
        [{"components": k + 1, "cumulative_variance": shares[k].item()} for k in components],
    )


def singular_values(rows: Tensor) -> Tensor:
    """The singular values of (N, D) float64, the largest first: (min(N, D),)."""
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.clamp(min=0).sqrt().flip(0)


def effective_rank(h: Tensor) -> float:
    """From 1, if all rows (N, D) are multiples of one, to min(N, D), if they use all directions alike."""
    values = singular_values(h.double())
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def _uniformity(u: Tensor) -> tuple[float, float]:
    """The uniformity and the mean similarity of the unit vectors `u` (N, D)."""
    lengths = u.square().sum(dim=1)
    potential, similarity = u.new_zeros((), dtype=torch.float64), u.new_zeros((), dtype=torch.float64)
    for start in range(0, len(u), _ROWS):
        with precision.full(u.device):
            similarities = u[start : start + _ROWS] @ u.T
        similarities.diagonal(start).fill_(0.0)
        similarity += similarities.double().sum()
        # |u - v|^2 = |u|^2 + |v|^2 - 2 u . v, where |u| is 1, or 0 of a representation that is 0
        squares = lengths[start : start + _ROWS, None] + lengths - 2 * similarities
        squares.mul_(-2).exp_().diagonal(start).fill_(0.0)
        potential += squares.double().sum()
    pairs = len(u) * (len(u) - 1)
    return (potential / pairs).log().item(), (similarity / pairs).item()
