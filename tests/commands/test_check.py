"""`simclr check`."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from simclr import augment
from simclr.__main__ import main
from simclr.core import options
from simclr.core.errors import UserError
from tests.helpers.programs import ROOT, change


def check(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["simclr", "check"])
    main()


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
            ("evaluate.evaluations", "health, invariance, knn, robustness, verification", "evaluations"),
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
    ("changes", "messages"),
    [
        ({"fetch__source": "folder", "fetch__folder": "/data/none"}, ["fetch.folder: /data/none does not exist"]),
        (
            {"pretrain__method": "pretrained"},
            ["methods.pretrained.file: weights/none holds no weights; name a file of weights"],
        ),
        (
            {
                "pretrain__method": "pretrained", "methods__pretrained__file": "x.pth", "fetch__source": "folder",
                "finetune__label_list": "list.txt", "finetune__fractions": [],
            },
            [
                "fetch.folder: images does not exist", "methods.pretrained.file: x.pth does not exist",
                "finetune.label_list: list.txt does not exist",
            ],
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_named(
    changes: dict[str, object], messages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(tmp_path, **changes)
    with pytest.raises(SystemExit):
        check(monkeypatch, tmp_path)
    found = capsys.readouterr().err
    assert all(message in found for message in messages)
    if "methods__pretrained__file" in changes:
        change(tmp_path, methods__pretrained__file="x.pth")  # and nothing uses it
        check(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  flip:\n", "  1:\n    a: 1\n  flip:\n", "augment.1 is no option; there are: blur, crop, "),
        ("  nt_xent:\n", "  nt_exnt:\n", "losses.nt_exnt is no option; there are: decoupled, "),
        ("  grayscale:\n    probability: 0.2\n", "", "augment.grayscale is missing; it takes the keys probability"),
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class Params:\n    angle: Angle\n", "NameError: name 'Angle' is not defined"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
    ],
)
def test_an_option_that_cannot_be_imported_says_why(
    text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(augment, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "simclr.augment.mine", raising=False)
    with pytest.raises(UserError, match=r"/augment/mine\.py: cannot be imported \((.*)\)$") as raised:
        options.module("augment", "mine")
    assert reason in str(raised.value)


@pytest.mark.parametrize("package", ["augment", "evaluations", "losses", "methods", "models"])
@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("", "function "),
        ("def {function}(): ...\n", "dataclass Params"),
        ("class Params: ...\ndef {function}(): ...\n", "dataclass Params"),
    ],
)
def test_an_option_that_lacks_what_it_has_to_offer_is_named(
    text: str, lacks: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = import_module(f"simclr.{package}")
    (tmp_path / "mine.py").write_text(text.format(function=known.FUNCTIONS[-1]))
    monkeypatch.setattr(known, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"simclr.{package}.mine", raising=False)
    with pytest.raises(UserError, match=rf"{package}/mine\.py: has no {lacks}"):
        options.checked(package, "mine", {package: {"mine": {}}}, "params.yaml")


def test_a_new_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alone.py").write_text("class Params\n")
    monkeypatch.setattr(import_module("simclr.augment"), "__path__", [str(tmp_path)])
    with pytest.raises(UserError, match=r"augment/alone\.py: cannot be imported \(SyntaxError: expected ':'"):
        options.checked("augment", "alone", {"augment": {"alone": {}}}, "params.yaml")


def test_a_new_file_without_a_section_that_cannot_be_imported_ends_the_check(tmp_path: Path) -> None:
    change(tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src")
    file = tmp_path / "src" / "simclr" / "augment" / "alone.py"  # the first by name
    file.write_text("class Params\n")
    command = [sys.executable, "-m", "simclr", "check"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"check: error: {file}: cannot be imported (SyntaxError: expected ':' (alone.py, line 1))\n"
