"""Pictures of pairs of views."""

import numpy as np
from numpy.typing import NDArray

from simclr.thumbnails import cells

MARGIN = 12  # pixels around and between the pairs
GAP = 3  # pixels between the views of a pair


def view_grid(pairs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pairs of views side by side, the pairs in a grid.

    Args:
        pairs: uint8 (N, 2, H, W, 3).

    Returns:
        uint8 (H', W', 3).
    """
    side = cells.side(list(pairs.reshape(-1, *pairs.shape[2:])))
    columns = round(len(pairs) ** 0.5)
    rows = -(-len(pairs) // columns)
    height, width = side + MARGIN, 2 * side + GAP + MARGIN
    grid = np.full((rows * height + MARGIN, columns * width + MARGIN, 3), cells.PADDING, np.uint8)
    for index, pair in enumerate(pairs):
        y = MARGIN + index // columns * height
        for view, image in enumerate(pair):
            x = MARGIN + index % columns * width + view * (side + GAP)
            grid[y : y + side, x : x + side] = cells.fit(image, side)
    return grid
