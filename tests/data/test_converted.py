import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from simclr.core.errors import UserError
from simclr.data import converted
from simclr.data.converted import DatasetInfo
from tests.helpers.betons import noise, stored

DESCRIPTION = DatasetInfo(
    ["cat", "Größe"], [0.5, 0.25, 1 / 3], [0.1, 0.2, 2 / 3], dict.fromkeys(("train", "val"), "0f" * 32)
)


def write(folder: Path, *splits: str) -> None:
    for seed, split in enumerate(splits):
        stored(converted.split_path(folder, split), noise(3, 4, seed), np.arange(3) % 2)


def test_a_description_comes_back(tmp_path: Path) -> None:
    converted.save_info(tmp_path, DESCRIPTION)
    assert converted.load_info(tmp_path) == DESCRIPTION


def test_a_missing_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read \(No such file.*; the convert stage writes it"):
        converted.load_info(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"classes": ["cat"], "mean',
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"[1, 2, 3]",
        b'"text"',
        json.dumps({"classes": ["cat"], "mean": [0, 0, 0]}).encode(),
        json.dumps({"classes": [], "mean": [], "std": [], "size": 3}).encode(),
        *(
            json.dumps(dataclasses.asdict(DESCRIPTION) | {"classes": classes}).encode()
            for classes in (None, [0, 1], [None], [["cat"]])
        ),
        *(
            json.dumps(dataclasses.asdict(DESCRIPTION) | {key: value}).encode()
            for key in ("mean", "std")
            for value in (
                None,
                [0.1],
                ["a", "b", "c"],
                [0.1, 0.2, None],
                [0.1, 0.2, float("nan")],
                "0.1",
                [0.1, 0.2, 10**400],
            )
        ),
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"std": [0.1, 0.0, 0.1]}).encode(),
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"std": [0.1, 1e-50, 0.1]}).encode(),
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"std": [0.1, 1e-20, 0.1]}).encode(),
        json.dumps(dataclasses.asdict(DESCRIPTION) | {"mean": [0.1, True, 0.1]}).encode(),
        *(
            json.dumps(dataclasses.asdict(DESCRIPTION) | {"digests": digests}).encode()
            for digests in ([], {"train": 1})
        ),
        b"[" * 100_000,
    ],
)
def test_a_damaged_description(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json: damaged; the convert stage writes it"):
        converted.load_info(tmp_path)


def test_splits_are_found_by_name(tmp_path: Path) -> None:
    write(tmp_path, "train", "val")
    converted.save_info(tmp_path, DESCRIPTION)
    assert converted.has_split(tmp_path, "val")
    assert not converted.has_split(tmp_path, "test")
    for seed, split in enumerate(("train", "val")):
        file = converted.open_split(tmp_path, split)
        assert file.path == tmp_path / f"{split}.beton"
        assert file.data[file.starts[0] : file.starts[0] + 48].tobytes() == noise(3, 4, seed)[0].tobytes()


def test_a_missing_split_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.beton: this data set has no train split; there are: none"):
        converted.open_split(tmp_path / "nowhere", "train")
    write(tmp_path, "val", "test", "train")
    converted.save_info(tmp_path, DESCRIPTION)
    with pytest.raises(
        UserError, match=r"unlabelled\.beton: this .* no unlabelled split; there are: test, train, val$"
    ):
        converted.open_split(tmp_path, "unlabelled")


def test_a_damaged_split_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train")
    path = converted.split_path(tmp_path, "train")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train\.beton: truncated"):
        converted.open_split(tmp_path, "train")


def test_a_split_of_another_data_set_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train")
    converted.save_info(tmp_path, dataclasses.replace(DESCRIPTION, classes=["cat"]))
    with pytest.raises(
        UserError, match=r"train\.beton: its labels are not those of .*dataset\.json; run convert again"
    ):
        converted.open_split(tmp_path, "train")


def test_a_split_without_a_digest_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train", "val")
    converted.save_info(tmp_path, dataclasses.replace(DESCRIPTION, digests={"train": "0f" * 32}))
    converted.open_split(tmp_path, "train")
    for split in ("val", converted.ALL):
        with pytest.raises(UserError, match=r"dataset\.json: has no digest of the val split; run convert again$"):
            converted.open_split(tmp_path, split)


def test_all_is_train_and_val(tmp_path: Path) -> None:
    write(tmp_path, "train")
    converted.save_info(tmp_path, DESCRIPTION)
    assert not converted.has_split(tmp_path, converted.ALL)
    write(tmp_path, "train", "val")
    assert converted.has_split(tmp_path, converted.ALL)
    file = converted.open_split(tmp_path, converted.ALL)
    assert [file.data[start : start + 48].tobytes() for start in file.starts] == [
        image.tobytes() for seed in range(2) for image in noise(3, 4, seed)
    ]
