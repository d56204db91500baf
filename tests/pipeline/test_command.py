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


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  flip:\n", "  1:\n    a: 1\n  flip:\n", "augment.1 is no option; there are: blur, crop, "),
        ("  nt_xent:\n", "  nt_exnt:\n", "losses.nt_exnt is no option; there are: decoupled, "),
        ("  grayscale:\n    probability: 0.2\n", "", "augment.grayscale must be a section of keys"),
    ],
)
def test_a_section_of_no_option_and_a_missing_one_are_named(
    before: str, after: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    assert before in text
    (tmp_path / "params.yaml").write_text(text.replace(before, after))
    with pytest.raises(SystemExit):
        check(monkeypatch, tmp_path)
    assert message in capsys.readouterr().err
