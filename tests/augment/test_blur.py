import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from simclr.augment import blur
from simclr.augment.blur import kernel_size


def test_the_kernel_is_a_tenth_of_the_image_and_odd() -> None:
    assert {size: kernel_size(size) for size in (1, 2, 3, 8, 16, 32, 96, 224)} == {
        1: 1, 2: 3, 3: 3, 8: 3, 16: 3, 32: 3, 96: 9, 224: 23
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 8, 32, 96])
def test_each_image_is_blurred_as_torchvision_blurs_it(size: int) -> None:
    images = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0])
    taps = kernel_size(size)
    expected = torch.stack(
        [tv.gaussian_blur(image, [taps, taps], [s, s]) for image, s in zip(images, sigmas.tolist(), strict=True)]
    )
    weights = torch.from_numpy(blur.taps(size, sigmas.numpy(), np.full(5, True)))
    found = blur.gaussian_blur(images, weights)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_only_the_images_that_are_said_to_be_are_blurred() -> None:
    images, sigmas = torch.rand(4, 3, 32, 32), np.full(4, 1.5, np.float32)
    found = blur.gaussian_blur(images, torch.from_numpy(blur.taps(32, sigmas, np.array([True, False, True, False]))))
    assert torch.equal(found[1::2], images[1::2])
    assert ((found - images)[0::2].abs() > 0.01).float().mean() > 0.5
