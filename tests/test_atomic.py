import os
from pathlib import Path

import pytest

from simclr import atomic
from simclr.failure import UserError


def test_a_file_or_folder_appears_at_the_end_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic.appearing(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with atomic.appearing(path) as partial:
        partial.mkdir()
        (partial / "inner").write_text("two")
    assert (path / "inner").read_text() == "two"
    with atomic.appearing(path) as partial:
        partial.mkdir()
    assert list(path.iterdir()) == []
    assert os.listdir(path.parent) == ["file"]


def test_after_a_failure_everything_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail_half_way() -> None:
        with atomic.appearing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic.appearing(path) as partial:
        partial.mkdir()
        name = partial.name
    stale = tmp_path / name
    stale.mkdir()
    (stale / "old").write_text("")
    with atomic.appearing(path) as partial:
        assert not partial.exists()
        partial.mkdir()
    assert list(path.iterdir()) == []


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/below: cannot be written"):
        atomic.write_bytes(tmp_path / "file" / "below", b"")
