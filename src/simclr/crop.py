"""Boxes cut from images, mirrored or not, and resized: which box is decided on the host, small images are cut on the
device.

A box is top, left, height, width in pixels. Where its width is negative, what lies in it is mirrored left to right,
which costs nothing in a resize, and a pass over the views elsewhere.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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


def _resampled(rows: Tensor, first: Tensor, lengths: Tensor, longest: int, size: int) -> Tensor:
    """Runs of rows, each resampled to `size` rows by a triangle filter, widened by the scale when shrinking: the
    antialiased bilinear resize of PIL and torchvision.

    Args:
        rows: (R, D) floating point.
        first: (N,) int64: where in `rows` each run begins.
        lengths: (N,) int64: how many rows it has, at most `longest`; negative where the result is reversed.

    Returns:
        (N, size, D).
    """
    place = torch.arange(size, device=rows.device)
    place = torch.where(lengths[:, None] < 0, size - 1 - place, place)
    lengths = lengths[:, None].abs()
    scale = lengths.float() / size
    reach = scale.clamp(min=1)
    target = (place + 0.5) * scale
    lowest = (target - reach + 0.5).floor().long()
    # tap by tap, because sums of whole tensors round alike in any batch; in a product of matrices the shape and the
    # number of threads choose the order of the terms
    taps = [lowest + tap for tap in range(math.ceil(2 * max(1, longest / size)))]
    weights = [(1 - (tap + 0.5 - target).abs() / reach).clamp(min=0) * ((tap >= 0) & (tap < lengths)) for tap in taps]
    total = sum(weights)
    resampled = rows.new_zeros(lengths.shape[0] * size, rows.shape[1])
    for tap, weight in zip(taps, weights, strict=True):
        index = first[:, None] + tap.clamp(min=0).minimum(lengths - 1)
        resampled += rows.index_select(0, index.flatten()).mul_((weight / total).view(-1, 1))
    return resampled.view(-1, size, rows.shape[1])


def resized_crops(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut every box from its image and resize it to a square, antialiased.

    Args:
        images: (B, H, W, C) floating point.
        boxes: (B, V, 4) int64, the V boxes of each image, mirrored where their width is negative.
        size: the side of the result in pixels.

    Returns:
        (B, V, C, size, size).
    """
    (count, height, width, channels), views = images.shape, boxes.shape[1]
    tops, lefts, heights, widths = boxes.reshape(-1, 4).unbind(-1)
    box = torch.arange(count * views, device=images.device)
    rows = images.reshape(count * height, width * channels)
    rows = _resampled(rows, box // views * height + tops, heights, height, size)
    columns = rows.view(-1, size, width, channels).permute(0, 2, 3, 1).reshape(-1, channels * size)
    columns = _resampled(columns, box * width + lefts, widths, width, size)
    return columns.view(count, views, size, channels, size).permute(0, 1, 3, 4, 2)
