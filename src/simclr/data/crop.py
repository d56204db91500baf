"""Boxes cut from images, mirrored or not, and resized: which box is decided on the host, and small images are cut on
a GPU by what stands here; elsewhere they are cut by `fused`.

A box is top, left, height, width in pixels. Where its width is negative, what lies in it is mirrored left to right,
which costs nothing in a resize, and a pass over the views elsewhere.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.device import precision

ATTEMPTS = 10
"""Boxes tried by `random_boxes` before it settles for a central one, as in torchvision."""


def random_boxes(
    draws: npt.NDArray[np.float64],
    heights: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> npt.NDArray[np.int64]:
    """Boxes of a random resized crop (Szegedy et al. 2015, section 6; Chen et al. 2020, appendix A).

    Args:
        draws: (..., ATTEMPTS, 4) in [0, 1): area, aspect ratio, top, left.
        heights: (...) in pixels, as `widths`.
        scale: the share of the image's area, drawn uniformly.
        ratio: width / height, drawn uniformly in its logarithm.

    Returns:
        (..., 4) of top, left, height, width in pixels: the first attempt that fits into the image, else the largest
        central box whose aspect ratio is allowed.
    """
    height, width = heights[..., None], widths[..., None]
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[..., 0])
    low, high = np.log(ratio)
    aspect = np.exp(low + (high - low) * draws[..., 1])
    box_width = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    box_height = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    top = np.floor(draws[..., 2] * (height - box_height + 1)).astype(np.int64)
    left = np.floor(draws[..., 3] * (width - box_width + 1)).astype(np.int64)
    attempts = np.stack([top, left, box_height, box_width], axis=-1)
    first = np.argmax(fits, axis=-1)[..., None, None]
    chosen = np.take_along_axis(attempts, first, axis=-2)[..., 0, :]

    central_width = np.clip(widths, 1, np.maximum(1, np.rint(heights * ratio[1]))).astype(np.int64)
    central_height = np.clip(heights, 1, np.maximum(1, np.rint(widths / ratio[0]))).astype(np.int64)
    central = np.stack(
        [(heights - central_height) // 2, (widths - central_width) // 2, central_height, central_width],
        axis=-1,
    )
    return np.where(fits.any(axis=-1)[..., None], chosen, central)


def central_boxes(heights: npt.NDArray[np.int64], widths: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """The central square of each image, (N, 4) as in `random_boxes`; its side is `share` of the shorter side."""
    side = np.maximum(1, np.rint(share * np.minimum(heights, widths))).astype(np.int64)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=-1)


def mirrored(boxes: npt.NDArray[np.int64], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The `boxes` (..., 4), mirrored `where` (...) it says so."""
    top, left, height, width = np.moveaxis(boxes, -1, 0)
    return np.stack([top, left, height, np.where(where, -width, width)], axis=-1)


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
