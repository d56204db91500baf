"""The identity of a run, by which it finds its own checkpoints and no other's."""

import re
from dataclasses import dataclass
from typing import Any

from simclr.core import fingerprint
from simclr.core.printable import format_value


@dataclass(frozen=True)
class Identity:
    """Everything that decides a run's result: named values by kind, as {"parameters": {"pretrain.epochs": 80}, ...}."""

    parts: dict[str, dict[str, Any]]

    @property
    def folder(self) -> str:
        """The name of the run's checkpoint folder."""
        return fingerprint.of_values(self.parts)[:16]

    def difference(self, other: "Identity") -> str:
        """The difference of `other` in a few words, such as "other parameters (pretrain.epochs 40, now 80)"."""
        kinds = []
        for kind, values in self.parts.items():
            theirs = other.parts.get(kind, {})
            changed = [name for name in {**values, **theirs} if values.get(name) != theirs.get(name)]
            if changed:
                kinds.append(f"other {kind} ({_list_some([_describe(name, theirs, values) for name in changed])})")
        return " and ".join(kinds)


def _describe(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    values = [side[name] for side in (before, now) if name in side]
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in values):  # a digest
        return name
    words = [format_value(side[name]) if name in side else "absent" for side in (before, now)]
    return f"{name} {words[0]}, now {words[1]}"


def _list_some(words: list[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
