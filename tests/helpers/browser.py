"""A page as Chromium shows it."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

needed = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


class Shown(NamedTuple):
    """What a page has come to once its scripts have run."""

    html: str
    console: list[str]
    """What scripts and the browser itself wrote there: errors, what the page's own policy forbids, failed requests."""

    @property
    def data(self) -> dict[str, str]:
        """The attributes data-... of the root, in which a script leaves what it has found."""
        return dict(re.findall(r'data-(\w+)="([^"]*)"', self.html.partition("<html")[2].partition(">")[0]))


def show(page: Path) -> Shown:
    """Open `page` without network."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--user-data-dir={profile}",
             "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert "<html" in done.stdout, done.stderr
    return Shown(done.stdout, re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr))
