"""What every augmentation of `simclr.augment` keeps: a new file is tried before its author has written a test."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simclr.augment import Draws, Values
from simclr.core import options
from simclr.core.options import Option
from tests.helpers.augmentations import augmentation, pictures

NAMES = options.names("augment")
CUTTING = [name for name in NAMES if hasattr(options.module("augment", name), "boxes")]
CHANGING = [name for name in NAMES if name not in CUTTING]
SAMPLES = np.array([3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 97, 93])
WHOLE = np.array([[0, 0, 30, 40]])


def draws(option: Option, samples: np.ndarray = SAMPLES, views: int = 2, seed: int = 0, epoch: int = 1) -> Draws:
    return Draws(option.name, seed, epoch, samples, views)


def drawn(option: Option, size: int = 12, **changes: Any) -> Values:
    values: Values = option.module.draw(option.parameters, draws(option, **changes), size)
    return values


def boxes(option: Option, **changes: Any) -> np.ndarray:
    given = draws(option, **changes)
    height, width = np.full((len(given.samples), 1), 30), np.full((len(given.samples), 1), 40)
    whole = np.broadcast_to(WHOLE, (len(given.samples), given.views, 4))
    found: np.ndarray = option.module.boxes(whole, option.parameters, given, height, width)
    return found


def changed(option: Option, images: Tensor, values: Values, *, kernel: bool) -> Tensor:
    """`images` (N, 3, S, S), one by one the first views of the samples, by either form."""
    first = {name: np.ascontiguousarray(array[:, 0]) for name, array in values.items()}
    if kernel:
        out = images.clone()
        option.module.kernel(out.numpy(), *first.values())
        return out
    if hasattr(option.module, "prepared"):
        first = option.module.prepared(first, option.parameters)
    applied: Tensor = option.module.apply(images, {name: torch.from_numpy(array) for name, array in first.items()})
    return applied


def forms(name: str) -> list[bool]:
    return [False, True] if hasattr(options.module("augment", name), "kernel") else [False]


def has_probability(name: str) -> bool:
    return "probability" in options.module("augment", name).Params.__annotations__


ON_A_CPU = [(name, forms(name)[-1]) for name in CHANGING]
EVERY_FORM = [(name, kernel) for name in CHANGING for kernel in forms(name)]


@pytest.mark.parametrize("size", [1, 2, 8, 33, 96])
@pytest.mark.parametrize(("name", "kernel"), EVERY_FORM)
def test_it_does_what_its_reference_does(name: str, kernel: bool, size: int) -> None:
    option, images = augmentation(name), pictures(len(SAMPLES), size)
    values = drawn(option, size)
    found = changed(option, images, values, kernel=kernel)
    for row, image in enumerate(images):
        of_image = {key: array[row, 0] for key, array in values.items()}
        expected = option.module.reference(image, option.parameters, of_image)
        # of noise at 96 px: a rotation by torchvision is 1.2e-5 from its own form in float64
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("name", "kernel"), EVERY_FORM)
def test_something_changes_and_stays_an_image(name: str, kernel: bool) -> None:
    option, images = augmentation(name), pictures(len(SAMPLES), 12)
    before = images.clone()
    found = changed(option, images, drawn(option), kernel=kernel)
    assert torch.equal(images, before)
    assert not torch.equal(found, images)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-5


@pytest.mark.parametrize(("name", "kernel"), ON_A_CPU)
def test_a_views_bits_do_not_depend_on_its_batch(name: str, kernel: bool) -> None:
    option, images = augmentation(name), pictures(len(SAMPLES), 33)
    values = drawn(option, 33)
    whole = changed(option, images, values, kernel=kernel)
    for rows in ([0], [5, 2], [11, 3, 7, 1, 9]):
        some = changed(option, images[rows], {key: array[rows] for key, array in values.items()}, kernel=kernel)
        assert torch.equal(some, whole[rows])


@pytest.mark.parametrize("name", CHANGING)
def test_draws_belong_to_seed_epoch_sample_and_view(name: str) -> None:
    option = augmentation(name)
    whole = drawn(option)
    some = drawn(option, samples=SAMPLES[[7, 2]], views=1)
    assert all(array.shape[:2] == (len(SAMPLES), 2) for array in whole.values())
    for key, array in some.items():
        assert np.array_equal(array, whole[key][[7, 2], :1])
    for changes in ({"seed": 1}, {"epoch": 2}):
        assert any(not np.array_equal(array, whole[key]) for key, array in drawn(option, **changes).items())
    assert any(not np.array_equal(array[:, 0], array[:, 1]) for array in whole.values())


@pytest.mark.parametrize("name", [name for name in CHANGING if has_probability(name)])
def test_at_probability_0_nothing_happens(name: str) -> None:
    images = pictures(len(SAMPLES), 12)
    never = augmentation(name, probability=0.0)
    for kernel in forms(name):
        found = changed(never, images, drawn(never), kernel=kernel)
        torch.testing.assert_close(found, images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(options.module("augment", name), "IDENTITY")])
def test_with_the_parameters_of_its_identity_nothing_happens(name: str) -> None:
    option, images = augmentation(name), pictures(len(SAMPLES), 12)
    identity = option.module.IDENTITY
    assert all(type(getattr(option.parameters, key)) is type(weakest) for key, weakest in identity.items())
    certain = {"probability": 1.0} if has_probability(name) else {}
    still = replace(option, parameters=replace(option.parameters, **certain, **identity))
    if name in CUTTING:
        square = np.full((len(SAMPLES), 1), 30)
        whole = np.broadcast_to([0, 0, 30, 30], (len(SAMPLES), 2, 4))
        assert np.array_equal(option.module.boxes(whole, still.parameters, draws(still), square, square), whole)
        return
    for kernel in forms(name):
        torch.testing.assert_close(changed(still, images, drawn(still), kernel=kernel), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CUTTING)
def test_boxes_lie_in_the_image(name: str) -> None:
    top, left, height, width = np.moveaxis(boxes(augmentation(name), samples=np.arange(5000)), -1, 0)
    assert top.min() >= 0
    assert left.min() >= 0
    assert height.min() >= 1
    assert abs(width).min() >= 1
    assert (top + height).max() <= 30
    assert (left + abs(width)).max() <= 40


@pytest.mark.parametrize("name", CUTTING)
def test_boxes_belong_to_seed_epoch_sample_and_view(name: str) -> None:
    option = augmentation(name)
    whole = boxes(option)
    assert np.array_equal(boxes(option, samples=SAMPLES[[7, 2]], views=1), whole[[7, 2], :1])
    assert not np.array_equal(boxes(option, seed=1), whole)
    assert not np.array_equal(boxes(option, epoch=2), whole)
    assert not np.array_equal(whole[:, 0], whole[:, 1])
