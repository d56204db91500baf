"""Pictures that differ, side by side by their addresses on GitHub, because a comment can hold no file."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from review import markdown
from review.revision import git

FOLDER = "reports"
MOST = 16
"""Pictures; a pull request with more is looked at with `dvc plots diff`."""


def side_by_side(base: str, environment: Mapping[str, str]) -> str:
    """A table of the PNG files below reports/ that differ from those of `base`; nothing where the repository has no
    address in the `environment`, as outside GitHub's actions.

    What is shown is what Git has: a picture of the workspace that is not in the last commit, or in the one before it
    that a merge took it from, has no address.
    """
    server, repository = environment.get("GITHUB_SERVER_URL"), environment.get("GITHUB_REPOSITORY")
    if not server or not repository:
        return ""
    rows, folder = [], git("rev-parse", "--show-prefix").strip()
    for path in git("diff", "--relative", "--name-only", "-z", base, "--", f"{FOLDER}/").split("\0")[:-1]:
        if path.endswith(".png"):
            before, after = _commit(path, [base], None), _commit(path, ["HEAD^2", "HEAD"], _blob(path))
            cells = [
                f"![](<{server}/{quote(repository)}/blob/{commit}/{quote(folder + path)}?raw=true>)" if commit else "-"
                for commit in (before, after)
            ]
            if cells != ["-", "-"]:
                rows.append([markdown.code(path.removeprefix(f"{FOLDER}/")), *cells])
    if not rows:
        return ""
    rest = f"\n\n{len(rows) - MOST} more" if len(rows) > MOST else ""
    return markdown.details(
        f"{len(rows)} pictures side by side", markdown.table(["", "before", "now"], rows[:MOST]) + rest
    )


def _commit(path: str, revisions: list[str], blob: str | None) -> str:
    """The first of the commits that have the file, with the content `blob` if that is given; nothing if none has."""
    for revision in revisions:
        there = git("rev-parse", "--verify", "--quiet", f"{revision}:./{path}").strip()
        if there and blob in (None, there):
            return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    return ""


def _blob(path: str) -> str:
    """What Git calls the content of the file by; nothing if it is gone."""
    return git("hash-object", "--", path).strip() if Path(path).is_file() else "gone"
