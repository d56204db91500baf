import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from simclr.data import crop


def test_boxes_lie_within_the_image_and_have_the_asked_area_and_ratio() -> None:
    draws = np.random.default_rng(0).random((500, 2, crop.ATTEMPTS, 4))
    heights, widths = np.full((500, 2), 300), np.full((500, 2), 400)
    boxes = crop.random_boxes(draws, heights, widths, (0.2, 0.8), (0.75, 4 / 3))
    top, left, height, width = np.moveaxis(boxes, -1, 0)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    share = height * width / (300 * 400)
    assert share.min() > 0.19
    assert share.max() < 0.81
    assert (width / height).min() > 0.74
    assert (width / height).max() < 1.35
    assert top.max() > 100  # they move about
    assert left.max() > 100


def reference_box(draws: np.ndarray, height: int, width: int, scale: tuple, ratio: tuple) -> list[int]:
    """torchvision's RandomResizedCrop.get_params, with the draws given."""
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_draw)
        low, high = np.log(ratio[0]), np.log(ratio[1])
        aspect = np.exp(low + (high - low) * ratio_draw)
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < min(ratio):
        h = round(w / min(ratio))
    elif width / height > max(ratio):
        w = round(h * max(ratio))
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (300, 400), (20, 400), (400, 20), (1, 1)])
def test_boxes_are_those_of_torchvision_for_the_same_draws(height: int, width: int) -> None:
    draws = np.random.default_rng(1).random((200, crop.ATTEMPTS, 4))
    sizes = np.full(200, height), np.full(200, width)
    boxes = crop.random_boxes(draws, *sizes, (0.08, 1.0), (0.75, 4 / 3))
    expected = [reference_box(draw, height, width, (0.08, 1.0), (0.75, 4 / 3)) for draw in draws]
    assert boxes.tolist() == expected


def test_central_boxes() -> None:
    boxes = crop.central_boxes(np.array([100, 30, 7]), np.array([50, 60, 7]), 0.5)
    assert boxes.tolist() == [[37, 12, 25, 25], [7, 22, 15, 15], [1, 1, 4, 4]]


def test_where_a_box_is_mirrored() -> None:
    boxes = np.array([[[0, 1, 2, 3], [4, 5, 6, 7]]])
    assert crop.mirrored(boxes, np.array([[False, True]])).tolist() == [[[0, 1, 2, 3], [4, 5, 6, -7]]]


@pytest.mark.parametrize("size", [1, 2, 8, 16, 40])
def test_resized_crops_agree_with_torchvision(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 37, 29, 3), generator=generator, dtype=torch.uint8)
    boxes = np.array([[[0, 0, 37, 29], [3, 5, 10, 9]], [[30, 20, 7, -9], [1, 1, 1, 1]]] * 2)
    found = crop.resized_crops(images, torch.from_numpy(crop.filters(boxes, size)), size).unflatten(0, (2, 4))
    for number, image in enumerate(images.permute(0, 3, 1, 2) / 255):
        for view, (top, left, height, width) in enumerate(boxes[number].tolist()):
            expected = tv.resized_crop(image, top, left, height, abs(width), [size, size], antialias=True)
            expected = expected.flip(-1) if width < 0 else expected
            torch.testing.assert_close(found[view, number], expected, atol=3e-6, rtol=0)
