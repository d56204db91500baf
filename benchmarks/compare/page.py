"""The rows as Markdown."""

from collections.abc import Sequence

from benchmarks import table
from benchmarks.compare.row import Row
from benchmarks.compare.sweep import Sweep

_NOTES = """\
- Top-1 accuracy on test in percent: linear, by logistic regression on the representations; kNN; augmented, by a linear
  layer trained through the frozen encoder with random crops (flips if set). Mean ± standard deviation over the seeds,
  which draw the initial weights, the order of the images and the views.
- Differences are of linear, for each seed, and to the untrained encoder of the row's own model; the table begins with
  that of the first row. A row is marked if its gain over the untrained encoder, or over raw pixels, is less than two of
  its standard deviations, or with one seed if there is none: it may be noise.
- In the picture a dot is a seed, a bar their mean ± standard deviation; the red band is the untrained encoder's.
- s an epoch: the median over the epochs of pretraining, without validation; other programs on the machine slow it down.
  GiB: the peak of its process, or of the GPU's memory. Without a value: the run's folder in `runs` is gone."""


def page(rows: Sequence[Row], compared: Sweep, heading: str) -> str:
    """The whole result, or what there is of it so far."""
    return "\n\n".join([heading, "\n".join(_lines(rows)), _NOTES, "\n".join(_parameters(compared))]) + "\n"


def _lines(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    header = ["", "seeds", "linear", "kNN", "augmented", f"- {first.name}", "- untrained", "- raw pixels"]
    header += ["s an epoch", "GiB", ""]
    lines = [_line(header), "|---" + "|--:" * 9 + "|---|"]
    for name, figure in (("untrained encoder", "untrained"), ("raw pixels", "raw_pixels")):
        lines.append(_line([name, str(len(first.outcomes)), _spread(first.values(figure)), *[""] * 8]))
    return lines + [_line(_cells(row, first)) for row in rows]


def _cells(row: Row, first: Row) -> list[str]:
    speeds = [outcome.speed for outcome in row.outcomes.values() if outcome.speed]
    return [
        row.name,
        str(len(row.outcomes)),
        *(_spread(row.values(figure)) for figure in ("linear", "knn", "augmented")),
        _spread(row.gains_over(first), signed=True) if row is not first else "",
        *(_spread(row.gains(baseline), signed=True) for baseline in ("untrained", "raw_pixels")),
        _spread([speed.epoch_seconds for speed in speeds], digits=2),
        _spread([speed.gibibytes for speed in speeds], digits=2),
        _remark(row),
    ]


def _spread(values: Sequence[float], *, signed: bool = False, digits: int = 1) -> str:
    return table.spread(values, signed, digits) if values else "-"


def _remark(row: Row) -> str:
    if row.failure:
        return f"**failed**: {row.failure}"
    if not row.outcomes:
        return "not run yet"
    words = ["one seed"] * (len(row.outcomes) == 1) + ["**not above the baselines**"] * (not row.above_baselines)
    return ", ".join(words)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _parameters(compared: Sweep) -> list[str]:
    """What each row sets."""
    return [f"- {row}: " + (f"`{' '.join(own)}`" if own else "as it is") for row, own in compared.rows.items()]
