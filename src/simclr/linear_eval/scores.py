"""Accuracy of class scores."""

import torch
from torch import Tensor

from simclr.data.beton import Beton
from simclr.features.knn import accuracy


def true_labels(split: Beton) -> Tensor:
    """The labels (N,) int64 of all images of `split`."""
    return torch.from_numpy(split.labels)


def topk_accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent."""
    return {f"top{k}": 100 * accuracy(scores, labels, k) for k in (1, 5)}
