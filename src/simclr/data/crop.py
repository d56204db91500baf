"""Boxes cut from images, mirrored or not, and resized: which box is decided on the host, and small images are cut on
a GPU by what stands here; elsewhere they are cut by `cut`.

A box is top, left, height, width in pixels. Where its width is negative, what lies in it is mirrored left to right,
which costs nothing in a resize, and a pass over the views elsewhere.
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
    """How `resized_crops` takes `boxes` (B, V, 4) to `size` pixels: (2, V * B, 5), first downwards, then across, all
    first boxes before all second ones.

    The five are, in pixels of the image: where the box begins and how long it is; from there, the place of the first
    target pixel and the step to the next; and the slope of the filter, a triangle that is widened by the scale when
    shrinking.
    """
    begin, signed = boxes.swapaxes(0, 1).reshape(-1, 2, 2).swapaxes(0, 1).astype(np.float32)  # (V * B, 2) of both axes
    length = np.abs(signed)
    scale = length / np.float32(size)
    first = np.where(signed < 0, np.float32(size - 0.5), np.float32(0.5)) * scale
    step = np.where(signed < 0, -scale, scale)
    return np.stack([begin, length, first, step, -1 / np.maximum(scale, 1)], axis=-1).swapaxes(0, 1)


def _matrices(filters: Tensor, size: int, longest: int) -> Tensor:
    """(2, N, size, longest): what turns a line of up to `longest` pixels into its box, resized."""
    begin, length, first, step, slope = filters[..., None].unbind(-2)
    source = torch.arange(0.5, longest, device=filters.device) - begin
    target = torch.addcmul(first, torch.arange(float(size), device=filters.device), step)
    distance = (source[..., None, :] - target[..., :, None]).abs_()
    weights = distance.mul_(slope[..., None]).add_(1).clamp_(min=0)
    weights *= ((source > 0) & (source < length))[..., None, :]
    return weights / weights.sum(dim=-1, keepdim=True)


def resized_crops(images: Tensor, filters: Tensor, size: int) -> Tensor:
    """Cut boxes from images and resize them to squares by the antialiased bilinear filter of PIL and torchvision.

    Each direction is a product of an image with a matrix, because on a GPU that takes one pass.

    Args:
        images: (B, H, W, 3) uint8.
        filters: (2, V * B, 5): what the function of that name says of the boxes.
        size: the side of the result in pixels.

    Returns:
        (V * B, 3, size, size) float32 in [0, 1], all first boxes before all second ones.
    """
    count, (height, width, channels) = filters.shape[1], images.shape[1:]
    rows, columns = _matrices(filters, size, max(height, width))
    each = images.expand(count // len(images), *images.shape) / 255
    with precision.full(images.device):
        # from (y, x, channel) to (x, channel, row) to (channel, row, column)
        cut = torch.bmm(each.reshape(count, height, width * channels).mT, rows[..., :height].mT)
        cut = torch.bmm(cut.view(count, width, channels * size).mT, columns[..., :width].mT)
    return cut.view(count, channels, size, size)
