"""A map of the representations: t-SNE."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from simclr.core.randomness import permutation
from simclr.evaluation.embed.embed_params import EmbedParams
from simclr.features.encode import Features


@dataclass(frozen=True)
class EmbeddingMap:
    """A plane picture of test `samples` (P,): their `points` (P, 2)."""

    samples: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]


def tsne(parameters: EmbedParams, features: Features) -> EmbeddingMap:
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
        return EmbeddingMap(samples, solver.fit_transform(h))
