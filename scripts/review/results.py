"""Metrics, parameters and tables of a revision, as flat values."""

import csv
import io
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from review.revision import Revision

_METRICS = re.compile(r"reports/\w+/metrics\.json")
_LARGEST = 1e300
_KEY = re.compile(r"( *)([\w.-]+):(?: |$)")


def metrics(revision: Revision) -> dict[str, float]:
    """The numbers of every reports/<stage>/metrics.json, by stage and key; but for stages that are `outdated`."""
    metrics: dict[str, float] = {}
    stale = outdated(revision)
    paths = [path for path in revision.files("reports") if _METRICS.fullmatch(path) and _stage_of(path) not in stale]
    for path, content in revision.read_all(paths).items():
        numbers = {f"{_stage_of(path)}.{key}": _number(value) for key, value in flat(_json(content)).items()}
        metrics |= {key: value for key, value in numbers.items() if value is not None}
    return metrics


def parameters(revision: Revision) -> dict[str, Any]:
    """All values of params.yaml by their dotted keys."""
    try:
        return flat(_yaml(revision.read("params.yaml")))
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def comments(revision: Revision) -> dict[str, str]:
    """The comment above each key of params.yaml, by its dotted key."""
    comments: dict[str, str] = {}
    keys: list[tuple[int, str]] = []
    above: list[str] = []
    for line in _text(revision.read("params.yaml")).splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip().lstrip("# "))
        elif match := _KEY.match(line):
            indent = len(match[1])
            keys = [(depth, key) for depth, key in keys if depth < indent] + [(indent, match[2])]
            if above:
                comments[".".join(key for _, key in keys)] = " ".join(above)
            above = []
        else:
            above = []
    return comments


def table(revision: Revision, path: str) -> list[dict[str, str]]:
    """The rows of a CSV file reports/<stage>/...; none if it is missing or no table, or the stage `outdated`."""
    if _stage_of(path) in outdated(revision):
        return []
    try:
        rows = list(csv.reader(io.StringIO(_text(revision.read(path)), newline="")))
    except csv.Error:
        return []
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return []
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def record(revision: Revision, stage: str) -> dict[str, Any]:
    """reports/<stage>/run.json."""
    content = _json(revision.read(f"reports/{stage}/run.json"))
    return content if isinstance(content, dict) else {}


def locked(revision: Revision, stage: str) -> dict[str, str]:
    """The MD5 of every dependency and out of a stage in dvc.lock, by path."""
    try:
        entry = _yaml(revision.read("dvc.lock"))["stages"][stage]
        return {str(item["path"]): str(item["md5"]) for key in ("deps", "outs") for item in entry[key]}
    except (YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def agree(revision: Revision) -> bool:
    """Whether the results in dvc.lock are of the parameters in params.yaml, and of each other: a commit may hold a
    changed params.yaml beside older results. Without a dvc.lock nothing is known against them."""
    try:
        return not _outdated(revision)
    except (YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def outdated(revision: Revision) -> set[str]:
    """The stages whose results are of other parameters or other inputs than those that are there, as of an experiment
    that ran pretrain alone; of a dvc.lock that is damaged or missing none is known."""
    try:
        return _outdated(revision)
    except (YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def _outdated(revision: Revision) -> set[str]:
    values = parameters(revision)
    stages = (_yaml(revision.read("dvc.lock")) or {"stages": {}})["stages"]
    outs = {str(out["path"]): (name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])}

    @cache
    def is_outdated(name: str) -> bool:
        params = flat(stages[name].get("params", {}).get("params.yaml", {}))
        if any(values.get(key) != value for key, value in params.items()):
            return True
        read = {str(item["path"]): item["md5"] for item in stages[name].get("deps", [])}
        made = {path: outs[path] for path in read if path in outs}
        return any(md5 != read[path] or is_outdated(maker) for path, (maker, md5) in made.items())

    return {name for name in stages if is_outdated(name)}


def data(revision: Revision) -> dict[str, str]:
    """The MD5 of what comes from outside: of the dependencies in dvc.lock that are neither code nor outs of a stage."""
    try:
        stages = _yaml(revision.read("dvc.lock"))["stages"].values()
        outs = [str(item["path"]) for stage in stages for item in stage.get("outs", [])]
        deps = {str(item["path"]): str(item["md5"]) for stage in stages for item in stage.get("deps", [])}
    except (YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    made = ("src/", "stages/", *(f"{path}/" for path in outs))
    return {path: md5 for path, md5 in deps.items() if not f"{path}/".startswith(made)}


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted keys."""
    if not isinstance(values, Mapping):
        return {prefix.rstrip("."): values} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= flat(value, f"{prefix}{key}.")
    return leaves


def number(text: Any) -> float | None:
    """What reads as a number that can be drawn; else None."""
    try:
        value = float(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return value if abs(value) < _LARGEST else None


def _stage_of(path: str) -> str:
    """The stage whose result in reports/ `path` is."""
    return path.removeprefix("reports/").partition("/")[0]


def _number(value: Any) -> float | None:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace")


@cache  # reading dvc.lock takes a tenth of a second, and three things are asked of each
def _yaml(content: bytes | None) -> Any:
    """To be read only."""
    return YAML(typ="safe").load(_text(content))


def _json(content: bytes | None) -> Any:
    try:
        return json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
