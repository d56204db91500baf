"""The confusion matrix of a classifier."""

from typing import Any

import numpy as np
import numpy.typing as npt


def confusion(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of samples of each true class (row) and each predicted class (column): (C, C).

    Args:
        scores: (N, C).
        labels: (N,) of 0 ... C-1.
    """
    classes = scores.shape[1]
    counts: npt.NDArray[Any] = np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes**2)
    return counts.reshape(classes, classes)
