"""The features of a split in a file, and the share that each rank reads of it."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from simclr.core.errors import UserError
from simclr.data.sampling import Indices
from simclr.distributed.session import Session
from simclr.features import feature_file
from simclr.features.encode import Features
from tests.helpers.ranks import ALONE, on_ranks

COUNT = 7


def split(labels: Indices) -> Any:
    """What `load` asks of the images."""
    images = mock.MagicMock(labels=labels, spec_set=["labels", "__len__"])
    images.__len__.return_value = len(labels)
    return images


SPLIT = split(np.arange(COUNT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    feature_file.save(tmp_path / "features", {"val": Features(h(), labels(), COUNT)})
    return tmp_path / "features"


def h() -> torch.Tensor:
    return torch.arange(3.0 * COUNT).reshape(COUNT, 3)


def labels() -> torch.Tensor:
    return torch.arange(COUNT)


def test_one_process_reads_all(folder: Path) -> None:
    found = feature_file.load(folder, "val", SPLIT, 3, ALONE)
    assert (found.h.dtype, found.count) == (torch.float32, COUNT)
    assert torch.equal(found.h, h())
    assert torch.equal(found.labels, labels())


def loaded(session: Session, folder: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    found = feature_file.load(folder, "val", SPLIT, 3, session)
    return found.h, found.labels, found.count


@pytest.mark.parametrize("world", [2, 3])
def test_each_rank_reads_its_share_alone(world: int, folder: Path) -> None:
    shares = on_ranks(world, loaded, folder)
    assert [count for *_, count in shares] == [COUNT] * world
    assert all(len(own) < COUNT for own, *_ in shares)
    assert torch.equal(torch.cat([own for own, *_ in shares]), h())
    assert torch.equal(torch.cat([own for _, own, _ in shares]), labels())


def test_a_file_that_is_missing_or_cut_is_told(folder: Path) -> None:
    with pytest.raises(UserError, match=r"test\.safetensors: cannot be read \(.*\); the embed stage writes it"):
        feature_file.load(folder, "test", SPLIT, 3, ALONE)
    file = folder / "val.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"val\.safetensors: damaged; the embed stage writes it"):
        feature_file.load(folder, "val", SPLIT, 3, ALONE)


@pytest.mark.parametrize(
    ("found", "dimension"), [(np.arange(COUNT + 1), 3), (np.arange(COUNT), 4), (np.arange(COUNT)[::-1], 3)]
)
def test_features_of_other_images_or_of_another_encoder_are_told(found: Indices, dimension: int, folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"val\.safetensors: not of these images and this encoder; run the embed stage$"
    ):
        feature_file.load(folder, "val", split(found), dimension, ALONE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])  # whose square is no float32
def test_features_that_are_not_finite_are_told(value: float, tmp_path: Path) -> None:
    feature_file.save(
        tmp_path / "features", {"val": Features(h().index_fill(0, torch.tensor(2), value), labels(), COUNT)}
    )
    with pytest.raises(
        UserError, match=r"val\.safetensors: not finite, or too large for float32; run the embed stage$"
    ):
        feature_file.load(tmp_path / "features", "val", SPLIT, 3, ALONE)
