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
    metrics = reports / stage / "metrics.json"
    try:
        record = _record(reports / stage / "run.json", metrics, fingerprint.of_out(metrics))
        is_other = record is not None and record["fingerprints"]["encoder"] != digest
    except _UNREADABLE:
        return
    if is_other:
        raise UserError(f"{metrics}: of another encoder; run the {stage} stage")


def read_run_record(path: Path, out: Path, digest: str) -> RunRecord | None:
    """Read the record of the run that made the file `out`, whose MD5 is `digest`; None if there is no such record."""
    try:
        content = _record(path, out, digest)
        if content is None:
            return None
        versions = {str(name): str(version) for name, version in content["versions"].items()}
        processes = {str(step): int(count) for step, count in content["processes_from_step"].items()}
        return RunRecord(str(content["device"]), str(content["instructions"]), versions, processes)
    except _UNREADABLE:
        return None


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of a record that is missing or damaged."""


def _record(path: Path, out: Path, digest: str) -> Any | None:
    """The content of the run.json `path` if it is about the file `out` with the MD5 `digest`: DVC may bring back an
    earlier result without its record (`tracking.provenance`)."""
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    return content if content["outs"][out.as_posix()] == digest else None
