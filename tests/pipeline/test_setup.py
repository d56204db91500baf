"""What scripts/setup refuses before it installs or removes anything."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
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


def setup(clone: Path, *arguments: str, python: str = "no-python") -> tuple[int, str]:
    """Its exit code and its message; by default no Python is found, so that it ends before it would install one."""
    variables = os.environ | {"PYTHON": python}
    done = subprocess.run(
        [str(clone / "scripts/setup"), *arguments], env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


GOES_ON = (1, "setup: PYTHON=no-python: Python 3.11 to 3.14 is needed, that is none\n")


def test_it_works_in_its_own_clone_from_any_folder(clone: Path, tmp_path: Path) -> None:
    """Also where CDPATH has another one, and by a path that is relative, or a link."""
    other = tmp_path / "other"
    shutil.copytree(clone, other)
    variables = os.environ | {"PYTHON": "no-python", "CDPATH": str(other)}
    link = tmp_path / "link"
    link.symlink_to(clone / "scripts/setup")
    for folder, command in ((clone, "scripts/setup"), (clone / "scripts", "../scripts/setup"), (tmp_path, str(link))):
        done = subprocess.run([command], cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", GOES_ON[1])


@pytest.mark.parametrize("word", ["--help", "benhc", "bench cluster"])
def test_an_unknown_word(word: str, clone: Path) -> None:
    assert setup(clone, *word.split()) == (
        1,
        f"setup: {word} is not allowed; it takes bench, cluster, emulator or nothing\n",
    )


def environment(folder: Path, *files: str, made_for: Path | None = None) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()
    if made_for is not None:
        (folder / "made-for").write_text(f"{made_for}\n")
    return folder


def refused(clone: Path, folder: Path) -> bool:
    code, said = setup(clone)
    assert (folder / "pyvenv.cfg").exists()
    return (code, said.count("\n")) == (1, 1) and said.startswith(f"setup: .venv ({folder}) was not made by this clone")


def test_an_environment_made_by_hand_stays(clone: Path) -> None:
    assert refused(clone, environment(clone / ".venv", "pyvenv.cfg"))


@pytest.mark.parametrize("marker", ["other versions", "the same versions"])
@pytest.mark.parametrize("made_for", [None, Path("/another/clone")])
def test_an_environment_of_another_clone_behind_a_link_stays(
    made_for: Path | None, marker: str, clone: Path, tmp_path: Path
) -> None:
    folder = environment(tmp_path / "other/.venv", "pyvenv.cfg", made_for=made_for)
    (folder / "installed-from").write_text(versions(clone) if marker == "the same versions" else marker)
    (clone / ".venv").symlink_to(folder)
    assert refused(clone, folder)


def versions(clone: Path) -> str:
    """What stands in the marker of an environment that is up to date."""
    parts = [(clone / name).read_bytes() for name in ("requirements.lock", "pyproject.toml", "scripts/setup")]
    return hashlib.sha256(b"".join(parts)).hexdigest() + "\n"


def whole(clone: Path) -> Path:
    """An environment that is up to date, of this Python."""
    folder = environment(clone / ".venv", made_for=clone)
    (folder / "installed-from").write_text(versions(clone))
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(sys.executable)
    return folder


@pytest.mark.parametrize("python", ["", sys.executable])
def test_one_that_is_up_to_date_is_kept_by_whatever_path_the_clone_is_reached(
    python: str, clone: Path, tmp_path: Path
) -> None:
    whole(clone)
    (tmp_path / "link").symlink_to(clone)
    assert setup(clone, python=python) == (0, "")
    assert setup(tmp_path / "link", python=python) == (0, "")


def test_one_of_another_python_than_the_one_asked_for_is_not_used(clone: Path) -> None:
    whole(clone)
    code, said = setup(clone)
    version = sys.version.split()[0]
    assert (code, said) == (
        1,
        f"setup: PYTHON=no-python is none, .venv is made with Python {version}; unset PYTHON, or remove .venv to have "
        "it made anew\n",
    )


def test_one_whose_python_is_gone_is_replaced(clone: Path) -> None:
    folder = whole(clone)
    (folder / "bin/python").unlink()
    (folder / "bin/python").symlink_to("/nonexistent/python3")
    assert setup(clone) == GOES_ON


@pytest.mark.parametrize("obstacle", ["a file", "a link to itself", "a link to a file"])
def test_what_is_no_folder_is_named(obstacle: str, clone: Path, tmp_path: Path) -> None:
    file = clone / ".venv" if obstacle == "a file" else tmp_path / "file"
    file.touch()
    if obstacle != "a file":
        (clone / ".venv").symlink_to(clone / ".venv" if obstacle == "a link to itself" else file)
    code, said = setup(clone, python=sys.executable)
    assert code == 1
    assert said.splitlines()[-1].startswith(
        f"setup: .venv ({file.resolve() if obstacle == 'a link to a file' else clone / '.venv'})"
    )
    assert said.endswith("is not a folder that can be written to; rename or remove it, or the link\n")
    assert file.exists()


def test_two_at_once_take_turns(clone: Path) -> None:
    """The second finds what the first has made."""
    lock = os.open(clone, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        variables = os.environ | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
        second = subprocess.Popen([str(clone / "scripts/setup")], env=variables, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert second.stderr.readline() == "setup: waiting for another setup of this clone\n"
        (clone / "requirements.lock").replace(clone / "x")  # as Git does
        (clone / "x").replace(clone / "requirements.lock")
        whole(clone)
    finally:
        os.close(lock)
    assert (second.communicate()[1], second.returncode) == ("", 0)


def test_one_that_moved_with_its_clone_is_refused(clone: Path, tmp_path: Path) -> None:
    """Its programs name the old path, where another clone, or the same one outside of a container, may use it."""
    folder = environment(clone / ".venv", "pyvenv.cfg", made_for=clone)
    (folder / "installed-from").write_text(versions(clone))
    moved = clone.rename(tmp_path / "moved")
    code, said = setup(moved)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(
        f"setup: .venv ({moved}/.venv) was not made by this clone, but for {clone}; rename or remove"
    )
    assert (moved / ".venv/pyvenv.cfg").exists()


def test_one_of_an_earlier_revision_is_replaced(clone: Path) -> None:
    """Which did not mark it."""
    environment(clone / ".venv", "installed-from")
    assert setup(clone) == GOES_ON


@pytest.mark.parametrize("kind", ["none", "empty", "of other versions", "begun"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_its_own_is_replaced(kind: str, linked: bool, clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "larger-disk" if linked else clone / ".venv"
    if linked:
        (clone / ".venv").symlink_to(folder)
    if kind == "empty":
        environment(folder)
    elif kind != "none":
        marker = ["installed-from"] if kind == "of other versions" else []
        environment(folder, "pyvenv.cfg", *marker, made_for=clone)
    assert setup(clone) == GOES_ON


def test_an_installation_that_broke_off_is_made_anew(clone: Path) -> None:
    """pip finds no packages here."""
    folder = environment(clone / ".venv", "installed-from", "old")
    command = [str(clone / "scripts/setup")]
    changes = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for _ in range(2):
        done = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "setup: installing the versions of requirements.lock" in done.stderr
        assert "No matching distribution found" in done.stderr
        assert (folder / "made-for").read_text() == f"{clone}\n"
        assert (folder / "bin/python").exists()
        assert not (folder / "installed-from").exists()
        assert not (folder / "old").exists()
        (folder / "old").touch()
