"""The metrics that a stage wrote, whole or damaged."""

from pathlib import Path

import pytest

from simclr.core import stage_metrics
from simclr.core.errors import UserError


def test_missing_metrics_and_such_as_are_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"embed/metrics\.json: cannot be read \(No such .+\); the embed stage writes it$"
    ):
        stage_metrics.read(tmp_path, "embed")
    (tmp_path / "embed").mkdir()
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "embed/metrics.json").write_bytes(content)
        with pytest.raises(UserError, match=r"embed/metrics\.json: damaged; the embed stage writes it$"):
            stage_metrics.read(tmp_path, "embed")
    (tmp_path / "embed/metrics.json").write_text('{"a": 1}')
    assert stage_metrics.read(tmp_path, "embed").number("a") == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", f"1{'0' * 400}", "true", "null", '"1"', "[1]", "{}"])
def test_what_is_no_finite_number_is_damage(value: str, tmp_path: Path) -> None:
    (tmp_path / "embed").mkdir()
    (tmp_path / "embed/metrics.json").write_text(f'{{"a": {value}}}')
    with pytest.raises(UserError, match=r"embed/metrics\.json: damaged; the embed stage writes it$"):
        stage_metrics.read(tmp_path, "embed").number("a")
