"""What the run.json of the stages say of how the encoder was made, and of which encoder their metrics are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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


def check_encoder(stage: str, reports: Path, encoder: Path, md5: str, sha256: str) -> None:
    """Check that the metrics of `stage` are of the file `encoder`, which has these digests, as far as its record or
    dvc.lock tells.

    DVC may bring metrics back and leave the record of others, or of equal ones of another encoder: then dvc.lock knows.

    Raises:
        UserError: they are of another one, as after single stages.
    """
    metrics = reports / stage / "metrics.json"
    if not metrics.exists():
        return
    digest = fingerprint.of_out(metrics)
    try:
        record = _record(reports / stage / "run.json", metrics, digest) or {"outs": {}, "fingerprints": {}}
        made, read = record["outs"].get(encoder.as_posix()), record["fingerprints"].get("encoder")
    except _UNREADABLE:
        made = read = None
    if made == md5 or read == sha256:
        return
    locked = _locked(stage)
    if locked.get(metrics.as_posix()) == digest:
        is_other = locked.get(encoder.as_posix()) != md5
    else:
        is_other = made is not None or read is not None
    if is_other:
        raise UserError(f"{metrics}: of another encoder; run the {stage} stage")


def _locked(stage: str) -> dict[str, str]:
    """The MD5 of what `stage` read and wrote by dvc.lock, by path; nothing where that does not tell."""
    try:
        entry = YAML(typ="safe", pure=True).load(Path("dvc.lock"))["stages"][stage]
        return {item["path"]: item["md5"] for item in [*entry["deps"], *entry["outs"]]}
    except (*_UNREADABLE, YAMLError):
        return {}


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
