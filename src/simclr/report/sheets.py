"""Sheets of images as PNG files: equal input gives equal bytes, small enough for Git.

Images are uint8 arrays (H, W, 3) of any and of mixed sizes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from simclr.report.class_names import drawable, shorten
from simclr.report.figure import DPI, has_letters, open_figure, text_width
from simclr.thumbnails import cells

SAME, OTHER = "#009e73", "#d55e00"  # bluish green and vermilion of Okabe and Ito, 2008
MARGIN = 12  # pixels around and between the parts of a sheet
GAP = 3  # pixels between the cells of a sheet


def first_of_each_class(labels: NDArray[np.int64], classes: int, count: int) -> NDArray[np.int64]:
    """The first `count` samples of each of the first `classes` labels, by label; as many without labels (-1)."""
    if (labels == -1).all():
        return np.arange(min(classes * count, len(labels)))
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)[:classes]])


def contact_sheet(
    path: Path, images: Sequence[NDArray[np.uint8]], labels: Sequence[int], classes: Sequence[str], title: str
) -> None:
    """Samples of a split: a row for each class, by label, or a plain grid for an unlabelled split.

    Args:
        path: the PNG file; its parent folders are made.
        images: N images; 10 rows of 12 are as many as a file should hold.
        labels: N of 0 ... C-1, or -1 where there is no label.
        classes: C names.
        title: stands above the sheet.
    """
    names = drawable(classes)
    if set(labels) == {-1}:
        rows = [("", list(images[start : start + 12])) for start in range(0, len(images), 12)]
    else:
        rows = [
            (
                shorten(names[label]) if label >= 0 else "unlabelled",
                [image for image, label_of_image in zip(images, labels, strict=True) if label_of_image == label],
            )
            for label in sorted(set(labels))
        ]
    side = cells.side(images)
    step = side + GAP
    name_width = max(text_width(name, 8) for name, _ in rows)
    left = MARGIN + (name_width + MARGIN if name_width else 0)
    top = 4 * MARGIN - 6
    columns = max(len(row) for _, row in rows)
    width = max(left + columns * step - GAP, MARGIN + text_width(title, 9)) + MARGIN
    canvas = np.full((top + len(rows) * step - GAP + MARGIN, width, 3), 255, np.uint8)
    for y, (_, row) in zip(range(top, len(canvas), step), rows, strict=False):
        for x, image in zip(range(left, width, step), row, strict=False):
            canvas[y : y + side, x : x + side] = cells.fit(image, side)
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, top / 2, title, size=9, va="center_baseline")
        for y, (name, _) in zip(range(top, len(canvas), step), rows, strict=False):
            axes.text(left - MARGIN, y + side / 2, name, ha="right", va="center_baseline")


def neighbor_sheet(
    path: Path,
    queries: Sequence[NDArray[np.uint8]],
    labels: Sequence[int],
    classes: Sequence[str],
    neighbors: Sequence[Sequence[NDArray[np.uint8]]],
    correct: Sequence[Sequence[bool]] | None,
    title: str,
) -> None:
    """A row for each query and its nearest neighbors: a solid frame for the same class, else a dashed, crossed one.

    Args:
        path: the PNG file; its parent folders are made.
        queries: Q images.
        labels: Q of 0 ... C-1, or -1 without classes.
        classes: C names, which stand beside the queries.
        neighbors: for each query its K images, nearest first.
        correct: for each query K times whether the neighbor is of the query's class; None without labels.
        title: stands above the sheet.
    """
    side = cells.side([*queries, *(image for row in neighbors for image in row)])
    frame = 3  # pixels; drawn in the gap around a cell
    step = side + 2 * frame + GAP
    names = drawable(classes)
    shown = [shorten(names[label]) for label in labels] if classes else []
    edge = MARGIN + (max(text_width(name, 8) for name in shown) + MARGIN if shown else 0)
    left, top = edge + step + 2 * MARGIN, 6 * MARGIN
    legend = "" if correct is None else "solid green: same class as the query    dashed orange, crossed: another class"
    columns = len(neighbors[0])
    width = max(left + columns * step, MARGIN + max(text_width(title, 9), text_width(legend, 7))) + MARGIN
    canvas = np.full((top + len(queries) * step + 3 * MARGIN, width, 3), 255, np.uint8)
    for index, (query, row) in enumerate(zip(queries, neighbors, strict=True)):
        y = top + index * step
        for x, image in zip([edge, *range(left, width, step)], [query, *row], strict=False):
            canvas[y : y + side, x : x + side] = cells.fit(image, side)
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, 18, title, size=9, va="center_baseline")
        axes.text(edge, top - 16, "query", size=7, va="center_baseline")
        axes.text(left, top - 16, "nearest neighbors, nearest first", size=7, va="center_baseline")
        axes.text(MARGIN, len(canvas) - 18, legend, size=7, va="center_baseline")
        for index, name in enumerate(shown):
            axes.text(edge - MARGIN, top + index * step + side / 2, name, ha="right", va="center_baseline")
        for (row, column), same in np.ndenumerate(np.asarray(correct if correct is not None else [[]])):
            x, y = left + column * step, top + row * step
            corner, length = (x - frame / 2 - 0.5, y - frame / 2 - 0.5), side + frame
            axes.add_patch(
                Rectangle(
                    corner, length, length, fill=False, edgecolor=SAME if same else OTHER,
                    linewidth=frame * 72 / DPI, linestyle="solid" if same else (0, (2, 1)),
                )
            )  # fmt: skip
            if not same:
                axes.plot(x + side - 8, y + 8, "X", color=OTHER, markeredgecolor="white", markersize=7)


def search_sheet(
    path: Path,
    query: NDArray[np.uint8],
    neighbors: Sequence[NDArray[np.uint8]],
    similarities: Sequence[float],
    names: Sequence[str],
    title: str,
) -> None:
    """A query and, right of it in rows of six, the images found for it: rank, similarity and name below each.

    Args:
        path: the PNG file; its parent folders are made.
        query: an image.
        neighbors: K images, best first.
        similarities: K numbers.
        names: K; of a long one the end is shown, of one with letters that the font lacks nothing.
        title: stands above the sheet.
    """
    side, column = cells.side([query, *neighbors]), 108  # pixels; a name of some 15 letters is as wide
    line = 16  # pixels between two lines of text
    row = side + 2 * line + MARGIN
    left, top = MARGIN + column + 2 * MARGIN, 5 * MARGIN
    columns, rows = min(len(neighbors), 6), -(-len(neighbors) // 6)
    width = max(left + columns * column, MARGIN + text_width(title, 9)) + MARGIN
    canvas = np.full((top + rows * row + MARGIN, width, 3), 255, np.uint8)
    corners = [(MARGIN, top), *((left + index % 6 * column, top + index // 6 * row) for index in range(len(neighbors)))]
    for (x, y), image in zip(corners, [query, *neighbors], strict=True):
        canvas[y : y + side, x : x + side] = cells.fit(image, side)
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, 22, title, size=9, va="center_baseline")
        axes.text(MARGIN, top + side + line - 2, "query", size=7)
        captions = zip(corners[1:], similarities, names, strict=True)
        for rank, ((x, y), similarity, name) in enumerate(captions, start=1):
            below = y + side + line - 2
            axes.text(x, below, f"{rank}", size=7, weight="bold")
            axes.text(x + column - MARGIN, below, f"{similarity:.3f}", size=7, ha="right")
            if has_letters(name):
                axes.text(x, below + line, _end_of(name, column - MARGIN), size=6, color="0.35")


def _end_of(name: str, width: int) -> str:
    """The end of `name` that fits into `width` pixels at 6 points."""
    shown = name[-24:]
    while text_width("…" * (shown != name) + shown, 6) > width:
        shown = shown[1:]
    return "…" * (shown != name) + shown


def picture(path: Path, image: NDArray[np.uint8], title: str) -> None:
    """Write an image (H, W, 3) below a title.

    Args:
        path: the PNG file; its parent folders are made.
        image: uint8.
        title: stands above the image.
    """
    top = 4 * MARGIN - 6
    width = max(image.shape[1], text_width(title, 9) + 2 * MARGIN)
    canvas = np.full((top + len(image), width, 3), 255, np.uint8)
    canvas[top:, : image.shape[1]] = image
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, top / 2, title, size=9, va="center_baseline")


@contextmanager
def _sheet(path: Path, canvas: NDArray[np.uint8]) -> Iterator[Axes]:
    """Yield axes over the image `canvas` (H, W, 3), in pixels with y down; both are saved as `path` at the end."""
    height, width = canvas.shape[:2]
    with open_figure(path, width, height, layout=None) as figure:
        figure.figimage(canvas, zorder=-1)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        yield axes
