"""`simclr lr-range`."""

import csv
import dataclasses
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simclr.core import params_file, processor
from simclr.core.errors import UserError
from simclr.data import converted
from simclr.data.converted import DatasetInfo
from simclr.learning.optimizer import OptimizerParams
from simclr.lr_range import command
from simclr.lr_range.overrides import overridden
from tests.helpers.betons import noise, stored
from tests.helpers.programs import ROOT, change, warm

TINY = {
    "pretrain__batch_size": 8, "models__resnet__width": 0.125, "pretrain__views__resolution": 8,
    "pretrain__validation__neighbors": 3,
}  # fmt: skip
SHIPPED = params_file.read(ROOT / "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_a_picture_and_a_table_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change(tmp_path, **TINY)
    beton = tmp_path / "data/beton"
    beton.mkdir(parents=True)
    for split in ("train", "val"):
        stored(beton / f"{split}.beton", noise(24, 8, seed=0), np.arange(24) % 2)
    converted.save_info(beton, DatasetInfo(["a", "b"], [0.4] * 3, [0.3] * 3, dict.fromkeys(("train", "val"), "0" * 64)))
    before = files(tmp_path)
    values = params_file.read()
    command.run(values, None, None, 50)
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    table, picture = sorted(tmp_path / path for path in after.keys() - before.keys())
    assert table.parent == picture.parent == tmp_path / "runs/lr_range"
    assert (table.suffix, picture.suffix) == (".csv", ".png")
    with Image.open(picture) as image:
        assert image.size == (900, 560)
    with table.open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1e-4 * 256 / 8 * 1e6 ** (step / 49) for step in range(50)], rel=1e-5)
    command.run(values, None, None, 50)
    assert files(tmp_path) == after
    command.run(overridden(values, ["pretrain.seed=1"]), None, None, 50)
    assert len(files(tmp_path)) == len(after) + 2


def test_neither_git_nor_dvc_sees_them() -> None:
    for name in (".gitignore", ".dvcignore"):
        assert "/runs/" in (ROOT / name).read_text().splitlines()


def _become(folder: Path) -> None:
    os.chdir(folder)
    sys.argv = ["lr_range"]
    runpy.run_module("simclr.lr_range", run_name="__main__")


def test_without_data_it_says_what_makes_them(tmp_path: Path) -> None:
    change(tmp_path)
    ended = warm(_become, tmp_path).end()
    expected = "data/beton has no train split to train on; `dvc repro convert` makes what there is"
    assert ended.error == expected
    assert list(files(tmp_path)) == ["params.yaml"]


@pytest.mark.parametrize(
    ("lowest", "highest", "steps", "message"),
    [
        (1.0, 0.1, 300, "--lowest 1 --highest 0.1 is not allowed; it takes 0 < lowest < highest"),
        (0.0, 0.1, 300, "--lowest 0 --highest 0.1 is not allowed"),
        (None, float("nan"), 300, "--lowest 0.0001 --highest nan is not allowed"),
        (None, float("inf"), 300, "--lowest 0.0001 --highest inf is not allowed"),
        (None, None, 49, "--steps = 49 is not allowed; it takes an integer from 50 to 100000"),
    ],
)
def test_an_impossible_option_is_named(lowest: float | None, highest: float | None, steps: int, message: str) -> None:
    with pytest.raises(UserError) as refused:
        command.run(SHIPPED, lowest, highest, steps)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "printed"),
    [([], "avx2 1"), (["processor.instructions=native", "processor.threads=3"], "None 3")],
)
def test_the_processors_section_holds_before_the_libraries_are_loaded(
    overrides: list[str], printed: str, tmp_path: Path
) -> None:
    change(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in processor.HELD}
    code = (
        "import os, sys, types; import simclr.lr_range.__main__ as program;"
        "assert not {'numpy', 'torch'} & sys.modules.keys(); command = types.ModuleType('simclr.lr_range.command');"
        "command.run = lambda *_: print(os.environ.get('ATEN_CPU_CAPABILITY'), os.environ['OMP_NUM_THREADS']);"
        "sys.modules[command.__name__] = command; program.main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *overrides], cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert process.stdout.strip() == printed


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE = 2, but a range test is one process"):
        command.run(SHIPPED, None, None, 300)


def test_every_optimizer_has_a_range() -> None:
    [name] = (field for field in dataclasses.fields(OptimizerParams) if field.name == "name")
    assert name.metadata["allowed"].words == "one of " + ", ".join(command.RANGES)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("pretrain.optimizer.name=sgd", "sgd"), ("pretrain.optimizer.lr=1e-05", 1e-5),
        ("pretrain.views.augmentations=[crop, flip]", ["crop", "flip"]), ("pretrain.optimizer.clip_grad_norm=", None),
    ],
)  # fmt: skip
def test_an_override_sets_one_value_and_leaves_the_others(override: str, value: Any) -> None:
    values = overridden(SHIPPED, [override])
    *sections, key = override.partition("=")[0].split(".")
    section, shipped = values, SHIPPED
    for name in sections:
        section, shipped = section[name], shipped[name]
    assert section[key] == value
    section[key] = shipped[key]
    assert values == SHIPPED


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sgd", "sgd is no override; one is key=value"),
        ("pretrain.optimiser.name=sgd", "params.yaml has no parameter pretrain.optimiser.name"),
        ("pretrain.seed.x=1", "params.yaml has no parameter pretrain.seed.x"),
        ("pretrain.seed=[", "pretrain.seed=[: the value is not valid YAML"),
    ],
)
def test_a_bad_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        overridden(SHIPPED, [override])
    assert message in str(refused.value)
