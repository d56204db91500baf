"""Gaussian blur of a batch, with a strength of its own for every sample."""

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.device import precision

KERNEL_SHARE = 0.1
"""The kernel's width as a share of the image's (Chen et al. 2020, appendix A)."""


def kernel_size(size: int) -> int:
    """The odd number of taps for images of `size` pixels: at least 3, but never more than reflected borders can serve,
    which leaves one for a single pixel."""
    return min(2 * size - 1, max(3, 2 * round((KERNEL_SHARE * size - 1) / 2) + 1))


def kernel(size: int, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """For `sigmas` (N,): the weights of the distances 1, 2, ... (N, half), that of 0 being 1, and the sums (N,)."""
    weights = [torch.exp(-0.5 * (tap / sigmas) ** 2) for tap in range(kernel_size(size) // 2 + 1)]
    return torch.stack(weights, dim=1)[:, 1:].contiguous(), 1 + 2 * sum(weights[1:], torch.zeros_like(sigmas))


def taps(size: int, sigmas: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The weights of the distances 0, 1, 2, ... that `gaussian_blur` takes, (N, half + 1); those that change nothing
    but `where` (N,) it says so."""
    weights, totals = (tensor.numpy() for tensor in kernel(size, torch.from_numpy(sigmas)))
    found: npt.NDArray[np.float32] = np.insert(weights, 0, 1, axis=1) / totals[:, None]
    found[~where] = np.eye(1, found.shape[1], dtype=np.float32)
    return found


@cache
def _reflected(size: int, device: torch.device) -> Tensor:
    """(half + 1, size * size): how often the pixels at each distance from pixel i are pixel j, borders reflected."""
    half = kernel_size(size) // 2
    count = np.zeros((half + 1, size, size), np.float32)
    padded = np.pad(np.arange(size), half, mode="reflect")
    for i in range(size):
        for tap in range(-half, half + 1):
            count[abs(tap), i, padded[half + i + tap]] += 1
    return torch.from_numpy(count).flatten(1).to(device)


def gaussian_blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur (N, 3, S, S), in memory channel after channel, by the `weights` (N, half + 1) that `taps` gives; borders are
    reflected.

    Each direction is a product with a matrix (S, S) of the image, because on a GPU that takes one pass, where a sum of
    shifted images takes one for each tap. The result lies in memory with its channels last. Agrees with torchvision's
    gaussian_blur of `kernel_size(S)` taps, image by image.
    """
    count, channels, size, _ = images.shape
    with precision.full(images.device):
        matrices = (weights @ _reflected(size, images.device)).view(count, size, size)
        for _ in range(2):
            # the last axis is blurred and becomes the first: from (channel, y, x) to (x, channel, y) to (y, x, channel)
            images = torch.bmm(matrices, images.reshape(count, channels * size, size).mT)
    return images.view(count, size, size, channels).permute(0, 3, 1, 2)
