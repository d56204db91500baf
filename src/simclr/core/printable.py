"""The user's values in one-line messages."""

import json
from collections.abc import Iterable
from typing import Any


def join_names(names: Iterable[Any]) -> str:
    return _shorten(", ".join(map(one_line, names)), 300)


def one_line(text: Any, most: int = 60) -> str:
    return _shorten(" ".join(str(text).split()), most)


def format_value(value: Any) -> str:
    """`value` on one line, nearly as in params.yaml: true, null, "text"."""
    try:
        return _shorten(json.dumps(value, default=str, ensure_ascii=False, skipkeys=True), 60)
    except ValueError:  # Python's limit
        return "an integer of more than 4,300 digits"


def _shorten(text: str, most: int) -> str:
    """`text` cut to `most` characters, with control characters and the like escaped."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."
