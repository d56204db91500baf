"""How fast a pretraining was: by the TensorBoard of the run that made its results, in this clone's `runs`."""

import json
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Speed:
    """The median over its epochs, validation apart, and the peak of the process: of the GPU's memory, where one was."""

    epoch_seconds: float
    gibibytes: float


def of(outs: Mapping[str, str], samples: int) -> Speed | None:
    """The speed of the pretraining with these `outs` (MD5 by path) and so many `samples` an epoch.

    Of several that made the same outs, the last one counts. None if no board tells.
    """
    machines = [(path.parent, _read(path)) for path in Path("runs").glob("*/pretrain/machine.json")]
    made = [(machine["ended"], folder) for folder, machine in machines if machine.get("outs") == outs]
    if not made:
        return None
    board = EventAccumulator(str(max(made)[1]), size_guidance={"scalars": 0}).Reload()
    try:
        rates, memory = (board.Scalars(f"speed/{name}") for name in ("samples_per_second", "peak_memory_gib"))
    except KeyError:
        return None
    return Speed(samples / statistics.median(rate.value for rate in rates), max(point.value for point in memory))


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}
