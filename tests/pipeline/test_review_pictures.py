"""Pictures of two commits side by side in a comment, by their addresses."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.pipeline.test_judgement import review  # noqa: F401 (a fixture)
from tests.pipeline.test_review import commit, run

GITHUB = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "someone/digits"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the commit `base`, and below it a project in a folder of its own."""
    folder = tmp_path / "repository"
    (folder / "project/reports/draw").mkdir(parents=True)
    run(folder, "git", "init", "--quiet")
    for name in ("map", "same", "gone"):
        (folder / f"project/reports/draw/{name}.png").write_text(name)
    commit(folder, "base")
    monkeypatch.chdir(folder / "project")
    return folder / "project"


def shown(review: ModuleType, environment: dict[str, str] = GITHUB) -> str:  # noqa: F811
    import review.pictures

    text: str = review.pictures.side_by_side("base", environment)
    return text


def sha(folder: Path, revision: str) -> str:
    return run(folder, "git", "rev-parse", revision).stdout.strip()


def test_what_differs_is_shown_at_both_commits(repository: Path, review: ModuleType) -> None:  # noqa: F811
    (repository / "reports/draw/map.png").write_text("other")
    (repository / "reports/draw/a (new) |<b>.png").write_text("new")
    (repository / "reports/draw/gone.png").unlink()
    (repository / "reports/draw/loss.csv").write_text("no picture")
    commit(repository, "now")
    base, now = (f"https://github.com/someone/digits/blob/{sha(repository, tag)}" for tag in ("base", "now"))
    text = shown(review)
    assert "3 pictures side by side" in text
    draw = "project/reports/draw"
    assert f"| `draw/map.png` | ![](<{base}/{draw}/map.png?raw=true>) | ![](<{now}/{draw}/map.png?raw=true>) |" in text
    assert f"| `draw/gone.png` | ![](<{base}/{draw}/gone.png?raw=true>) | - |" in text
    assert f"| - | ![](<{now}/{draw}/a%20%28new%29%20%7C%3Cb%3E.png?raw=true>) |" in text
    assert "same.png" not in text
    assert "loss.csv" not in text
    assert shown(review, {}) == ""


def test_a_picture_that_is_in_no_commit_has_no_address(repository: Path, review: ModuleType) -> None:  # noqa: F811
    (repository / "reports/draw/map.png").write_text("not committed")
    assert shown(review).endswith("/reports/draw/map.png?raw=true>) | - |\n\n</details>")


def test_a_merge_is_shown_at_the_commit_that_it_merges(repository: Path, review: ModuleType) -> None:  # noqa: F811
    """Which stays, where GitHub's trial merge goes."""
    run(repository, "git", "checkout", "--quiet", "-b", "topic")
    (repository / "reports/draw/map.png").write_text("other")
    commit(repository, "head")
    run(repository, "git", "checkout", "--quiet", "base")
    run(repository, "git", "merge", "--quiet", "--no-ff", "--message", "merge", "topic")
    assert f"/blob/{sha(repository, 'head')}/" in shown(review)
    assert sha(repository, "HEAD") not in shown(review)


def test_of_many_the_first_are_shown(repository: Path, review: ModuleType) -> None:  # noqa: F811
    for number in range(20):
        (repository / f"reports/draw/{number:02}.png").write_text("new")
    commit(repository, "now")
    text = shown(review)
    assert "20 pictures side by side" in text
    assert text.count("![]") == 16
    assert "\n\n4 more" in text
