"""The chain of color operations against torchvision's functions, image by image."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from simclr.augment import color

ADJUST = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def pictures(count: int) -> Tensor:
    images = torch.rand(count, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    images[0] = 0.5  # gray: no hue
    images[1] = 0
    images[2] = 1
    images[3, 1] = images[3, 0]  # two channels tie
    images[4, 2] = images[4, 1]
    images[5, 2] = images[5, 0]
    return images


def jittered(images: Tensor, order: np.ndarray, factors: np.ndarray, active: list[int]) -> Tensor:
    rows = color.chain(order, factors.astype(np.float32), active)
    return color.jitter(images, {name: torch.from_numpy(array) for name, array in rows.items()})


@pytest.mark.parametrize("operation", range(4))
@pytest.mark.parametrize("active", [[], [0, 1, 2, 3]])
def test_each_operation_agrees_with_torchvision(operation: int, active: list[int]) -> None:
    images = pictures(12)
    factors, order = np.zeros((12, 4)), np.full((12, 4), -1)
    factors[:, operation] = np.linspace(-0.5, 0.5, 12) if operation == 3 else np.linspace(0, 2, 12)
    order[:, 2] = operation
    found = jittered(images, order, factors, active or [operation])
    for own, image, factor in zip(found, images, factors[:, operation], strict=True):
        torch.testing.assert_close(own, ADJUST[operation](image, factor), atol=3e-6, rtol=0)


@pytest.mark.parametrize("active", [list(some) for r in range(1, 5) for some in itertools.combinations(range(4), r)])
def test_each_image_has_its_own_operations_in_its_own_order(active: list[int]) -> None:
    generator = np.random.default_rng(1)
    orders = np.array([order for order in itertools.permutations(range(4)) for _ in range(2)])
    images = pictures(len(orders))
    factors = generator.random((len(orders), 4)) * 1.6 + 0.2
    factors[:, 3] = generator.random(len(orders)) - 0.5
    used = np.where(np.isin(orders, active) & (np.arange(len(orders)) % 5 > 0)[:, None], orders, -1)
    untouched = images.clone()
    found = jittered(images, used, factors, active)
    for row, image in enumerate(images):
        for operation in used[row][used[row] >= 0]:
            image = ADJUST[operation](image, factors[row, operation])
        torch.testing.assert_close(found[row], image, atol=1e-5, rtol=0)
    assert torch.equal(images, untouched)
    assert found.min() >= 0
    assert found.max() <= 1


def test_grayscale_and_solarize_agree_with_torchvision() -> None:
    images = pictures(12)
    gray = torch.arange(12) % 2 == 0
    found = color.jitter(images, {"gray": gray})
    torch.testing.assert_close(found[gray], tv.rgb_to_grayscale(images[gray], 3), atol=1e-6, rtol=0)
    assert torch.equal(found[~gray], images[~gray])
    thresholds = torch.where(gray, 0.3, torch.inf)
    found = color.solarize(images, thresholds)
    torch.testing.assert_close(found[gray], tv.solarize(images[gray], 0.3))
    assert torch.equal(found[~gray], images[~gray])


def test_where_triton_does_not_work_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Tensor:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(color, "_in_one_kernel", failing)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.empty(1, 3, 1, 1))
    color._triton_works.cache_clear()
    with pytest.warns(UserWarning, match="Triton does not work here.*C compiler"):
        assert not color._triton_works()
    assert not color._triton_works()
    color._triton_works.cache_clear()
