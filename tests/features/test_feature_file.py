"""The features of a split in a file, and the share that each rank reads of it."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialise

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
INPUTS = {"data": "d", "encoder": "e"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    feature_file.save(tmp_path / "features", {"val": Features(h(), labels(), COUNT)}, INPUTS)
    return tmp_path / "features"


def h() -> torch.Tensor:
    return torch.arange(3.0 * COUNT).reshape(COUNT, 3)


def labels() -> torch.Tensor:
    return torch.arange(COUNT)


def test_one_process_reads_all(folder: Path) -> None:
    found = feature_file.load(folder, "val", SPLIT, INPUTS, ALONE)
    assert (found.h.dtype, found.count) == (torch.float32, COUNT)
    assert torch.equal(found.h, h())
    assert torch.equal(found.labels, labels())


def loaded(session: Session, folder: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    found = feature_file.load(folder, "val", SPLIT, INPUTS, session)
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
        feature_file.load(folder, "test", SPLIT, INPUTS, ALONE)
    file = folder / "val.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"val\.safetensors: damaged; the embed stage writes it"):
        feature_file.load(folder, "val", SPLIT, INPUTS, ALONE)


@pytest.mark.parametrize("inputs", [{"data": "other"}, {"encoder": "other"}])
def test_features_of_other_images_or_of_another_encoder_are_told(inputs: dict[str, str], folder: Path) -> None:
    """Whose labels and dimension may be the same."""
    with pytest.raises(
        UserError, match=r"val\.safetensors: not of these images and this encoder; run the embed stage$"
    ):
        feature_file.load(folder, "val", SPLIT, INPUTS | inputs, ALONE)


def test_features_of_another_split_are_told(folder: Path) -> None:
    """Which may have as many images of each class."""
    (folder / "test.safetensors").write_bytes((folder / "val.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"test\.safetensors: not of these images and this encoder"):
        feature_file.load(folder, "test", SPLIT, INPUTS, ALONE)


def test_features_by_an_earlier_revision_are_told(folder: Path) -> None:
    """Which had no digests."""
    (folder / "val.safetensors").write_bytes(serialise({"h": h(), "labels": labels()}))
    with pytest.raises(UserError, match="not of these images and this encoder"):
        feature_file.load(folder, "val", SPLIT, INPUTS, ALONE)


@pytest.mark.parametrize(
    "damage",
    [
        {"h": h()[1:], "labels": labels()[1:]},
        {"h": h()[1:]},
        {"h": h().flatten()},
        {"h": h().double()},
        {"h": h() > 1},
        {"labels": labels().int()},
        {"labels": labels().float()},
        {"labels": labels().flip(0)},
        {"labels": labels()[:, None]},
    ],
)
def test_what_save_would_not_have_written_is_told(damage: dict[str, torch.Tensor], folder: Path) -> None:
    file = folder / "val.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    file.write_bytes(serialise({"h": h(), "labels": labels(), **damage}, metadata))
    with pytest.raises(UserError, match=r"val\.safetensors: damaged; the embed stage writes it$"):
        feature_file.load(folder, "val", SPLIT, INPUTS, ALONE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])  # whose square is no float32
def test_features_that_are_not_finite_are_told(value: float, tmp_path: Path) -> None:
    damaged = Features(h().index_fill(0, torch.tensor(2), value), labels(), COUNT)
    feature_file.save(tmp_path / "features", {"val": damaged}, INPUTS)
    with pytest.raises(
        UserError, match=r"val\.safetensors: not finite, or too large for float32; run the embed stage$"
    ):
        feature_file.load(tmp_path / "features", "val", SPLIT, INPUTS, ALONE)
