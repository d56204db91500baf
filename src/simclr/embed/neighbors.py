"""Nearest neighbors among the representations of train: a classifier (Wu et al. 2018, section 3.4), and examples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.embed.embed_params import EmbedParams
from simclr.features import knn
from simclr.features.encode import Features

_QUERIES, _SHOWN = 8, 10
"""Rows of the neighbor sheet, and neighbors in each."""


@dataclass(frozen=True)
class Neighbors:
    """For each of some test samples, `queries` (Q,), the indices of the nearest training samples, `nearest` (Q, K)."""

    queries: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]


def knn_accuracy(
    parameters: EmbedParams, bank: Features, queries: Features, classes: int, session: Session
) -> dict[str, float]:
    """Top-1 and top-5 accuracy, in percent, of `queries` classified by their neighbors in `bank`, and how many these
    are: no more than the smallest class of `bank` has samples.
    """
    bank_labels = shares.all_gather(bank.labels, bank.count, session)
    count = min(parameters.neighbors, knn.most_neighbors(bank_labels.cpu().numpy()))
    h, labels = (shares.all_gather(rows, queries.count, session) for rows in (queries.h, queries.labels))
    similarities, nearest = knn.neighbors(h, bank.h, bank.count, count, session)
    votes = knn.scores(similarities, bank_labels[nearest], classes, parameters.temperature)
    accuracies = {f"knn_top{top}": 100 * knn.accuracy(votes, labels, top) for top in (1, 5)}
    return {**accuracies, "knn_neighbors": count}


def examples(parameters: EmbedParams, bank: Features, features: Features, session: Session) -> Neighbors:
    """The nearest training samples of a few test samples, drawn by the seed."""
    queries = permutation(features.count, parameters.seed, 1)[:_QUERIES]
    h = shares.all_gather(features.h, features.count, session)[queries]
    return Neighbors(queries, knn.neighbors(h, bank.h, bank.count, _SHOWN, session)[1].cpu().numpy())
