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
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder within a repository whose commit has the files of `CONTENTS`, and one with a line break in its
    name; in the workspace `a` has changed since, and `last` is gone."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repository" / "inner"
    (folder / "below").mkdir(parents=True)
    for name, content in (CONTENTS | {"in\ntwo": b"lines"}).items():
        (folder / name).write_bytes(content)
    run(folder, "git", "init", "--quiet")
    commit(folder, "made")
    (folder / "a").write_bytes(b"changed")
    (folder / "last").unlink()
    monkeypatch.chdir(folder)
    return folder


def test_all_contents_are_those_that_git_shows(folder: Path) -> None:
    asked = ["last", "below", "gone blob 3", *CONTENTS, "in\ntwo", "gone"]
    made = Revision("made", run(folder, "git", "rev-parse", "made").stdout.strip())
    assert made.read_all(asked) == CONTENTS
    assert {path: made.read(path) for path in CONTENTS} == CONTENTS
    assert Revision("gone", "0" * 40).read_all(asked) == {}
    now = {name: content for name, content in CONTENTS.items() if name != "last"} | {"a": b"changed"}
    assert Revision("workspace", "").read_all(asked) == now | {"in\ntwo": b"lines"}
