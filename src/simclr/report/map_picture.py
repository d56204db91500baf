"""The map of an embedding as a PNG file: equal input gives equal bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simclr.report.class_names import drawable, shorten
from simclr.report.figure import COLORS, open_figure

MARKERS = "o^"  # the second ten classes differ from the first by shape


def embedding_map(
    path: Path, points: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str], title: str
) -> None:
    """A scatter plot of points, colored by class; up to 100 classes are named in place, up to 20 in a legend too.

    Without classes all points have one color.

    Args:
        path: the PNG file; its parent folders are made.
        points: (N, 2), of a map with meaningless axes (t-SNE, UMAP).
        labels: (N,) of 0 ... C-1, or -1 without classes.
        classes: C names.
        title: stands above the map.
    """
    area = float(np.clip(12000 / max(1, len(points)), 5, 36))
    legend = 0 < len(classes) <= len(COLORS) * len(MARKERS)
    with open_figure(path, 1000 if legend else 900, 800) as figure:
        axes = figure.add_subplot(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        if not classes:
            axes.scatter(points[:, 0], points[:, 1], area, COLORS[0], linewidths=0, alpha=0.7)
        elif legend:
            handles = []
            for index in range(len(classes)):
                marker, color = MARKERS[index // len(COLORS)], COLORS[index % len(COLORS)]
                x, y = points[labels == index].T
                handles.append(axes.scatter(x, y, area, color, marker=marker, linewidths=0, alpha=0.85))
            # given, since labels of plots that begin with _ are left out
            names = [shorten(name) for name in drawable(classes)]
            figure.legend(handles, names, loc="outside right upper", markerscale=(30 / area) ** 0.5)
        else:
            # Neighboring labels get distant hues: multiples of the golden section, modulo 1.
            hues = colormaps["turbo"](np.arange(len(classes)) * 0.618034 % 1)
            axes.scatter(points[:, 0], points[:, 1], area, hues[labels], linewidths=0, alpha=0.7)
        if 0 < len(classes) <= 100:
            axes.margins(0.08)  # half a name, at the outermost points
            _name_medians(figure, axes, points, labels, drawable(classes))


def _name_medians(
    figure: Figure,
    axes: Axes,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: Sequence[str],
) -> None:
    """Write the names at the medians of their points, large classes first, skipping names that would overlap."""
    figure.draw_without_rendering()  # settles the layout, so that extents are final
    sizes = np.bincount(labels, minlength=len(names))
    placed: list[Any] = []
    for index in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        x, y = np.median(points[labels == index], axis=0)
        text = axes.annotate(  # above the median, whose point stays in sight
            shorten(names[index], 18), (x, y), (0, 4), textcoords="offset points", size=7, ha="center", va="bottom"
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="white")])
        extent = text.get_window_extent().padded(2)
        if any(extent.overlaps(other) for other in placed):
            text.remove()
        else:
            placed.append(extent)
