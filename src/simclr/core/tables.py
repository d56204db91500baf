"""Metrics as JSON and plot data as CSV: equal values give equal bytes, and diffs are readable."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simclr.core import atomic
from simclr.core.errors import UserError

_LARGEST = 1e300
"""Of numbers that can be drawn."""


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested mappings of numbers, texts and booleans, in their order, as a metrics file of DVC.

    Args:
        path: the file; its parent folders are made.
        values: keys are texts; numpy scalars are accepted; floats keep 6 significant digits.

    Raises:
        ValueError: a number is NaN or infinite (DVC could not compare it); the message names its key.
        TypeError: a value is none of the above, with its key.
    """
    text = json.dumps(_nested(values, ()), indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write_bytes(path, f"{text}\n".encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV under the keys of the first one, as plot data of DVC.

    Args:
        path: the file; its parent folders are made.
        rows: at least one; values as in `write_json` but flat, and None is an empty cell.

    Raises:
        ValueError: there is no row, rows differ in their keys, or a number is NaN or infinite.
        TypeError: as `write_json`.
    """
    if not rows:
        raise ValueError(f"{path}: a table needs at least one row")
    columns = list(rows[0])
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise ValueError(f"{path}: row {number} has the columns {list(row)}, not {columns}")
        writer.writerow(
            {key: None if row[key] is None else _scalar(row[key], f"{key} of row {number}") for key in columns}
        )
    atomic.write_bytes(path, stream.getvalue().encode())


def _nested(values: Mapping[str, Any], parents: tuple[str, ...]) -> dict[str, Any]:
    return {
        key: _nested(value, (*parents, key))
        if isinstance(value, Mapping)
        else _scalar(value, ".".join((*parents, key)))
        for key, value in values.items()
    }


def _scalar(value: Any, key: str) -> float | str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key} is {value}, which is no result")
        return float(f"{value:.6g}")
    if isinstance(value, int | str):
        return value
    raise TypeError(f"{key} is a {type(value).__name__}, not a number or a text")


def read_table(path: Path, stage: str) -> dict[str, list[float] | list[str]]:
    """Read the columns of a table that `write_csv` wrote in `stage`: numbers, or texts in the first column.

    Raises:
        UserError: the file is missing, or holds no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
            columns = [list(column) for column in zip(*rows, strict=True)]
            first, *others = zip(header, columns, strict=True)
            numbers = {name: _finite(column) for name, column in others}
            if not numbers or len({first[0], *numbers}) < len(header):
                raise ValueError("one column, or two of one name")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); the {stage} stage writes it") from error
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError too
        raise UserError(f"{path}: damaged; the {stage} stage writes it") from error
    try:
        return {first[0]: _finite(first[1]), **numbers}
    except ValueError:
        return {first[0]: first[1], **numbers}


def _finite(column: list[str]) -> list[float]:
    values = [float(text) for text in column]
    if not all(abs(value) < _LARGEST for value in values):
        raise ValueError("not finite")
    return values


def flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Nested `values` under dotted keys; lists as texts, None as "null"."""
    leaves: dict[str, bool | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            leaves[f"{prefix}{key}"] = value
        else:
            leaves[f"{prefix}{key}"] = "null" if value is None else str(value)
    return leaves
