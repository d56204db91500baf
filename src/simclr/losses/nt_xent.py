"""NT-Xent, the normalised temperature-scaled cross entropy (Chen et al. 2020, equation 1), over the global batch."""

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


def loss(z: Tensor, parameters: Params, session: Session) -> Tensor:
    """See `losses`."""
    return mean_over_rows(z, parameters.temperature, _rule, session)


def _rule(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of row i is log(1 + exp(n_i - p_i)), its denominator that of all keys: log(exp(n_i) + exp(p_i)).

    The slope of the positive, 1 - exp(p_i - d_i), is written as a sigmoid: the two terms cancel where the views are
    well aligned and tau is small.
    """
    margin = positive - negative
    return -F.logsigmoid(margin), torch.logaddexp(positive, negative), torch.sigmoid(-margin)
