"""Values of the user's in messages of one line."""

import json
from collections.abc import Iterable
from typing import Any


def listed(names: Iterable[Any]) -> str:
    return _short(", ".join(map(one_line, names)), 300)


def one_line(text: Any, most: int = 60) -> str:
    return _short(" ".join(str(text).split()), most)


def shown(value: Any) -> str:
    """`value` on one line, much as params.yaml has it: true, null, "text"."""
    return _short(json.dumps(value, default=str, ensure_ascii=False, skipkeys=True), 60)


def _short(text: str, most: int) -> str:
    """`text` in at most `most` letters, fit to be printed: control characters and the like are escaped."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."
