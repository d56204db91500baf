"""What every evaluation of `simclr.evaluations` keeps: a new file is tried before its author has written a test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from simclr.core import options, tables
from simclr.distributed.session import Session
from simclr.evaluations import Findings
from simclr.models.resnet import Encoder
from simclr.report import charts
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import SHIPPED
from tests.helpers.subjects import subject

NAMES = options.names("evaluations")
QUICK = {"pairs": 60, "epochs": 2, "steps": 2}
"""Smaller values of parameters that many evaluations have."""


def findings(session: Session, name: str, folder: Path) -> Findings:
    """Those of `name` on a small network."""
    section: dict[str, Any] = SHIPPED["evaluations"][name]
    values = {name: section | {key: value for key, value in QUICK.items() if key in section}}
    option = options.checked("evaluations", name, {"evaluations": values}, "test")
    torch.manual_seed(0)
    encoder = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    result: Findings = option.module.evaluate(option.parameters, subject(folder, session, encoder))
    return result


@pytest.mark.parametrize("name", NAMES)
def test_findings_are_numbers_that_can_be_written_and_drawn(name: str, tmp_path: Path) -> None:
    found = findings(ALONE, name, tmp_path)
    assert found.metrics
    tables.write_json(tmp_path / "metrics.json", found.metrics)  # which refuses NaN
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(found.metrics, rel=1e-5)
    if found.table:
        tables.write_csv(tmp_path / "table.csv", found.table)
        columns = tables.read_table(tmp_path / "table.csv", "evaluate")
        assert list(columns) == list(found.table[0])
        assert {len(column) for column in columns.values()} == {len(found.table)}
        charts.table_chart(tmp_path / "table.png", columns, name)
        assert (tmp_path / "table.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_findings_repeat_themselves(name: str, tmp_path: Path) -> None:
    first = findings(ALONE, name, tmp_path)
    torch.rand(5)  # the state of torch's generator is nobody's input
    assert findings(ALONE, name, tmp_path) == first


@pytest.mark.parametrize("name", NAMES)
def test_findings_of_ranks_are_those_of_one_process(name: str, tmp_path: Path) -> None:
    alone = findings(ALONE, name, tmp_path)
    for found in on_ranks(3, findings, name, tmp_path):
        assert found.metrics == pytest.approx(alone.metrics, rel=1e-4, abs=1e-4)
        assert [texts(row) for row in found.table] == [texts(row) for row in alone.table]
        for row, expected in zip(found.table, alone.table, strict=True):
            assert numbers(row) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-4)


def texts(row: Mapping[str, float | str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if isinstance(value, str)}


def numbers(row: Mapping[str, float | str]) -> dict[str, float]:
    return {key: value for key, value in row.items() if not isinstance(value, str)}


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    option = options.checked("evaluations", name, SHIPPED, "test")
    features = {split: features.h.clone() for split, features in frozen.features.items()}
    option.module.evaluate(option.parameters, frozen)
    assert not frozen.encoder.training
    assert all(torch.equal(frozen.features[split].h, h) for split, h in features.items())
