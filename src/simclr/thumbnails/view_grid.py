"""Pictures of the views of some images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simclr.thumbnails import cells

MARGIN = 12  # pixels around and between the rows of views
GAP = 3  # pixels between the views of an image


def view_grid(views: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The views of each image side by side in a row, the rows in a grid; small views are as much smaller as they are.

    Args:
        views: uint8 (N, V, S, S, 3) for each size of views, the largest first; sizes without views are left out.

    Returns:
        uint8 (H', W', 3).
    """
    side = cells.side(list(views[0].reshape(-1, *views[0].shape[2:])))
    rows = [_row([images[index] for images in views], side) for index in range(len(views[0]))]
    height, width = side + MARGIN, rows[0].shape[1] + MARGIN
    columns = max(1, round((len(rows) * (2 * side + GAP + MARGIN) / width) ** 0.5))
    grid = np.full((-(-len(rows) // columns) * height + MARGIN, columns * width + MARGIN, 3), cells.PADDING, np.uint8)
    for index, row in enumerate(rows):
        y, x = MARGIN + index // columns * height, MARGIN + index % columns * width
        grid[y : y + side, x : x + row.shape[1]] = row
    return grid


def _row(views: Sequence[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Those of one image, each size (V, S, S, 3): (side, W, 3)."""
    drawn = []
    for images in views:
        own = min(side, max(1, side * images.shape[1] // views[0].shape[1]))
        for image in images:
            cell = np.full((side, own + GAP, 3), cells.PADDING, np.uint8)
            cell[:own, :own] = cells.fit(image, own)
            drawn.append(cell)
    return np.concatenate(drawn, axis=1)[:, :-GAP]
