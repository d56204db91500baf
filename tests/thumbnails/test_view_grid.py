import numpy as np

from simclr.thumbnails.view_grid import view_grid


def test_view_grid_shows_the_views_of_each_image_side_by_side():
    first = np.stack([np.full((8, 8, 3), 10 * index, np.uint8) for index in range(5)])
    pairs = np.stack([first, first + 100], axis=1)
    for views in ([pairs], [pairs, np.zeros((5, 0, 4, 4, 3), np.uint8)]):
        grid = view_grid(views)
        assert grid.dtype == np.uint8
        assert grid.shape == (3 * 108 + 12, 2 * 207 + 12, 3)  # 2 x 3 places of two 96 px cells
        for index in range(5):
            y, x = 12 + index // 2 * 108, 12 + index % 2 * 207
            assert (grid[y : y + 96, x : x + 96] == 10 * index).all()
            assert (grid[y : y + 96, x + 99 : x + 195] == 10 * index + 100).all()


def test_view_grid_shows_small_views_as_small_as_they_are():
    full, small = np.full((3, 2, 8, 8, 3), 10, np.uint8), np.full((3, 3, 4, 4, 3), 20, np.uint8)
    grid = view_grid([full, small])
    assert grid.shape == (3 * 108 + 12, 12 + 2 * 99 + 3 * 51 - 3 + 12, 3)  # one such row fits where two pairs would
    for y in (12, 120, 228):
        assert (grid[y : y + 96, 111:207] == 10).all()
        for x in (210, 261, 312):
            assert (grid[y : y + 48, x : x + 48] == 20).all()
            assert (grid[y + 48 : y + 96, x : x + 48] == 238).all()


def test_view_grid_of_small_views_that_are_larger():
    full, small = np.full((1, 2, 8, 8, 3), 10, np.uint8), np.full((1, 1, 16, 16, 3), 20, np.uint8)
    assert (view_grid([full, small])[12:108, 210:306] == 20).all()


def test_view_grid_of_one_image_with_many_views_and_tiny_ones():
    full, small = np.full((1, 16, 224, 224, 3), 10, np.uint8), np.full((1, 1, 1, 1, 3), 20, np.uint8)
    grid = view_grid([full, small])
    side = grid.shape[0] - 24
    assert grid.shape[1] == 12 + 16 * (side + 3) + 1 + 12
    assert (grid[12, -13] == 20).all()


def test_view_grid_of_one_large_pair():
    assert view_grid([np.zeros((1, 2, 224, 224, 3), np.uint8)]).shape == (120, 219, 3)
