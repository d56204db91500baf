"""Accuracy of class scores, over all images and by class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.core.interval import wilson
from simclr.data.beton import Beton
from simclr.features.knn import accuracy


def true_labels(split: Beton) -> Tensor:
    """The labels (N,) int64 of all images of `split`."""
    return torch.from_numpy(split.labels)


def topk_accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent."""
    return {f"top{k}": 100 * accuracy(scores, labels, k) for k in (1, 5)}


def balanced_scores(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """Balanced accuracy and macro F1 in percent, in which a class weighs the same whatever the number of its images.

    Args:
        counts: (C, C), the number of images of each true class (row) and each predicted class (column).

    Returns:
        `balanced_accuracy`: the mean accuracy over classes that have images (recall; Brodersen et al. 2010).
        `macro_f1`: the mean of F1 = 2 TP / (2 TP + FP + FN) over classes that have images or are predicted.
    """
    right, actual, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    there = actual + predicted > 0
    return {
        "balanced_accuracy": 100 * float(np.mean(right[actual > 0] / actual[actual > 0])),
        "macro_f1": 100 * float(np.mean(2 * right[there] / (actual + predicted)[there])),
    }


def by_class(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, float | str]]:
    """For each of the `classes` the accuracy in percent, the number of its images, and the 95 % interval (Wilson 1927),
    of `counts` as above. Of a class without images the accuracy is 0, and the interval all from 0 to 100.
    """
    rows: list[dict[str, float | str]] = []
    for name, right, images in zip(classes, counts.diagonal().tolist(), counts.sum(axis=1).tolist(), strict=True):
        low, high = wilson(right, images) if images else (0.0, 1.0)
        share = right / max(1, images)
        rows.append({"class": name, "accuracy": 100 * share, "images": images, "low": 100 * low, "high": 100 * high})
    return rows
