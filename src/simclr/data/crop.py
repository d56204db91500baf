"""Boxes of images, and their cropping and resizing on a GPU; `cut` does the same on a CPU.

A box is top, left, height, width in pixels, computed on the host. A negative width mirrors the box left to right: free
as a part of the resize, where a flip of its own would take a pass over the views.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.device import precision


def central_boxes(heights: npt.NDArray[np.int64], widths: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """The central square of each image, (N, 4); its side is `share` of the shorter side."""
    side = np.maximum(1, np.rint(share * np.minimum(heights, widths))).astype(np.int64)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=-1)


def filters(boxes: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float32]:
    """The filters of `resized_crops` for `boxes` (B, V, 4) and `size` pixels: (2, V * B, 5), vertical ones, then
    horizontal ones, all first boxes before all second ones.

    The five values, in pixels of the image: start and length of the box; relative to the start, the center of the first
    target pixel and the step to the next; and the slope of the triangle filter, which the scale widens for shrinking.
    """
    start, signed = boxes.swapaxes(0, 1).reshape(-1, 2, 2).swapaxes(0, 1).astype(np.float32)  # (V * B, 2) of both axes
    length = np.abs(signed)
    scale = length / np.float32(size)
    # mirrored, the first target pixel lies at the far end of the box, and the steps go backwards
    first = np.where(signed < 0, np.float32(size - 0.5), np.float32(0.5)) * scale
    step = np.where(signed < 0, -scale, scale)
    return np.stack([start, length, first, step, -1 / np.maximum(scale, 1)], axis=-1).swapaxes(0, 1)


def _matrices(filters: Tensor, size: int, longest: int) -> Tensor:
    """(2, N, size, longest): matrices that crop and resize a line of up to `longest` pixels."""
    # One row of weights for each target pixel. All boxes have matrices of the same shape, however long they are, so
    # that a single batched product serves; pixels outside of a box have no weight.
    start, length, first, step, slope = filters[..., None].unbind(-2)
    source = torch.arange(0.5, longest, device=filters.device) - start  # pixel centers, seen from the box
    target = torch.addcmul(first, torch.arange(float(size), device=filters.device), step)
    distance = (source[..., None, :] - target[..., :, None]).abs_()
    weights = distance.mul_(slope[..., None]).add_(1).clamp_(min=0)
    # the box has hard edges: a target pixel near one sees no pixels beyond it, hence the division by the sum
    weights *= ((source > 0) & (source < length))[..., None, :]
    return weights / weights.sum(dim=-1, keepdim=True)


def resized_crops(images: Tensor, filters: Tensor, size: int) -> Tensor:
    """Cut boxes from images and resize them to squares by the antialiased bilinear filter of PIL and torchvision.

    Each direction is a product of an image with a matrix, because on a GPU that takes one pass.

    Args:
        images: (B, H, W, 3) uint8.
        filters: (2, V * B, 5), by the function `filters`.
        size: the side of the result in pixels.

    Returns:
        (V * B, 3, size, size) float32 in [0, 1], all first boxes before all second ones.
    """
    # One set of matrices for both sides of an image: `longest` is that of all, cut to height and width below.
    count, (height, width, channels) = filters.shape[1], images.shape[1:]
    rows, columns = _matrices(filters, size, max(height, width))
    # all first boxes come before all second ones, so the images repeat as a whole
    repeats = count // max(1, len(images))  # of a small last batch a rank may have none
    views = images.expand(repeats, *images.shape) / 255
    with precision.full(images.device):
        # Each product resizes the first axis and moves it to the end, so that the second needs no copy and the result
        # has its channels first: from (y, x, channel) to (x, channel, row) to (channel, row, column).
        cut = torch.bmm(views.reshape(count, height, width * channels).mT, rows[..., :height].mT)
        cut = torch.bmm(cut.view(count, width, channels * size).mT, columns[..., :width].mT)
    return cut.view(count, channels, size, size)
