"""The rows as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare.row import Row
from simclr.report.class_names import shorten
from simclr.report.figure import COLORS, open_figure

_PANELS = {"linear": "linear, %", "knn": "kNN, %", "augmented": "augmented, %"}


def draw(path: Path, rows: Sequence[Row]) -> None:
    """A line for each row, a panel for each accuracy, as the PNG file `path`.

    Each seed is a dot; the mean has a bar of a standard deviation to either side. Both baselines are beside linear.
    """
    with open_figure(path, 1000, 140 + 26 * len(rows)) as canvas:
        panels = canvas.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
        for axes, (figure, title) in zip(panels, _PANELS.items(), strict=True):
            for place, row in enumerate(rows):
                if not (values := row.values(figure)):
                    continue
                spread = statistics.stdev(values) if len(values) > 1 else 0
                axes.plot(values, [place] * len(values), "o", color=COLORS[0], alpha=0.35, markersize=3)
                axes.errorbar(
                    statistics.mean(values), place, xerr=spread, color=COLORS[0], marker="|", markersize=9, capsize=3
                )
            axes.set_title(title)
            axes.grid()
        if rows[0].outcomes:
            for name, color in (("untrained", COLORS[2]), ("raw_pixels", COLORS[3])):
                values = rows[0].values(name)
                panels[0].axvline(statistics.mean(values), color=color, linewidth=1, label=name.replace("_", " "))
                if len(values) > 1:
                    mean, deviation = statistics.mean(values), statistics.stdev(values)
                    panels[0].axvspan(mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
            canvas.legend(loc="outside lower center", ncols=2)
        panels[0].set_yticks(range(len(rows)), [shorten(row.name, 40) for row in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
