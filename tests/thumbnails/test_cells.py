import numpy as np
import pytest

from simclr.thumbnails import cells


@pytest.mark.parametrize(
    ("count", "size", "side"),
    [(1, 8, 96), (40, 8, 96), (41, 8, 64), (120, 28, 56), (120, 32, 64), (9, 512, 96)],
)
def test_cells_are_a_multiple_of_the_images(count, size, side):
    assert cells.side([np.zeros((size, size - 3, 3), np.uint8)] * count) == side


def test_small_images_keep_their_pixels():
    small = np.random.default_rng(0).integers(0, 256, (5, 3, 3), np.uint8)
    cell = cells.fit(small, 16)
    assert cell.shape == (16, 16, 3)
    enlarged = np.kron(small, np.ones((3, 3, 1), np.uint8))
    assert (cell[0:15, 3:12] == enlarged).all()
    assert (cell[:, 12:] == cells.PADDING).all()
    assert (cell[15] == cells.PADDING).all()


def test_large_images_keep_their_aspect_ratio():
    cell = cells.fit(np.full((300, 600, 3), 7, np.uint8), 64)
    rows, columns = np.nonzero((cell == 7).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 47, 0, 63)
    assert (np.delete(cell, range(16, 48), axis=0) == cells.PADDING).all()
