import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from simclr.data import crop


def test_central_boxes() -> None:
    boxes = crop.central_boxes(np.array([100, 30, 7]), np.array([50, 60, 7]), 0.5)
    assert boxes.tolist() == [[37, 12, 25, 25], [7, 22, 15, 15], [1, 1, 4, 4]]


def test_a_rank_without_a_share_of_a_small_last_batch_has_no_views() -> None:
    filters = torch.from_numpy(crop.filters(np.zeros((0, 2, 4), np.int64), 8))
    assert crop.resized_crops(torch.zeros(0, 32, 32, 3, dtype=torch.uint8), filters, 8).shape == (0, 3, 8, 8)


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
