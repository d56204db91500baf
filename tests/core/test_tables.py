import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simclr.core.errors import UserError
from simclr.core.tables import read_table, write_csv, write_json


def test_json_is_written_to_the_letter(tmp_path):
    path = tmp_path / "new" / "folder" / "metrics.json"
    write_json(path, {"top1": np.float32(0.98765432), "stop": {"epoch": np.int64(1234567), "why": "größer"}})
    assert path.read_bytes() == (
        '{\n  "top1": 0.987654,\n  "stop": {\n    "epoch": 1234567,\n    "why": "größer"\n  }\n}\n'.encode()
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (1.23456789e-05, 1.23457e-05),
        (123456789.0, 123457000.0),
        (0.1, 0.1),
        (-0.0, 0.0),
        (3.0, 3.0),
        (123456789, 123456789),
        (True, True),
        (np.bool_(False), False),
        (np.float64(2) / 3, 0.666667),
        (np.array(0.5)[()], 0.5),
        ("1e-5", "1e-5"),
    ],
)
def test_json_values_come_back_with_six_digits_and_their_type(given, read, tmp_path):
    write_json(tmp_path / "m.json", {"key": given})
    found = json.loads((tmp_path / "m.json").read_text())["key"]
    assert found == read
    assert type(found) is type(read)


def test_json_keeps_the_order_of_keys_and_the_same_bytes(tmp_path):
    values = {"zebra": 1.0, "ant": {"z": 2.0, "a": 3.0}}
    write_json(tmp_path / "1.json", values)
    write_json(tmp_path / "2.json", dict(values))
    assert list(json.loads((tmp_path / "1.json").read_text())) == ["zebra", "ant"]
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
def test_json_refuses_what_is_no_number_and_leaves_the_old_file(value, tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"top1": 1})
    with pytest.raises(ValueError, match=r"^test\.top1 is -?(nan|inf), "):
        write_json(path, {"loss": 1.0, "test": {"top1": value}})
    assert json.loads(path.read_text()) == {"top1": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("value", [None, [1, 2], np.zeros(2), object()])
def test_json_refuses_other_types(value, tmp_path):
    with pytest.raises(TypeError, match=r"^test\.top1 is a "):
        write_json(tmp_path / "m.json", {"test": {"top1": value}})
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"top1": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"metrics.json: cannot be written \(No space left on device\)"):
        write_json(path, {"top1": 2})
    assert json.loads(path.read_text()) == {"top1": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_csv_is_written_to_the_letter(tmp_path):
    path = tmp_path / "new" / "history.csv"
    rows = [{"epoch": 1, "loss": 5.12345678, "knn": None}, {"knn": np.float32(0.9), "epoch": 2, "loss": 1e-9}]
    write_csv(path, rows)
    assert path.read_bytes() == b"epoch,loss,knn\n1,5.12346,\n2,1e-09,0.9\n"


def test_csv_quotes_what_it_must(tmp_path):
    rows = [{"actual": 'a,"b"', "predicted": "c\nd"}]
    write_csv(tmp_path / "c.csv", rows)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([{"a": 1, "b": 2}, {"a": 1}], r"row 1 has the columns \['a'\], not \['a', 'b'\]"),
        ([{"a": 1}, {"a": 1, "b": 2}], r"row 1 has the columns \['a', 'b'\], not \['a'\]"),
        ([{"a": 1}, {"a": float("nan")}], "a of row 1 is nan"),
    ],
)
def test_csv_refuses_broken_tables(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_csv(tmp_path / "c.csv", rows)
    assert os.listdir(tmp_path) == []


def test_tables_and_board_are_imported_without_the_heavy_libraries():
    code = (
        "import sys; from simclr.core import tables; from simclr.tracking import tensorboard; "
        "print(*sorted({'torch', 'matplotlib', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_table_comes_back_by_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"k": 1, "a": 0.5, "b": -1}, {"k": 2, "a": 1e-7, "b": 3}])
    assert read_table(tmp_path / "t.csv", "evaluate") == {"k": [1.0, 2.0], "a": [0.5, 1e-7], "b": [-1.0, 3.0]}
    write_csv(tmp_path / "t.csv", [{"name": "crop, flip", "a": 1}, {"name": "ä", "a": 2}])
    assert read_table(tmp_path / "t.csv", "evaluate") == {"name": ["crop, flip", "ä"], "a": [1.0, 2.0]}


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n", b"a\n1\n", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a,b\n1,x\n", b"a,b\n1,\n", b"a,b\n1,nan\n",
     b"a,b\n1,inf\n", b"a,b\n1,1e308\n", b"a,b\n1\r2,3\n", b"\xff,\x00\n", b"a,a\n1,2\n"],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.csv: damaged; the evaluate stage writes it"):
        read_table(tmp_path / "t.csv", "evaluate")
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); the evaluate stage writes it"):
        read_table(tmp_path / "none.csv", "evaluate")
