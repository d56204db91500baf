"""What an experiment left in Git: the files of a commit, of an experiment of DVC, or of the workspace."""

import io
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WORKSPACE = "workspace"
_FOUND = re.compile(rb"[0-9a-f]+ (\w+) (\d+)\n")


class UnknownError(Exception):
    """There is no such revision; says why."""


@dataclass(frozen=True)
class Revision:
    """A `commit` under the `name` that was given for it; without a commit the workspace."""

    name: str
    commit: str

    def read(self, path: str) -> bytes | None:
        """The content of the file `path`, relative to the current folder; None if it cannot be read."""
        if not self.commit:
            file = Path(path)
            try:
                return file.read_bytes() if file.is_file() and not file.is_symlink() else None
            except OSError:
                return None
        return _content(self.commit, path)

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of those files of `paths` that there are, by one process for all of them."""
        if not self.commit:
            contents = ((path, self.read(path)) for path in paths)
            return {path: content for path, content in contents if content is not None}
        return _contents(self.commit, paths)

    def files(self, folder: str) -> list[str]:
        """The sorted paths of all files in and below `folder`."""
        if not self.commit:
            return sorted(path.as_posix() for path in Path(folder).rglob("*") if path.is_file())
        return list(_paths(self.commit, folder))

    @property
    def described(self) -> str:
        """Commit, day and subject."""
        return git("show", "--no-patch", "--format=%h, %cs: %s", self.commit).strip() if self.commit else ""


@cache  # what a commit holds never changes, and each question is a process
def _content(commit: str, path: str) -> bytes | None:
    done = subprocess.run(["git", "show", f"{commit}:./{path}"], capture_output=True, check=False)
    return None if done.returncode else done.stdout


def _contents(commit: str, paths: Sequence[str]) -> dict[str, bytes]:
    """By `git cat-file --batch`, which answers a line "ID blob SIZE" and the content, or "PATH missing", to each line
    with a path, and ends at an object that is damaged. What it does not answer is read by itself."""
    asked = [path for path in paths if "\n" not in path]
    names = os.fsencode("".join(f"{commit}:./{path}\n" for path in asked))
    done = subprocess.run(["git", "cat-file", "--batch"], input=names, capture_output=True, check=False)
    answers = io.BytesIO(done.stdout)
    contents: dict[str, bytes | None] = {}
    for path in asked:
        answer = answers.readline()
        if found := _FOUND.fullmatch(answer):
            size = int(found[2])
            content = answers.read(size)
            if len(content) == size:
                contents[path] = content if found[1] == b"blob" else None
            answers.readline()
        elif answer:
            contents[path] = None
    for path in paths:
        if path not in contents:
            contents[path] = _content(commit, path)
    return {path: content for path, content in contents.items() if content is not None}


@cache
def _paths(commit: str, folder: str) -> tuple[str, ...]:
    return tuple(sorted(git("ls-tree", "-r", "-z", "--name-only", commit, f"./{folder}/").split("\0")[:-1]))


@dataclass(frozen=True)
class Experiment:
    """An experiment of DVC: a commit that no branch has."""

    name: str
    commit: str
    base: str
    """The commit it began at."""
    day: str


def experiments() -> list[Experiment]:
    """All of this repository, the latest first."""
    fields = "%(refname)%09%(objectname)%09%(committerdate:short)"
    lines = git("for-each-ref", "--sort=-committerdate", f"--format={fields}", "refs/exps").splitlines()
    experiments = []
    for ref, commit, day in (line.split("\t") for line in lines):
        parts = ref.removeprefix("refs/exps/").split("/")
        if len(parts) == 3:  # others are DVC's own: refs/exps/stash, ...
            experiments.append(Experiment(parts[2], commit, parts[0] + parts[1], day))
    return experiments


def resolve(name: str) -> Revision:
    """The revision that `name` means: "workspace", an experiment, or anything that Git takes for a commit.

    Raises:
        UnknownError: nothing is called so.
    """
    if name == WORKSPACE:
        return Revision(name, "")
    commits = {item.commit for item in experiments() if item.name == name}
    if len(commits) > 1:
        raise UnknownError(
            f"{len(commits)} experiments are called {name}; give the commit of one: {', '.join(commits)}"
        )
    if commit := git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip():
        if commits - {commit}:
            raise UnknownError(f"{name} is an experiment, and a branch, tag or commit; give the commit of one of them")
        commits.add(commit)
    if not commits:
        raise UnknownError(f"there is no experiment, branch or commit {name}; {WORKSPACE} is what is not committed")
    return Revision(name, commits.pop())


def git(*arguments: str) -> str:
    """What Git prints; nothing if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, errors="replace", check=False)
    return "" if done.returncode else done.stdout
