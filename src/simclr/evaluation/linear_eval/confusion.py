"""Which classes a classifier takes for which."""

from typing import Any

import numpy as np
import numpy.typing as npt


def confusion(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each true class (row) was taken for each class (column): (C, C).

    Args:
        scores: (N, C).
        labels: (N,) of 0 ... C-1.
    """
    classes = scores.shape[1]
    counts: npt.NDArray[Any] = np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes**2)
    return counts.reshape(classes, classes)
