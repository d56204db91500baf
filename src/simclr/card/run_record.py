"""What reports/pretrain/run.json says of how an encoder was made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
