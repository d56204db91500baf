"""The page of `dvc plots show`: everything is in it, so that it needs no network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import browser
from tests.helpers.programs import ROOT


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    (folder / ".dvc").mkdir()
    for name in ("config", "plots.html"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "loss.csv").write_text("epoch,loss\n1,5\n2,3\n3,2.5\n")
    (folder / "dvc.yaml").write_text("plots:\n- loss.csv:\n    x: epoch\n    y: loss\n    title: Loss\n")
    command = [sys.executable, "-m", "dvc", "plots", "show"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "dvc_plots" / "index.html"


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", text)
    assert text.count("<script>") == 3
    for package in ("vega@5", "vega-lite@5", "vega-embed@6"):
        assert f"<!-- {package}." in text


@browser.needed
def test_a_browser_without_network_draws_the_curve(page: Path) -> None:
    shown = browser.show(page)
    assert re.search(r'class="[^"]*vega-embed', shown.html)
    assert re.search(r'<(canvas|svg)[^>]*class="marks"', shown.html)
    assert not re.search("Uncaught|net::ERR", "\n".join(shown.console))  # and Vega writes warnings
