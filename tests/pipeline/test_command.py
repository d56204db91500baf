"""`python -m simclr check`."""

import runpy
from pathlib import Path

import pytest

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
    assert capsys.readouterr().out.splitlines() == [
        "params.yaml: every value is allowed",
        "fetch.source: digits; there are cifar10, cifar100, digits, fashion_mnist, folder, stl10, svhn, tiny_imagenet",
        "pretrain.model: resnet; there are resnet, vit",
        "pretrain.method: simclr; there are classifier, simclr",
        "pretrain.loss: nt_xent; there are decoupled, nt_xent",
        "pretrain.views.augmentations: crop, jitter; there are blur, crop, flip, grayscale, jitter, rotate, solarize",
    ]


def test_a_wrong_value_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(tmp_path, losses__decoupled__temperature=0)
    with pytest.raises(SystemExit) as end:
        check(monkeypatch, tmp_path)
    assert end.value.code == 1
    assert "params.yaml: losses.decoupled.temperature = 0 is not allowed; it takes " in capsys.readouterr().err
