"""NT-Xent, the normalised temperature-scaled cross entropy (Chen et al. 2020, equation 1), over the global batch.

With more than two views every other view of a sample is a positive, and the loss of an anchor is the mean over them, as
in Khosla et al. 2020, equation 2, each sample being a class of its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params
from simclr.distributed.pairwise import mean_over_rows
from simclr.distributed.session import Session


@dataclass(kw_only=True)
class Params:
    """`losses.nt_xent` of params.yaml."""

    temperature: float = params.between(0.001, 1000)


def loss(z: Tensor, views: int, parameters: Params, session: Session) -> Tensor:
    """See `losses`."""
    return mean_over_rows(z, views, parameters.temperature, _rule, session)


def _rule(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of row i is the mean over its positives of log(1 + exp(m_ik - p_ik)), m_ik the log-sum-exp of all keys
    but this positive: the denominator is that of all keys, d_i = log(exp(m_ik) + exp(p_ik)).

    The slope of a positive, 1 / (V - 1) - exp(p_ik - d_i), is computed by a sigmoid, exact for two views, because its
    terms cancel for well aligned views and a small tau.
    """
    count = positive.shape[1]
    rest = torch.stack([_all_but(positive, k, negative) for k in range(count)], dim=1)
    margin = positive - rest
    slope = torch.sigmoid(-margin) - (count - 1) / count
    return -F.logsigmoid(margin).mean(dim=1), torch.logaddexp(positive[:, 0], rest[:, 0]), slope


def _all_but(positive: Tensor, k: int, negative: Tensor) -> Tensor:
    for j in range(positive.shape[1]):
        if j != k:
            negative = torch.logaddexp(negative, positive[:, j])
    return negative
