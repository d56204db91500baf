"""Images of any size as square cells of one size."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING = 238  # light grey, to tell it from white images


def side(images: Sequence[NDArray[np.uint8]]) -> int:
    """The side, in pixels, of cells for `images` (each (H, W, 3)): a multiple of the longest side of all.

    The limit is 96 for a few images and 64 for many, so that a sheet of 120 photographs stays a small file.
    """
    limit = 96 if len(images) <= 40 else 64
    longest: int = max(max(image.shape[:2]) for image in images)
    return limit if longest >= limit else limit // longest * longest


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """`image` (H, W, 3) centred in a cell (side, side, 3), its aspect ratio kept.

    Smaller images are enlarged by a whole number, so that their pixels stay pixels; larger ones are shrunk.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > side:
        size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    else:
        image = image.repeat(side // longest, axis=0).repeat(side // longest, axis=1)
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    cell = np.full((side, side, 3), PADDING, np.uint8)
    cell[top : top + height, left : left + width] = image
    return cell
