"""The metrics that a stage wrote, each number checked as it is read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simclr.core.errors import UserError


@dataclass(frozen=True)
class StageMetrics:
    """The content of reports/<stage>/metrics.json, or a part of it.

    Attributes:
        path: the file, which errors name.
        stage: the stage that writes it.
    """

    path: Path
    stage: str
    content: Any

    @property
    def keys(self) -> list[str]:
        """Raises a UserError where there should be keys and are none."""
        if not isinstance(self.content, dict):
            raise self._damage()
        return list(self.content)

    def part(self, key: str) -> "StageMetrics":
        """Raises a UserError if there is no such `key`."""
        if key not in self.keys:
            raise self._damage()
        return StageMetrics(self.path, self.stage, self.content[key])

    def number(self, key: str) -> float:
        """Raises a UserError if there is no finite number under the `key`."""
        value = self.part(key).content
        if type(value) is int and abs(value) < 1 << 53:
            return value
        if not isinstance(value, float) or not math.isfinite(value):
            raise self._damage()
        return value

    def percent(self, key: str) -> float:
        """Raises a UserError if there is no number from 0 to 100 under the `key`."""
        value = self.number(key)
        if not 0 <= value <= 100:
            raise self._damage()
        return value

    def _damage(self) -> UserError:
        return UserError(f"{self.path}: damaged; the {self.stage} stage writes it")


def read(reports: Path, stage: str) -> StageMetrics:
    """Read the metrics of `stage` below the folder `reports`.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = reports / stage / "metrics.json"
    try:
        return StageMetrics(path, stage, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); the {stage} stage writes it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged; the {stage} stage writes it") from error
