"""Gaussian blur of a batch, with a strength of its own for every sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_SHARE = 0.1
"""The kernel's width as a share of the image's (Chen et al. 2020, appendix A)."""


def kernel_size(size: int) -> int:
    """The odd number of taps, at least 3, for images of `size` pixels."""
    return max(3, 2 * round((KERNEL_SHARE * size - 1) / 2) + 1)


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur (N, C, S, S) with standard deviations `sigmas` (N,) in pixels; borders are reflected.

    The kernel is separable and the images are small, so each direction is one product with a banded matrix (S, S).
    Agrees with torchvision's gaussian_blur of `kernel_size(S)` taps, image by image.
    """
    size = images.shape[-1]
    half = kernel_size(size) // 2
    taps = torch.arange(-half, half + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (taps / sigmas[:, None]) ** 2)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    reached = torch.arange(size, device=images.device)[:, None] + torch.arange(-half, half + 1, device=images.device)
    reflected = (size - 1) - ((size - 1) - reached.abs()).abs()
    bands = torch.einsum("nk,skt->nst", kernels, F.one_hot(reflected, size).to(images.dtype))[:, None]
    return bands @ images @ bands.transpose(-1, -2)
