import numpy as np
import pytest
import torch

from simclr.augment import Draws, blur
from simclr.augment.blur import kernel_size


def test_the_kernel_is_a_tenth_of_the_image_and_odd() -> None:
    assert {size: kernel_size(size) for size in (1, 2, 3, 8, 16, 32, 96, 224)} == {
        1: 1, 2: 3, 3: 3, 8: 3, 16: 3, 32: 3, 96: 9, 224: 23
    }  # fmt: skip


def test_draws_have_the_asked_frequencies_and_ranges() -> None:
    values = blur.draw(blur.Params(probability=0.5, sigma=[0.1, 2.0]), Draws("blur", 0, 1, np.arange(20_000), 2), 32)
    sigmas = values["sigmas"][values["sigmas"] > 0]
    assert sigmas.size / values["sigmas"].size == pytest.approx(0.5, abs=0.01)
    assert sigmas.min() == pytest.approx(0.1, abs=1e-3)
    assert sigmas.max() == pytest.approx(2.0, abs=1e-3)


def test_only_the_images_that_are_said_to_be_are_blurred_and_channels_come_last() -> None:
    parameters = blur.Params(probability=0.5, sigma=[1.5, 1.5])
    values = blur.draw(parameters, Draws("blur", 0, 1, np.arange(12), 1), 32)
    images, blurred = torch.rand(12, 3, 32, 32), torch.from_numpy(values["sigmas"][:, 0] > 0)
    found = blur.apply(images, {"taps": torch.from_numpy(blur.prepared(values, parameters)["taps"][:, 0])})
    assert 0 < blurred.sum() < 12
    assert torch.equal(found[~blurred], images[~blurred])
    assert ((found - images)[blurred].abs() > 0.01).float().mean() > 0.5
    assert found.is_contiguous(memory_format=torch.channels_last)
