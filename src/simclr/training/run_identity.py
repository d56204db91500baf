"""What makes a run that run, so that it goes on from its own checkpoints and from no other's."""

import re
from dataclasses import dataclass
from typing import Any

from simclr.core import fingerprint


@dataclass(frozen=True)
class Identity:
    """What makes a run that run: named values of several kinds, as {"parameters": {"pretrain.epochs": 80}, ...}."""

    parts: dict[str, dict[str, Any]]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return fingerprint.of_values(self.parts)[:16]

    def difference(self, other: "Identity") -> str:
        """How `other` differs, in a few words, such as "other parameters (pretrain.epochs 40, now 80)"."""
        kinds = []
        for kind, values in self.parts.items():
            theirs = other.parts.get(kind, {})
            changed = [name for name in {**values, **theirs} if values.get(name) != theirs.get(name)]
            if changed:
                kinds.append(f"other {kind} ({_some([_change(name, theirs, values) for name in changed])})")
        return " and ".join(kinds)


def _change(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    values = [values.get(name) for values in (before, now)]
    digests = any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in values)
    return name if digests else f"{name} {values[0]}, now {values[1]}"


def _some(words: list[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
