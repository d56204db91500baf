"""The rows as Markdown, with what they were measured on."""

import platform
import re
import statistics
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
    return (
        f"# {name(device)}\n\n{hardware(device)}; measured on {device.type} in {seconds / 60:.1f} minutes.\n"
        f"The load average was {load:.1f} before. {revision()}.\n\n{versions(device)}"
    )


def hardware(device: torch.device) -> str:
    """The processor, the number of its cores, and the GPU."""
    found = provenance.hardware(device)
    gpu = f", {found['gpu']}" if "gpu" in found else ""
    return f"{found['cpu']}, {found['cores']} cores{gpu}"


def revision() -> str:
    """The commit, and whether files differ from it."""
    git = provenance.git("benchmarks")
    if "reason" in git:
        return f"Revision unknown: {git['reason']}"
    return f"Revision {str(git['revision'])[:12]}{' with changes' if git['dirty'] else ''}"


def versions(device: torch.device) -> str:
    """Those of all packages that figures depend on."""
    numbers = provenance.versions(device) | {"python": platform.python_version()} | _versions(_PEERS)
    return ", ".join(f"{package} {number}" for package, number in numbers.items())


def name(device: torch.device) -> str:
    """What the machine is called."""
    return str(provenance.hardware(device).get("gpu", hardware(device)))


def slug(text: str) -> str:
    """`text` as part of a file's name."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def spread(values: Sequence[float], signed: bool = False, digits: int = 1) -> str:
    """The mean of `values` and, of several, their standard deviation."""
    mean = f"{statistics.mean(values):{'+' if signed else ''}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


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
