import hashlib
import sys
from pathlib import Path

import pytest

from simclr import fingerprint


def test_values_are_told_apart_whatever_the_order_of_their_keys() -> None:
    first = fingerprint.of_values({"a": 1, "b": {"c": [1, 2.5], "d": None}})
    assert first == fingerprint.of_values({"b": {"d": None, "c": [1, 2.5]}, "a": 1})
    assert first != fingerprint.of_values({"a": 1, "b": {"c": [2.5, 1], "d": None}})
    assert len(first) == 64


def test_a_file_s_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes" * 1000)
    assert fingerprint.of_file(tmp_path / "file") == hashlib.sha256(b"bytes" * 1000).hexdigest()


def test_code_is_every_imported_module_but_those_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "thing"
    (package / "report").mkdir(parents=True)
    for name in ("__init__", "one", "two", "reporter", "report/__init__", "report/board"):
        (package / f"{name}.py").write_text(f"# {name}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("thing", "thing.one", "thing.reporter", "thing.report", "thing.report.board"):
        __import__(name)
    found = fingerprint.of_code("thing", without="thing.report")
    for name in found:
        monkeypatch.delitem(sys.modules, name)
    assert list(found) == ["thing", "thing.one", "thing.reporter"]
    assert found["thing.one"] == hashlib.sha256(b"# one").hexdigest()
