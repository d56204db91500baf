from pathlib import Path

import pytest
from scripts.review.revision import Revision

from tests.pipeline.test_review import commit, environment, run

CONTENTS = {
    "a": b"first",
    "b c blob 7": b"\nsecond\n",
    "empty": b"",
    "below/\xe9 missing": bytes(range(256)),
    "last": b"x blob 1\n",
    "in\ntwo": b"lines",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder within a repository whose commit has the files of `CONTENTS` and a submodule; in the workspace `a` has
    changed since, and `last` is gone."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repository" / "inner"
    (folder / "below").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    (folder / "own").write_text(str(tmp_path))  # no two commits are the same: what they hold is remembered
    run(folder.parent, "git", "init", "--quiet")
    run(folder.parent, "git", "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},inner/module")
    (folder / "module").mkdir()
    commit(folder.parent, "made")
    (folder / "a").write_bytes(b"changed")
    (folder / "last").unlink()
    monkeypatch.chdir(folder)
    return folder


ASKED = ["last", "below", "gone blob 3", "module", *CONTENTS, "gone"]


def made(folder: Path) -> Revision:
    return Revision("made", run(folder, "git", "rev-parse", "made").stdout.strip())


def test_all_contents_are_those_that_git_shows(folder: Path) -> None:
    assert made(folder).read_all(ASKED) == CONTENTS
    assert {path: made(folder).read(path) for path in CONTENTS} == CONTENTS
    assert Revision("gone", "0" * 40).read_all(ASKED) == {}
    now = {name: content for name, content in CONTENTS.items() if name != "last"} | {"a": b"changed"}
    assert Revision("workspace", "").read_all(ASKED) == now


@pytest.mark.parametrize("left", [0, 20, 200])
def test_a_damaged_object_costs_its_own_file_alone(left: int, folder: Path) -> None:
    digest = run(folder, "git", "rev-parse", "made:./below/\xe9 missing").stdout.strip()
    file = folder.parent / ".git/objects" / digest[:2] / digest[2:]
    file.chmod(0o644)
    assert file.stat().st_size > left
    file.write_bytes(file.read_bytes()[:left])
    others = {path: content for path, content in CONTENTS.items() if path != "below/\xe9 missing"}
    assert made(folder).read_all(ASKED) == others
