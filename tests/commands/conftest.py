from pathlib import Path

import pytest

from tests.commands.folders import Run, save_encoder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an encoder."""
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "encoder.safetensors")
    return tmp_path


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)
