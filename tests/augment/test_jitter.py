"""Color jitter: its draws, and the chain of its operations against torchvision's functions, image by image."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from simclr.augment import Draws, jitter
from simclr.augment import _jitter_batched as batched

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
    rows = batched.chain(order, factors.astype(np.float32), active)
    return batched.jitter(images, {name: torch.from_numpy(array) for name, array in rows.items()})


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


def test_draws_have_the_asked_frequencies_and_ranges() -> None:
    parameters = jitter.Params(probability=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    values = jitter.draw(parameters, Draws("jitter", 0, 1, np.arange(20_000), 2), 12)
    jittered = (values["order"] >= 0).any(axis=-1)
    assert jittered.mean() == pytest.approx(0.8, abs=0.01)  # 40,000 draws: 4 standard deviations
    factors = values["factors"]
    assert factors[..., :3].min() == pytest.approx(0.6, abs=1e-3)
    assert factors[..., :3].max() == pytest.approx(1.4, abs=1e-3)
    assert abs(factors[..., 3]).max() == pytest.approx(0.1, abs=1e-4)
    orders, counts = np.unique(values["order"][jittered], axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 0.85 * 0.8 * 40_000 / 24


def test_factors_never_fall_below_zero() -> None:
    strong = jitter.Params(probability=0.8, brightness=1.5, contrast=0, saturation=0, hue=0)
    values = jitter.draw(strong, Draws("jitter", 0, 1, np.arange(5000), 2), 12)
    assert values["factors"][..., 0].min() >= 0
    assert values["factors"][..., 0].max() == pytest.approx(2.5, abs=0.01)
    assert set(values["order"].flatten()) == {-1, 0}  # the others change nothing


def test_where_triton_does_not_work_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Tensor:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(batched, "_in_one_kernel", failing)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: torch.empty(shape))
    batched._triton_works.cache_clear()
    with pytest.warns(UserWarning, match="Triton does not work here.*C compiler"):
        assert not batched._triton_works()
    assert not batched._triton_works()
    batched._triton_works.cache_clear()
