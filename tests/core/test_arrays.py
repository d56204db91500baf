import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simclr.core import arrays
from simclr.core.errors import UserError

SOME = {
    "pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays.save(tmp_path / "new" / "file", SOME)
    found = arrays.load(tmp_path / "new" / "file", SOME, "embed")
    assert found.keys() == SOME.keys()
    for name, array in SOME.items():
        assert found[name].dtype == array.dtype
        assert found[name].tolist() == array.tolist()
    assert arrays.load(tmp_path / "new" / "file", ["turned"], "embed").keys() == {"turned"}


def test_equal_arrays_give_equal_files_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "some").touch()
    arrays.save(tmp_path / "first", SOME)
    arrays.save(tmp_path / "second", dict(reversed(SOME.items())))
    arrays.save(tmp_path / "other", SOME | {"pixels": SOME["pixels"] + 1})
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert first.stat().st_mode == (tmp_path / "some").stat().st_mode


def test_others_read_them_too(tmp_path: Path) -> None:
    arrays.save(tmp_path / "file", SOME)
    assert all(torch.equal(tensor, torch.tensor(SOME[name])) for name, tensor in load_file(tmp_path / "file").items())


def test_a_missing_file_is_named_with_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/file: cannot be read \(.+\); the embed stage writes it$"):
        arrays.load(tmp_path / "file", SOME, "embed")
    with pytest.raises(UserError, match=rf"^{tmp_path}: cannot be read \(.+\); the embed stage writes it$"):
        arrays.load(tmp_path, SOME, "embed")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: cannot be read \(it is no file\); the embed stage writes it$"):
        arrays.load(tmp_path / "pipe", SOME, "embed")


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_damaged_file_is_named_with_the_stage_that_writes_it(kept: int, tmp_path: Path) -> None:
    arrays.save(tmp_path / "file", SOME)
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:kept])
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/file: damaged; the embed stage writes it")):
        arrays.load(tmp_path / "file", SOME, "embed")


def test_a_file_of_other_arrays_is_damaged(tmp_path: Path) -> None:
    arrays.save(tmp_path / "file", SOME)
    with pytest.raises(UserError, match=r"file: damaged; the pretrain stage writes it$"):
        arrays.load(tmp_path / "file", ["pixels", "more"], "pretrain")
