from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from simclr.core.errors import UserError
from simclr.distributed.session import Session
from simclr.features import encode, feature_file
from simclr.features.encode import Features
from tests.helpers.ranks import ALONE, on_ranks


def splits(seed: int = 0) -> dict[str, Features]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Features(
            torch.randn(3, count, generator=generator).T, torch.randint(9, (count,), generator=generator), count
        )  # T: not contiguous
        for name, count in (("train", 5), ("test", 2))
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    feature_file.save(tmp_path / "new" / "features", splits())
    for name, expected in splits().items():
        found = feature_file.load(tmp_path / "new" / "features", name, ALONE)
        assert found.h.dtype == torch.float32
        assert found.labels.dtype == torch.int64
        assert torch.equal(found.h, expected.h)
        assert torch.equal(found.labels, expected.labels)


def on_rank(session: Session, folder: Path) -> tuple[tuple[Tensor, Tensor, int], Features]:
    own = feature_file.load(folder, "train", session)
    return (own.h, own.labels, own.count), encode.gather_to_main({"train": own}, session)["train"]


def test_each_rank_loads_its_share_and_the_leader_has_them_whole_again(tmp_path: Path) -> None:
    feature_file.save(tmp_path, splits())
    expected = splits()["train"]
    by_rank = on_ranks(4, on_rank, tmp_path)  # of 5 rows: two, two, one and none
    assert [len(own[0]) for own, _ in by_rank] == [2, 2, 1, 0]
    assert torch.equal(torch.cat([own[0] for own, _ in by_rank]), expected.h)
    assert torch.equal(torch.cat([own[1] for own, _ in by_rank]), expected.labels)
    assert all(own[2] == 5 for own, _ in by_rank)
    whole = by_rank[0][1]
    assert torch.equal(whole.h, expected.h)
    assert torch.equal(whole.labels, expected.labels)


def test_equal_features_give_equal_files_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "some").touch()
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        feature_file.save(tmp_path / name, splits(seed))
    first, second, other = (tmp_path / name / "train.safetensors" for name in ("first", "second", "other"))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert first.stat().st_mode == (tmp_path / "some").stat().st_mode


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    feature_file.save(folder, {**splits(), "unlabelled": splits()["train"]})
    feature_file.save(folder, splits(1))
    assert sorted(path.name for path in folder.iterdir()) == ["test.safetensors", "train.safetensors"]
    assert torch.equal(feature_file.load(folder, "train", ALONE).h, splits(1)["train"].h)
    assert list(tmp_path.iterdir()) == [folder]


def test_after_a_failure_the_old_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    feature_file.save(folder, splits())
    broken = Features(torch.zeros(2, 2).to_sparse(), torch.zeros(2, dtype=torch.int64), 2)
    with pytest.raises((ValueError, RuntimeError)):
        feature_file.save(folder, {"train": splits(1)["train"], "test": broken})
    assert torch.equal(feature_file.load(folder, "train", ALONE).h, splits()["train"].h)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("there", [True, False], ids=["no such split", "no folder"])
def test_a_missing_file_is_one_line_that_says_who_writes_it(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "features"
    if there:
        feature_file.save(folder, splits())
    with pytest.raises(UserError) as caught:
        feature_file.load(folder, "val", ALONE)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'val.safetensors'}: cannot be read (")
    assert message.endswith("; the embed stage writes it")
    assert "\n" not in message


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_damaged_file_is_one_line(tmp_path: Path, length: int) -> None:
    feature_file.save(tmp_path, splits())
    path = tmp_path / "train.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"train\.safetensors: damaged; the embed stage writes it$"):
        feature_file.load(tmp_path, "train", ALONE)


def test_a_foreign_file_is_damaged_too(tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(2)}, tmp_path / "train.safetensors")
    with pytest.raises(UserError, match=r"train\.safetensors: damaged"):
        feature_file.load(tmp_path, "train", ALONE)
