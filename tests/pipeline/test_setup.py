"""What scripts/setup refuses before it installs or removes anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the script reads."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/setup", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def setup(clone: Path, *arguments: str) -> tuple[int, str]:
    """Its exit code and its message; no Python is found, so that it ends before it would install one's packages."""
    environment = os.environ | {"PYTHON": "no-python"}
    done = subprocess.run(
        [str(clone / "scripts/setup"), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


GOES_ON = (1, "setup: PYTHON=no-python: Python 3.11 to 3.14 is needed, that is none\n")


@pytest.mark.parametrize("word", ["--help", "benhc", "bench cluster"])
def test_an_unknown_word(word: str, clone: Path) -> None:
    assert setup(clone, *word.split()) == (
        1,
        f"setup: {word} is not allowed; it takes bench, cluster, emulator or nothing\n",
    )


@pytest.mark.parametrize("kind", ["made by hand", "of another clone"])
def test_an_environment_that_it_has_not_made_stays(kind: str, clone: Path, tmp_path: Path) -> None:
    folder = clone / ".venv" if kind == "made by hand" else tmp_path / "other/.venv"
    folder.mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    if kind == "of another clone":
        (clone / ".venv").symlink_to(folder)
        (folder / "installed-from").write_text("other versions\n")
    code, said = setup(clone)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"setup: .venv ({folder}) was not made by this clone")
    assert (folder / "pyvenv.cfg").exists()


@pytest.mark.parametrize(
    "kind", ["none", "of other versions", "behind a link", "a link to an empty folder", "a link to nothing", "begun"]
)
def test_what_is_its_own_it_replaces(kind: str, clone: Path, tmp_path: Path) -> None:
    folder = clone / ".venv"
    if kind == "a link to an empty folder":
        (tmp_path / "larger-disk").mkdir()
        folder.symlink_to(tmp_path / "larger-disk")
    elif kind == "behind a link":
        (tmp_path / "disk").mkdir()
        folder.symlink_to(tmp_path / "disk")
        (folder / "installed-from").touch()
        (folder / "made-for").write_text(f"{clone}\n")
    elif kind == "a link to nothing":
        folder.symlink_to(tmp_path / "larger-disk")
    elif kind != "none":
        folder.mkdir()
        (folder / ("pyvenv.cfg" if kind == "begun" else "installed-from")).touch()
    if kind == "begun":
        (clone / ".dvc/tmp").mkdir(parents=True)
        (clone / ".dvc/tmp/venv").write_text(f"{folder}\n")
    assert setup(clone) == GOES_ON
