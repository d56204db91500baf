"""`python -m simclr check`."""

import runpy
from pathlib import Path

import pytest

from simclr.core import options
from tests.helpers.programs import change


def check(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["simclr", "check"])
    runpy.run_module("simclr", run_name="__main__")


def test_it_lists_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(tmp_path)
    check(monkeypatch, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "params.yaml: every value is allowed"
    assert lines[1:] == [
        f"{key}: {value}; there are {', '.join(options.names(package))}"
        for key, value, package in (
            ("fetch.source", "digits", "sources"),
            ("pretrain.model", "resnet", "models"),
            ("pretrain.method", "simclr", "methods"),
            ("pretrain.loss", "nt_xent", "losses"),
            ("pretrain.views.augmentations", "crop, jitter", "augment"),
        )
    ]


def test_a_wrong_value_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(tmp_path, losses__decoupled__temperature=0)
    with pytest.raises(SystemExit) as end:
        check(monkeypatch, tmp_path)
    assert end.value.code == 1
    assert "params.yaml: losses.decoupled.temperature = 0 is not allowed; it takes " in capsys.readouterr().err
