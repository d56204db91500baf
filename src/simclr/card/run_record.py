"""What reports/pretrain/run.json says of how an encoder was made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simclr.core import fingerprint
from simclr.core.errors import UserError


@dataclass(frozen=True)
class RunRecord:
    """How the encoder was made.

    Attributes:
        device: "cpu", or the name of the GPU.
        instructions: those of the processor: "held" or "native".
        versions: by the name of each package.
        processes: by the step from which on they were so many.
    """

    device: str
    instructions: str
    versions: Mapping[str, str]
    processes: Mapping[str, int]

    @property
    def repeats(self) -> bool:
        """Whether other processors make the same bytes, unless the code is compiled for one."""
        return self.device == "cpu" and self.instructions == "held" and set(self.processes.values()) == {1}


def check_encoder(stage: str, reports: Path, digest: str) -> None:
    """Check that the metrics of `stage` are of the encoder whose SHA-256 is `digest`, as far as its record tells.

    Raises:
        UserError: they are of another one, as after single stages.
    """
    metrics, path = reports / stage / "metrics.json", reports / stage / "run.json"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        is_current = content["outs"][metrics.as_posix()] == fingerprint.of_out(metrics)
        encoder = content["fingerprints"]["encoder"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # DVC may bring back an earlier result without its record
    if is_current and encoder != digest:
        raise UserError(f"{metrics}: of another encoder; run the {stage} stage")


def read_run_record(path: Path, out: Path, digest: str) -> RunRecord | None:
    """Read the record of the run that made the file `out`, whose MD5 is `digest`.

    None if there is no such record: DVC may bring back an earlier result without its record (`tracking.provenance`).
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["outs"][out.as_posix()] != digest:
            return None
        versions = {str(name): str(version) for name, version in content["versions"].items()}
        processes = {str(step): int(count) for step, count in content["processes_from_step"].items()}
        return RunRecord(str(content["device"]), str(content["instructions"]), versions, processes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
