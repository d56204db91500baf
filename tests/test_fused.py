"""The compiled loops of a CPU against the batched operations of a GPU, which run here on a CPU too."""

import numba
import numpy as np
import pytest
import torch
from numba.core import caching
from PIL import Image, ImageOps

from simclr import crop, fused, loader, views
from simclr.views import ViewParams

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PARAMETERS = ViewParams(
    size=0, crop_scale=[0.05, 1.0], crop_ratio=[0.5, 2.0], flip=0.5, jitter=0.8, brightness=0.8, contrast=0.8,
    saturation=0.8, hue=0.5, grayscale=0.2, blur=0.5, blur_sigma=[0.1, 2.0], solarize=0.3, solarize_threshold=0.5,
)  # fmt: skip


def images(count: int, size: int) -> torch.Tensor:
    """(N, 3, S, S): colors at random, black, white, gray, and two channels alike."""
    found = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(size))
    found[0], found[1] = 0, 1
    found[2] = found[2, :1]
    found[3, 0] = found[3, 1]
    found[4, 2] = found[4, 1]
    found[5] = (found[5] * 3).floor() / 2
    return found


def rows(draws: views.Draws, parameters: ViewParams, device: torch.device) -> dict[str, torch.Tensor]:
    """What `augment` on `device` takes, on the CPU."""
    return {name: torch.from_numpy(array) for name, array in views.rows(draws, parameters, device).items()}


@pytest.mark.parametrize("size", [1, 2, 8, 33, 96])
@pytest.mark.parametrize("without", ["", "jitter", "hue", "contrast", "brightness", "blur", "grayscale", "solarize"])
def test_views(size: int, without: str) -> None:
    parameters = ViewParams(**{**PARAMETERS.__dict__, "size": size, **({without: 0.0} if without else {})})
    count = 60
    whole = np.full(count, size)
    draws = views.draw(parameters, whole, whole, 0, 0, np.arange(count))
    crops = images(2 * count, size)
    alone, together = (rows(draws, parameters, device) for device in (CPU, GPU))
    found = views._all_at_once(crops, together)
    off = (found - views._one_by_one(crops, alone, parameters)).abs() > 5e-6
    assert off.float().mean() < (1e-9 if without == "solarize" else 1e-4)  # values at its very threshold


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (21, 40, 8), (9, 17, 33), (130, 50, 24)])
def test_resized_crops(height: int, width: int, size: int) -> None:
    pixels = torch.randint(0, 256, (6, height, width, 3), dtype=torch.uint8)
    sides = np.full(6, height), np.full(6, width)
    boxes = views.draw(PARAMETERS, *sides, 0, 0, np.arange(6), 7).boxes
    boxes[0, 0] = (0, 0, height, width)
    boxes[0, 1] = (height - 1, width - 1, 1, 1)
    boxes[0, 2] = (0, 0, height, -width)
    plain = crop.resized_crops(pixels, torch.from_numpy(crop.filters(boxes, size)), size)
    found = fused.resized_crops(pixels, boxes, size).transpose(0, 1).flatten(0, 1)
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
    cut = Image.fromarray(pixels[top : top + rows, left : left + abs(columns)])
    cut = ImageOps.mirror(cut) if columns < 0 else cut
    expected = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(float)
    boxes = np.array([[box, box]])
    whole = torch.from_numpy(pixels)[None]
    for found in 255 * fused.resized_crops(whole, boxes, size)[0].permute(0, 2, 3, 1).numpy():
        assert np.abs(found - expected).max() <= 1
    packed = np.empty((2, size, size, 3), np.uint8)
    fused.cut_pixels(pixels, boxes[0], packed)
    assert np.abs(packed - expected).max() <= 1


def test_cut_pixels_as_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 61, 83], [3, 50, 40, 20], [10, 0, 51, 9], [20, 20, 1, 1], [5, 6, 32, -48]])
    found = np.empty((len(boxes), 16, 16, 3), np.uint8)
    fused.cut_pixels(pixels, boxes, found)
    for own, (top, left, height, width) in zip(found, boxes, strict=True):
        box = Image.fromarray(pixels[top : top + height, left : left + abs(width)])
        box = ImageOps.mirror(box) if width < 0 else box
        expected = np.asarray(box.resize((16, 16), Image.Resampling.BILINEAR))
        assert np.abs(own.astype(int) - expected).max() <= 1  # Pillow's arithmetic is of integers


def test_unpacked() -> None:
    pixels = torch.randint(0, 256, (3, 2, 5, 5, 3), dtype=torch.uint8)
    plain = pixels.float().movedim(-1, -3) / 255
    assert torch.equal(fused.unpacked(pixels), plain)
    assert torch.equal(loader._unpacked(pixels), plain.transpose(0, 1).flatten(0, 1))


def test_where_nothing_can_be_written_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def double(value):  # type: ignore[no-untyped-def]
        return 2 * value

    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(double, cache=True)
    assert fused._njit(double)(4) == 8
