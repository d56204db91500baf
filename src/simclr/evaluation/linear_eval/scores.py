"""What class scores say of a classifier."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.data.beton import Beton
from simclr.features.knn import accuracy


def truth(split: Beton) -> Tensor:
    """The labels (N,) int64 of all images of `split`."""
    return torch.from_numpy(split.labels)


def confusion(scores: Tensor, labels: Tensor, classes: int) -> npt.NDArray[np.int64]:
    """How often each true class (row) was taken for each class (column): (C, C)."""
    pairs = labels * classes + scores.argmax(dim=1)
    counts: npt.NDArray[np.int64] = torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()
    return counts


def top(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent."""
    return {f"top{k}": 100 * accuracy(scores, labels, k) for k in (1, 5)}
