"""Encode every split once with the frozen encoder, and look at the result: kNN accuracy, a map, nearest neighbors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from simclr import knn, params, shares
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Encoder, Preparation
from simclr.features import Features, encoded
from simclr.randomness import permutation

_QUERIES, _SHOWN = 8, 10
"""Rows of the neighbor sheet, and neighbors in each."""


@dataclass(kw_only=True)
class EmbedParams:
    """`embed` of params.yaml."""

    batch_size: int = params.at_least(1)
    neighbors: int = params.at_least(1)
    temperature: float = params.above(0)
    map_points: int = params.at_least(10)
    map_perplexity: float = params.above(0)
    seed: int = params.seed()


def check(parameters: EmbedParams, train: int, test: int) -> None:
    """Compare `parameters` with the numbers of images in `train` and `test`.

    Raises:
        UserError: there are fewer images than neighbors, or the perplexity is not below the number of points.
    """
    if parameters.neighbors > train:
        raise params.refusal("embed.neighbors", parameters.neighbors, f"at most {train}, the images of train")
    points = min(parameters.map_points, test)
    if parameters.map_perplexity >= points:
        takes = f"a number < {points}, the points of the map"
        raise params.refusal("embed.map_perplexity", parameters.map_perplexity, takes)


@dataclass(frozen=True)
class Map:
    """A plane picture of test `samples` (P,): their `points` (P, 2)."""

    samples: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbors:
    """For each of some test samples, `queries` (Q,), the indices of the nearest training samples, `nearest` (Q, K)."""

    queries: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]


def encode(
    parameters: EmbedParams,
    encoder: Encoder,
    preparation: Preparation,
    splits: dict[str, Beton],
    session: Session,
) -> dict[str, Features]:
    """The features of every split, in the order of its file."""
    encoder = encoder.to(session.device, memory_format=torch.channels_last)
    return encoded(encoder, splits, preparation, parameters.batch_size, session)


def knn_accuracy(
    parameters: EmbedParams, bank: Features, queries: Features, classes: int, session: Session
) -> dict[str, float]:
    """Top-1 and top-5 accuracy, in percent, of `queries` classified by their neighbors in `bank`."""
    h, labels = (shares.gathered(rows, queries.count, session) for rows in (queries.h, queries.labels))
    similarities, nearest = knn.neighbors(h, bank.h, bank.count, parameters.neighbors, session)
    of_bank = shares.gathered(bank.labels, bank.count, session)
    votes = knn.scores(similarities, of_bank[nearest], classes, parameters.temperature)
    return {f"knn_top{top}": 100 * knn.accuracy(votes, labels, top) for top in (1, 5)}


def plane(parameters: EmbedParams, features: Features) -> Map:
    """A map of at most `map_points` samples by t-SNE (van der Maaten and Hinton 2008) in cosine distance, of whole
    `features` on the CPU.

    The perplexity has to be below the number of points: see `check`.
    """
    samples = np.sort(permutation(len(features.h), parameters.seed)[: parameters.map_points])
    h = torch.nn.functional.normalize(features.h[samples], dim=1).numpy()
    collapsed = bool((h == h[0]).all())  # without a principal component, scikit-learn 1.9 starts from NaN and crashes
    solver = TSNE(
        perplexity=parameters.map_perplexity,
        init="random" if collapsed else "pca",
        random_state=parameters.seed,
        n_jobs=1,
    )
    with threadpool_limits(1):  # or the points depend on the number of cores
        return Map(samples, solver.fit_transform(h))


def nearest(parameters: EmbedParams, bank: Features, features: Features, session: Session) -> Neighbors:
    """The nearest training samples of a few test samples, drawn by the seed."""
    queries = permutation(features.count, parameters.seed, 1)[:_QUERIES]
    h = shares.gathered(features.h, features.count, session)[queries]
    return Neighbors(queries, knn.neighbors(h, bank.h, bank.count, _SHOWN, session)[1].cpu().numpy())
