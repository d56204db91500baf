"""Views made by a list of augmentations, against torchvision's functions, sample by sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simclr.augment import Values
from simclr.core import params
from simclr.core.errors import UserError
from simclr.core.randomness import permutation
from simclr.device import transfer
from simclr.views import compose
from simclr.views.compose import ViewParams, Views, views_by_size
from simclr.views.stream import ViewStream
from tests.helpers.augmentations import CPU, GPU, ORDER, augmentation, pictures, views
from tests.helpers.betons import noise, stored
from tests.helpers.recipes import SHIPPED

SIZE = 16
COUNT = 64
PIXELS = ORDER[2:]


def drawn(made: Views, count: int = COUNT) -> dict[str, Values]:
    sizes = np.full(count, 32), np.full(count, 40)
    return made.draw(np.arange(count), 1, *sizes)[1]


JUMPS = {"solarize"}
"""Augmentations with a threshold: a rounding error puts a value at it on the other side, so that a few may be off."""


def augmented(crops: Tensor, made: Views, way: torch.device = CPU) -> Tensor:
    """As `augment` does it on a CPU or, by the same operations, on a GPU."""
    rows = transfer.pack(made.rows(drawn(made, len(crops) // 2), way), CPU)
    if way == CPU:
        return made.augment(crops, rows)
    named = [(option, [name for name in rows if name.startswith(f"{option.name}.")]) for option in made.augmentations]
    return compose._augment_batch(crops, rows, [(option, names) for option, names in named if names])


@pytest.mark.parametrize("way", [CPU, GPU])
@pytest.mark.parametrize("names", [ORDER, ["crop", "solarize", "blur", "grayscale", "jitter"], ["blur"]])
def test_views_are_those_of_torchvision_in_the_order_of_the_list(names: list[str], way: torch.device) -> None:
    made = views(SIZE, names, jitter__hue=0.1)
    crops = torch.rand(2 * COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = augmented(crops, made, way)
    values = drawn(made)
    for view in range(2):
        for sample in range(COUNT):
            row = view * COUNT + sample
            expected = crops[row]
            for option in made.augmentations:
                if option.name in values:
                    own = {name: array[sample, view] for name, array in values[option.name].items()}
                    expected = option.module.reference(expected, option.parameters, own)
            off = (found[row] - expected).abs() > 2e-5
            assert off.float().mean() < (0.01 if JUMPS & set(names) else 1e-9)


@pytest.mark.parametrize("size", [1, 8, 33, 96])
@pytest.mark.parametrize("without", ["", *PIXELS])
def test_a_gpu_makes_the_views_of_a_cpu(size: int, without: str) -> None:
    made = views(size, [name for name in ORDER if name != without])
    crops = pictures(120, size)
    off = (augmented(crops, made, GPU) - augmented(crops, made)).abs() > 5e-6
    assert off.float().mean() < (1e-4 if JUMPS & set(ORDER) - {without} else 1e-9)


@pytest.mark.parametrize("way", [CPU, GPU])
@pytest.mark.parametrize("names", [PIXELS, ["blur"]])
def test_the_crops_stay_as_they_are(names: list[str], way: torch.device) -> None:
    crops = torch.rand(16, 3, SIZE, SIZE)
    before = crops.clone()
    assert not torch.equal(augmented(crops, views(SIZE, names), way), crops)
    assert torch.equal(crops, before)


def test_what_is_not_listed_costs_nothing() -> None:
    made = views(SIZE, ["crop", "flip"])
    for way in (CPU, GPU):
        assert made.rows(drawn(made), way) == {}
    crops = torch.rand(8, 3, SIZE, SIZE)
    assert made.augment(crops, {}) is crops


def test_without_a_crop_the_central_square_is_shown() -> None:
    boxes, _ = views(SIZE, ["jitter"]).draw(np.arange(2), 1, np.array([32, 40]), np.array([40, 32]))
    assert boxes.tolist() == [[[0, 4, 32, 32]] * 2, [[4, 0, 32, 32]] * 2]


def test_a_list_of_other_augmentations_leaves_the_draws_of_the_others() -> None:
    whole, few = drawn(views(SIZE)), drawn(views(SIZE, ["solarize", "jitter"]))
    for name in few:
        for key, array in few[name].items():
            assert np.array_equal(array, whole[name][key])


def test_views_are_independent() -> None:
    boxes, _ = views(SIZE, flip__probability=0.5).draw(np.arange(20_000), 1, np.full(20_000, 32), np.full(20_000, 40))
    flip = boxes[..., 3] < 0
    assert flip.mean() == pytest.approx(0.5, abs=0.01)
    assert (flip[:, 0] != flip[:, 1]).mean() == pytest.approx(0.5, abs=0.015)


def test_by_view_is_the_order_of_the_crops() -> None:
    values = np.array([[[10, 11], [20, 21]], [[30, 31], [40, 41]], [[50, 51], [60, 61]]])  # 3 samples, 2 views
    found = compose.by_view(values)
    assert found.tolist() == [[10, 11], [30, 31], [50, 51], [20, 21], [40, 41], [60, 61]]
    assert compose.by_view(values[..., 0]).tolist() == [10, 30, 50, 20, 40, 60]


def test_what_cuts_comes_first() -> None:
    compose.check_order(map(augmentation, ORDER), "x")
    with pytest.raises(UserError, match=r"^x: pretrain.views.augmentations: flip must come before jitter, because"):
        compose.check_order(map(augmentation, ["crop", "jitter", "flip"]), "x")


def test_small_views_are_more_views_from_the_same_images(tmp_path: Path) -> None:
    """Those of full size stay as they are; a small one is what its number draws, with a crop of its own scale."""
    file = stored(tmp_path / "x.beton", noise(5, 20, seed=0), np.zeros(5, np.int64))
    values = SHIPPED["pretrain"]["views"] | {"resolution": 12}
    chosen = [augmentation("crop", scale=[0.5, 1.0]), augmentation("jitter")]

    def images(small: dict[str, Any]) -> tuple[Tensor, ...]:
        given = params.check(values | {"small": values["small"] | small}, ViewParams, "views", "test")
        stream = ViewStream(file, views_by_size(given, chosen, seed=3), CPU)
        batch = stream.batch(stream.load(np.arange(5), epoch=2), 5)
        assert batch.views * 5 == sum(map(len, batch.images)) == len(batch.keys) == len(batch.keys.unique())
        return batch.images

    (whole,) = images({"count": 0})
    both = images({"count": 3, "resolution": 7, "scale": [0.1, 0.2]})
    assert torch.equal(both[0], whole)
    alone = Views([augmentation("crop", scale=[0.1, 0.2]), chosen[1]], 5, 7, seed=3)
    stream = ViewStream(file, (alone,), CPU)
    expected = stream.batch(stream.load(np.arange(5), epoch=2), 5).images[0]
    assert torch.equal(both[1], expected[2 * 5 :])


def test_the_views_to_be_shown_are_those_of_the_first_epoch(tmp_path: Path) -> None:
    file = stored(tmp_path / "x.beton", noise(5, 20, seed=0), np.zeros(5, np.int64))
    small = {"count": 4, "resolution": 7, "scale": [0.1, 0.2]}
    values = SHIPPED["pretrain"]["views"] | {"resolution": 12, "count": 3, "small": small}
    given = params.check(values, ViewParams, "views", "test")
    stream = ViewStream(file, views_by_size(given, [augmentation("crop"), augmentation("jitter")], seed=3), CPU)
    shown = permutation(5, 8)
    expected = stream.batch(stream.load(shown, epoch=1), 5).images
    for images, theirs, count in zip(stream.first_views(8), expected, (3, 4), strict=True):
        assert images.shape == (5, count, *theirs.shape[2:], 3)
        for view in range(count):
            for row in range(5):
                pixels = (255 * theirs[5 * view + row]).round().byte().permute(1, 2, 0).numpy()
                assert (images[row, view] == pixels).all()
