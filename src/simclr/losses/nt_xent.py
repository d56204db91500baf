"""NT-Xent, the normalised temperature-scaled cross entropy (Chen et al. 2020, equation 1), over the global batch.

With more than two views every other view of a sample is a positive, and the loss of an anchor is the mean over them, as
in Khosla et al. 2020, equation 2, each sample being a class of its own.
"""

from dataclasses import dataclass

from torch import Tensor

from simclr.data.batch import Batch
from simclr.distributed import softmax
from simclr.distributed.pairwise import mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys, SimilarityParams, compared


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.nt_xent` of params.yaml."""


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None) -> Tensor:
    """See `losses`."""
    rows = compared(z, parameters, session, keys)
    rule = softmax.SoftmaxRule(softmax.nt_xent, rows.similarity.limit)
    return mean_over_rows(rows, batch.views, rule, session)
