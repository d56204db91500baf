"""Boxes cut from images, and resized: which box is decided on the host, cutting small images is one batched product."""

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


def _interpolation(starts: Tensor, lengths: Tensor, source: int, size: int) -> Tensor:
    """The matrices (..., size, source) that resample [start, start + length) of `source` pixels to `size` pixels.

    A triangle filter, widened by the scale when shrinking: the antialiased bilinear resize of PIL and torchvision.
    """
    starts, lengths = starts[..., None, None].float(), lengths[..., None, None].float()
    scale = lengths / size
    target = (torch.arange(size, device=starts.device)[:, None] + 0.5) * scale
    pixel = torch.arange(source, device=starts.device)[None, :] - starts
    weights = (1 - (pixel + 0.5 - target).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel >= 0) & (pixel < lengths))
    return weights / weights.sum(dim=-1, keepdim=True)


def resized_crops(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut every box from its image and resize it to a square, antialiased.

    Args:
        images: (B, C, H, W) floating point.
        boxes: (B, V, 4) integers: top, left, height, width of the V boxes of each image.
        size: the side of the result in pixels.

    Returns:
        (B, V, C, size, size).
    """
    top, left, height, width = boxes.unbind(-1)
    rows = _interpolation(top, height, images.shape[2], size)
    columns = _interpolation(left, width, images.shape[3], size)
    return rows[:, :, None] @ images[:, None] @ columns[:, :, None].transpose(-1, -2)
