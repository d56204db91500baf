import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import simclr  # noqa: F401 (it holds the libraries that tests load afterwards to one instruction set)
from simclr.core.signals import SIGNALS
from tests.helpers.programs import ROOT, STAGES, TINY, change, run


def pytest_configure(config: pytest.Config) -> None:
    """GPUs are for `pytest -m gpu` alone: all other tests, and what they start, are about a CPU, wherever they run."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After failures say that params.yaml is not that of the last commit, since most tests take its values."""
    if terminalreporter.stats.get("failed"):
        same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=ROOT, capture_output=True)
        if same.returncode == 1:
            terminalreporter.write_line("params.yaml has changed since the last commit, and tests take its values")


@pytest.fixture(autouse=True)
def _restored_log() -> Iterator[None]:
    """`entry.run` gives the library's logger a handler for the stderr of its time, which is closed in the next test."""
    logger = logging.getLogger("simclr")
    before = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = before


@pytest.fixture(autouse=True)
def _restored_signals() -> Iterator[None]:
    """`catch_signals` leaves signals ignored when one came, which programs that later tests start would inherit."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages ran undisturbed, on the digits."""
    folder = tmp_path_factory.mktemp("done")
    change(folder, **TINY)
    for name in STAGES:
        ended = run(name, folder)
        assert ended.code == 0, ended
    return folder
