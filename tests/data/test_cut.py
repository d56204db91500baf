"""Boxes cut out by compiled loops against `crop`, which runs here on a CPU too, and against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from simclr.augment import Draws
from simclr.data import crop, cut, loader
from tests.helpers.augmentations import augmentation


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (21, 40, 8), (9, 17, 33), (130, 50, 24)])
def test_resized_crops(height: int, width: int, size: int) -> None:
    pixels = torch.randint(0, 256, (6, height, width, 3), dtype=torch.uint8)
    sides = np.full((6, 1), height), np.full((6, 1), width)
    boxes = np.zeros((6, 7, 4), np.int64)
    for option in (augmentation("crop"), augmentation("flip")):
        draws = Draws(option.name, 0, 0, np.arange(6), 7)
        boxes = option.module.boxes(boxes, option.parameters, draws, *sides)
    boxes[0, 0] = (0, 0, height, width)
    boxes[0, 1] = (height - 1, width - 1, 1, 1)
    boxes[0, 2] = (0, 0, height, -width)
    plain = crop.resized_crops(pixels, torch.from_numpy(crop.filters(boxes, size)), size)
    found = cut.resized_crops(pixels, boxes, size).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(found, plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        (512, 10, 8, (0, 0, 512, 10)),
        (512, 10, 8, (100, 3, 400, -5)),
        (4, 3, 1, (0, 0, 4, 3)),
        (100, 75, 1, (0, 0, 100, -75)),
        (10, 512, 8, (0, 0, 10, 512)),
        (10, 512, 1, (2, 0, 3, 512)),
        (1, 1, 1, (0, 0, 1, 1)),
        (300, 1, 2, (0, 0, 300, 1)),
    ],
)
def test_boxes_far_taller_or_wider_than_the_view(
    height: int, width: int, size: int, box: tuple[int, int, int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left, rows, columns = box
    expected_cut = Image.fromarray(pixels[top : top + rows, left : left + abs(columns)])
    expected_cut = ImageOps.mirror(expected_cut) if columns < 0 else expected_cut
    expected = np.asarray(expected_cut.resize((size, size), Image.Resampling.BILINEAR)).astype(float)
    boxes = np.array([[box, box]])
    whole = torch.from_numpy(pixels)[None]
    for found in 255 * cut.resized_crops(whole, boxes, size)[0].permute(0, 2, 3, 1).numpy():
        assert np.abs(found - expected).max() <= 1
    packed = np.empty((2, size, size, 3), np.uint8)
    cut.cut_pixels(pixels, boxes[0], packed)
    assert np.abs(packed - expected).max() <= 1


def test_cut_pixels_as_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 61, 83], [3, 50, 40, 20], [10, 0, 51, 9], [20, 20, 1, 1], [5, 6, 32, -48]])
    found = np.empty((len(boxes), 16, 16, 3), np.uint8)
    cut.cut_pixels(pixels, boxes, found)
    for own, (top, left, height, width) in zip(found, boxes, strict=True):
        box = Image.fromarray(pixels[top : top + height, left : left + abs(width)])
        box = ImageOps.mirror(box) if width < 0 else box
        expected = np.asarray(box.resize((16, 16), Image.Resampling.BILINEAR))
        assert np.abs(own.astype(int) - expected).max() <= 1  # Pillow's arithmetic is of integers


def test_unpacked() -> None:
    pixels = torch.randint(0, 256, (3, 2, 5, 5, 3), dtype=torch.uint8)
    plain = pixels.float().movedim(-1, -3) / 255
    assert torch.equal(cut.unpack(pixels), plain)
    assert torch.equal(loader._unpack(pixels), plain.transpose(0, 1).flatten(0, 1))
