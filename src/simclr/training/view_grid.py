"""Pairs of views to look at."""

import numpy as np
from numpy.typing import NDArray

from simclr.tracking import thumbnails

MARGIN = 12  # pixels around and between the pairs
GAP = 3  # pixels between the views of a pair


def view_grid(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pairs of views side by side, the pairs in a grid.

    Args:
        first, second: uint8 (N, H, W, 3); the two views of sample i are first[i] and second[i].

    Returns:
        uint8 (H', W', 3).
    """
    side = thumbnails.side([*first, *second])
    columns = round(len(first) ** 0.5)
    rows = -(-len(first) // columns)
    height, width = side + MARGIN, 2 * side + GAP + MARGIN
    grid = np.full((rows * height + MARGIN, columns * width + MARGIN, 3), thumbnails.PADDING, np.uint8)
    for index, pair in enumerate(zip(first, second, strict=True)):
        y = MARGIN + index // columns * height
        for view, image in enumerate(pair):
            x = MARGIN + index % columns * width + view * (side + GAP)
            grid[y : y + side, x : x + side] = thumbnails.fit(image, side)
    return grid
