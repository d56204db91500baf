"""Boxes of crops and flips against torchvision's, for the same draws."""

from types import ModuleType

import numpy as np
import pytest

from simclr.augment import Draws, crop, flip


def test_boxes_lie_within_the_image_and_have_the_asked_area_and_ratio() -> None:
    parameters = crop.Params(scale=[0.2, 0.8], ratio=[0.75, 4 / 3])
    sizes = np.full((500, 1), 300), np.full((500, 1), 400)
    boxes = crop.boxes(np.zeros((500, 2, 4), np.int64), parameters, Draws("crop", 0, 1, np.arange(500), 2), *sizes)
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
    draws = Draws("crop", 0, 1, np.arange(200), 1)
    sizes = np.full((200, 1), height), np.full((200, 1), width)
    parameters = crop.Params(scale=[0.08, 1.0], ratio=[0.75, 4 / 3])
    boxes = crop.boxes(np.zeros((200, 1, 4), np.int64), parameters, draws, *sizes)
    uniform = draws.uniform("", 10, 4)[:, 0]
    assert boxes[:, 0].tolist() == [reference_box(draw, height, width, (0.08, 1.0), (0.75, 4 / 3)) for draw in uniform]


@pytest.mark.parametrize("order", [[crop, flip], [flip, crop]])
def test_a_flip_is_kept_whichever_comes_first(order: list[ModuleType]) -> None:
    sizes, boxes = (np.full((20_000, 1), 30),) * 2, np.tile([[[0, 0, 30, 30]]], (20_000, 2, 1))
    parameters = {crop: crop.Params(scale=[0.2, 0.8], ratio=[1, 1]), flip: flip.Params(probability=0.5)}
    for module in order:
        draws = Draws(module.__name__, 0, 1, np.arange(20_000), 2)
        boxes = module.boxes(boxes, parameters[module], draws, *sizes)
    assert (boxes[..., 3] < 0).mean() == pytest.approx(0.5, abs=0.01)


def test_a_flip_is_a_negative_width() -> None:
    boxes = np.tile([[[0, 1, 2, 3]]], (20_000, 2, 1))
    found = flip.boxes(boxes, flip.Params(probability=0.5), Draws("flip", 0, 1, np.arange(20_000), 2), boxes, boxes)
    assert (abs(found) == boxes).all()
    assert (found[..., :3] == boxes[..., :3]).all()
    assert (found[..., 3] < 0).mean() == pytest.approx(0.5, abs=0.01)
