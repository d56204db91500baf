import os
from pathlib import Path

import pytest

from simclr.core import atomic
from simclr.core.errors import UserError


def test_a_file_or_folder_appears_at_the_end_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic.replacing(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with atomic.replacing(path) as partial:
        partial.mkdir()
        (partial / "inner").write_text("two")
    assert (path / "inner").read_text() == "two"
    with atomic.replacing(path) as partial:
        partial.mkdir()
    assert list(path.iterdir()) == []
    assert os.listdir(path.parent) == ["file"]


def test_after_a_failure_everything_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail_half_way() -> None:
        with atomic.replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic.replacing(path) as partial:
        partial.mkdir()
        name = partial.name
    stale = tmp_path / name
    stale.mkdir()
    (stale / "old").write_text("")
    with atomic.replacing(path) as partial:
        assert not partial.exists()
        partial.mkdir()
    assert list(path.iterdir()) == []


def test_an_old_folder_is_whole_until_the_new_one_stands_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    seen = []
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: seen.append((path / "file").read_text()))
    with atomic.replacing(path) as partial:
        partial.mkdir()
        (partial / "file").write_text("new")
    assert seen == ["new"]  # what a kill in the middle of the removal would leave


def test_an_old_folder_comes_back_where_the_new_one_fails_to(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")
    with pytest.raises(UserError, match="folder: cannot be written"), atomic.replacing(path):
        pass  # nothing was made
    assert (path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]

    path.rename(tmp_path / ".folder.old")  # a kill between the two renamings
    with pytest.raises(RuntimeError), atomic.replacing(path):
        raise RuntimeError
    assert (path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_a_folder_takes_the_place_of_anything(kind: str, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    match kind:
        case "file":
            path.touch()
        case "link":
            path.symlink_to(elsewhere)
        case "broken link":
            path.symlink_to("nowhere")
    with atomic.replacing(path) as partial:
        partial.mkdir()
    assert path.is_dir()
    assert not path.is_symlink()
    assert (elsewhere / "kept").exists()
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "folder"]


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/below: cannot be written"):
        atomic.write_bytes(tmp_path / "file" / "below", b"")


def test_what_a_file_is_made_from_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UserError, match=f"^{missing}: No such file or directory$"), atomic.replacing(tmp_path / "out"):
        missing.read_bytes()
    with pytest.raises(UserError, match="out: cannot be written"), atomic.replacing(tmp_path / "out") as folder:
        (folder / "file").write_text("")
    assert os.listdir(tmp_path) == []
