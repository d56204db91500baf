"""The compiled loops of a CPU against the batched operations of a GPU, which run here on a CPU too."""

import numpy as np
import pytest
import torch

from simclr.augment import views
from simclr.augment.views import ViewParams

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PARAMETERS = ViewParams(
    resolution=0, crop_scale=[0.05, 1.0], crop_ratio=[0.5, 2.0], flip=0.5, jitter=0.8, brightness=0.8, contrast=0.8,
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
    parameters = ViewParams(**{**PARAMETERS.__dict__, "resolution": size, **({without: 0.0} if without else {})})
    count = 60
    whole = np.full(count, size)
    draws = views.draw(parameters, whole, whole, 0, 0, np.arange(count))
    crops = images(2 * count, size)
    alone, together = (rows(draws, parameters, device) for device in (CPU, GPU))
    found = views._all_at_once(crops, together)
    off = (found - views._one_by_one(crops, alone, parameters)).abs() > 5e-6
    assert off.float().mean() < (1e-9 if without == "solarize" else 1e-4)  # values at its very threshold
