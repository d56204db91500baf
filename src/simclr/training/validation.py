"""Validation during training: the accuracy of kNN (Wu et al. 2018, section 3.4), and of a probe, on representations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from simclr.core import params, randomness
from simclr.core.errors import UserError
from simclr.data.beton import Beton
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import knn
from simclr.features.encode import is_finite, representations
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


@torch.no_grad()
def top1(
    parameters: ValidationParams,
    encoder: nn.Module,
    probe: nn.Module | None,
    transform: EvalTransform,
    train: Beton,
    val: Beton,
    classes: int,
    seed: int,
    batch_size: int,
    session: Session,
    after_batch: Callable[[], None],
) -> dict[str, float]:
    """Top-1 accuracies, in percent, on `val`: "knn_top1", for which at most `BANK` images of `train` vote, and with a
    `probe` "probe_top1".

    Args:
        probe: from representations (N, D), and their mean (D,) and variance (D,), to class scores (N, C). It gets those
            of the images that vote, which are not those of the views in training: BatchNorm is in eval mode here.
        seed: draws the voting images, if there are more than `BANK`.
        batch_size: the encoding batch of each rank, at most 512.
        after_batch: called after every batch, equally often on all ranks; may raise to end the validation.

    Raises:
        UserError: a representation is not finite, or its norm is not.
    """
    bank = randomness.permutation(len(train), seed)[:BANK]
    keys, h = (
        representations(encoder, split, samples, transform, min(batch_size, _ENCODED), session, after_batch=after_batch)
        for split, samples in ((train, bank), (val, np.arange(len(val))))
    )
    queries = shares.all_gather(h, len(val), session)
    _check_finite(keys, queries)
    similarities, nearest = knn.neighbors(queries, keys, len(bank), parameters.neighbors, session)
    voters = torch.from_numpy(train.labels[bank]).to(session.device)[nearest]
    scores = {"knn_top1": knn.scores(similarities, voters, classes, parameters.temperature)}
    if probe is not None:
        scores["probe_top1"] = probe(queries, *_moments(keys, len(bank), session))
    labels = torch.from_numpy(val.labels).to(session.device)
    return {name: 100 * knn.accuracy(value, labels) for name, value in scores.items()}


@torch.no_grad()
def check(
    encoder: nn.Module,
    transform: EvalTransform,
    val: Beton,
    batch_size: int,
    session: Session,
    after_batch: Callable[[], None],
) -> None:
    """What is left of a validation without labels: the arguments, and what is raised, are those of `top1`."""
    samples, batch_size = np.arange(len(val)), min(batch_size, _ENCODED)
    _check_finite(representations(encoder, val, samples, transform, batch_size, session, after_batch=after_batch))


def _check_finite(*parts: Tensor) -> None:
    """Refuse representations (n, D) that are not; a rank that does ends the others."""
    if not all(map(is_finite, parts)):
        raise UserError(
            "the encoder's representations are not finite, or too large for float32: it has diverged (lower "
            "pretrain.optimizer.lr), or weights from elsewhere are too large (methods.pretrained.file)"
        )


def _moments(rows: Tensor, count: int, session: Session) -> tuple[Tensor, Tensor]:
    """Mean (D,) and variance (D,) of `count` rows, of which this rank has the share `rows` (n, D)."""
    mean = session.sum(rows.sum(dim=0)) / count
    return mean, session.sum((rows - mean).square().sum(dim=0)) / count
