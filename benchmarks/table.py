"""The rows as Markdown, with what they were measured on."""

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.contest import Measured, Row
from simclr.tracking import provenance

_PEERS = ("lightly", "kornia", "scikit-image")

_HEADER = """\
| | unit | ours | other | | ours is | to reach | |
|---|---|--:|---|--:|--:|--:|---|"""


def line(row: Row) -> str:
    """One line of the table."""
    ours, theirs = _figures(row.ours), _figures(row.theirs) if row.theirs else row.skipped and "not measured"
    ratio = f"{_short(row.ratio)} x" if row.ratio else ""
    target = ""
    if row.target is not None:
        target = (
            f"{_short(row.target)} x" if row.peer else f"{'>=' if row.more_is_better else '<='} {_short(row.target)}"
        )
    verdict = {True: "reached", False: "**missed**", None: ""}[row.reached]
    cells = (row.what, row.unit, ours, row.peer or "-", theirs, ratio, target, verdict)
    return "| " + " | ".join(cells) + " |"


def page(rows: Sequence[Row], notes: Iterable[str], device: torch.device, load: float, seconds: float) -> str:
    """The whole result."""
    skipped = sorted({f"- {row.peer}: {row.skipped}" for row in rows if row.skipped})
    parts = [
        machine(device, load, seconds),
        'Medians of the repeats, and between brackets the least and the most of them. "ours is" says how many times\n'
        "faster (or smaller) ours is: below 1 it is slower (or larger).",
        "\n".join([_HEADER, *map(line, rows)]),
        "\n".join(notes),
    ]
    if skipped:
        parts.append("Not measured:\n\n" + "\n".join(skipped))
    return "\n\n".join(parts) + "\n"


def machine(device: torch.device, load: float, seconds: float) -> str:
    """What the figures were measured on, and of which revision."""
    versions = provenance.versions(device) | {"python": platform.python_version()} | _versions(_PEERS)
    found, git = provenance.hardware(device), provenance.git("benchmarks")
    revision = str(git["revision"])[:12] + (" with changes" if git.get("dirty") else "") or f"unknown: {git['reason']}"
    gpu = f", {found['gpu']}" if "gpu" in found else ""
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"# {name(device)}\n\n{found['cpu']}, {found['cores']} cores{gpu}; measured on {device.type} in "
        f"{seconds / 60:.1f} minutes.\nThe load average was {load:.1f} before. Revision {revision}.\n\n{listed}"
    )


def name(device: torch.device) -> str:
    """What the machine is called."""
    found = provenance.hardware(device)
    return str(found["gpu"]) if "gpu" in found else f"{found['cpu']}, {found['cores']} cores"


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _figures(measured: Measured) -> str:
    figures = measured.figures
    if len(figures) == 1:
        return _short(figures[0])
    return f"{_short(measured.median)} ({_short(min(figures))}-{_short(max(figures))})"


def _short(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
