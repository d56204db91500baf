"""Validation during training: kNN accuracy on the encoder's representations (Wu et al. 2018, section 3.4)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from simclr.core import params, randomness
from simclr.data.beton import Beton
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import knn
from simclr.features.encode import representations
from simclr.features.eval_transform import EvalTransform

BANK = 50_000
"""The largest number of training images that vote."""
_ENCODED = 512
"""The largest encoding batch of a rank: 5 GiB for a ResNet-50 at 224 px in float32."""


@dataclass(kw_only=True)
class ValidationParams:
    """`pretrain.validation` of params.yaml."""

    every_epochs: int = params.at_least(1)
    neighbors: int = params.at_least(1)
    temperature: float = params.above(0)


def knn_top1(
    parameters: ValidationParams,
    encoder: nn.Module,
    transform: EvalTransform,
    train: Beton,
    val: Beton,
    classes: int,
    seed: int,
    batch_size: int,
    session: Session,
    after_batch: Callable[[], None],
) -> float:
    """The accuracy, in percent, of `encoder` on `val`, for which at most `BANK` images of `train` vote.

    Args:
        seed: draws the voting images, if there are more than `BANK`.
        batch_size: the encoding batch of each rank, at most 512.
        after_batch: called after every batch, equally often on all ranks; may raise to end the validation.
    """
    bank = randomness.permutation(len(train), seed)[:BANK]
    keys, h = (
        representations(encoder, split, samples, transform, min(batch_size, _ENCODED), session, after_batch=after_batch)
        for split, samples in ((train, bank), (val, np.arange(len(val))))
    )
    queries = shares.all_gather(h, len(val), session)
    similarities, nearest = knn.neighbors(queries, keys, len(bank), parameters.neighbors, session)
    labels = torch.from_numpy(train.labels[bank]).to(session.device)[nearest]
    votes = knn.scores(similarities, labels, classes, parameters.temperature)
    return 100 * knn.accuracy(votes, torch.from_numpy(val.labels).to(session.device))
