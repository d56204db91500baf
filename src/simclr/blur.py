"""Gaussian blur of a batch, with a strength of its own for every sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

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


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur (N, C, S, S) with standard deviations `sigmas` (N,) in pixels; borders are reflected.

    The kernel is separable and symmetric: each direction is a weighted sum of the images and of pairs of shifted ones.
    Sums of whole images round alike in any batch, which products of matrices (or convolutions) do not: there, shape
    and number of threads choose the order of the terms. Agrees with torchvision's gaussian_blur of `kernel_size(S)`
    taps, image by image.
    """
    size = images.shape[-1]
    half = kernel_size(size) // 2
    kernels, totals = kernel(size, sigmas)
    weights, total = kernels[..., None, None, None].unbind(1), totals[:, None, None, None]
    pair = torch.empty_like(images)
    for axis, padding in ((2, (0, 0, half, half)), (3, (half, half, 0, 0))):
        padded = F.pad(images, padding, mode="reflect")
        images = images.clone()
        for tap, weight in enumerate(weights, start=1):
            before, after = (padded.narrow(axis, half + shift, size) for shift in (-tap, tap))
            images += torch.add(before, after, out=pair).mul_(weight)
        images /= total
    return images
