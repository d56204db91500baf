import numpy as np

from simclr.thumbnails.view_grid import view_grid


def test_view_grid_shows_each_pair_side_by_side():
    first = np.stack([np.full((8, 8, 3), 10 * index, np.uint8) for index in range(5)])
    grid = view_grid(np.stack([first, first + 100], axis=1))
    assert grid.dtype == np.uint8
    assert grid.shape == (3 * 108 + 12, 2 * 207 + 12, 3)  # 2 x 3 places of two 96 px cells
    for index in range(5):
        y, x = 12 + index // 2 * 108, 12 + index % 2 * 207
        assert (grid[y : y + 96, x : x + 96] == 10 * index).all()
        assert (grid[y : y + 96, x + 99 : x + 195] == 10 * index + 100).all()


def test_view_grid_of_one_large_pair():
    assert view_grid(np.zeros((1, 2, 224, 224, 3), np.uint8)).shape == (120, 219, 3)
