"""SimCLR (Chen et al. 2020): an encoder and a projection head, trained by a contrastive loss."""

from dataclasses import dataclass

from simclr.core.options import Option
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.contrastive import Contrastive
from simclr.learning.projection_head import HeadParams


@dataclass(kw_only=True)
class Params:
    """`methods.simclr` of params.yaml."""

    head: HeadParams


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> Contrastive:
    """See `methods`."""
    return Contrastive(encoder, projection_head.build(parameters.head, encoder.dimension), loss)
