"""A two-dimensional map of the representations by t-SNE."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from simclr.core.randomness import permutation
from simclr.embed.embed_params import EmbedParams
from simclr.features.encode import Features


@dataclass(frozen=True)
class EmbeddingMap:
    """The map's `points` (P, 2) of test `samples` (P,)."""

    samples: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]
    perplexity: float
    """That was used: `map_perplexity`, or a third of the points, as far as that is 1 or more."""


def tsne(parameters: EmbedParams, features: Features) -> EmbeddingMap:
    """Map at most `map_points` samples of whole `features`, on the CPU, by t-SNE (van der Maaten and Hinton 2008) in
    cosine distance. There must be 2 points or more.
    """
    samples = np.sort(permutation(len(features.h), parameters.seed)[: parameters.map_points])
    h = torch.nn.functional.normalize(features.h[samples], dim=1).numpy()
    collapsed = bool((h == h[0]).all())  # without principal components scikit-learn 1.9 starts from NaN and crashes
    perplexity = min(parameters.map_perplexity, max(1.0, (len(h) - 1) / 3))
    solver = TSNE(
        perplexity=perplexity,
        init="random" if collapsed else "pca",
        random_state=parameters.seed,
        n_jobs=1,
    )
    with threadpool_limits(1):  # more threads make the points depend on the number of cores
        return EmbeddingMap(samples, solver.fit_transform(h), perplexity)
