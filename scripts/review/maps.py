"""Embedding maps side by side: an image shows under the pointer, and where the other maps have it."""

import io
import random
from collections.abc import Sequence
from itertools import zip_longest

from review import embeddings
from review.column import Column
from review.embeddings import Embedding
from review.html import Markup, image, join, key, tag
from review.images import Images, NotShownError

PICTURE = "reports/draw/map.png"
"""What a column without a map here still has."""
MOST = 500
"""Images."""
SIDE = 32
"""Of an image, in pixels."""
_ACROSS = 25  # images in a row of the sheet
_NAMED = 20  # classes that a legend can hold
_SIZE, _RADIUS = 400, 4


def maps(columns: Sequence[Column]) -> tuple[Markup, set[str]]:
    """The maps of the `columns`, once where they are the same, and the names of the columns that have one. Why the
    others have none is said."""
    found: dict[str, tuple[Embedding, list[str]]] = {}
    reasons: dict[str, list[Column]] = {}
    for column in columns:
        try:
            embedding = embeddings.read(column.revision)
            found.setdefault(embedding.md5, (embedding, []))[1].append(column.name)
        except NotShownError as reason:
            reasons.setdefault(str(reason), []).append(column)
    drawn, names = Markup(""), {name for _, names in found.values() for name in names}
    try:
        drawn = _draw(list(found.values())) if found else drawn
    except NotShownError as reason:
        reasons.setdefault(str(reason), []).extend(column for column in columns if column.name in names)
        names = set()
    return join(drawn, *(_reason(words, without) for words, without in reasons.items())), names


def _reason(words: str, columns: Sequence[Column]) -> Markup:
    below = " map.png is among the pictures." if any(PICTURE in column.pictures for column in columns) else ""
    return tag("p", f"Not shown of {', '.join(column.name for column in columns)}: {words}.{below}")


def _draw(maps: Sequence[tuple[Embedding, list[str]]]) -> Markup:
    """Maps of one data set, the one in data/beton."""
    images = maps[0][0].images
    samples = sorted(set().union(*(embedding.points for embedding, _ in maps)))
    shown = _choose([embedding for embedding, _ in maps], samples)
    names, classes = images.names, images.classes
    words = [f"{names[sample]}, test image {sample}" if classes else f"test image {sample}" for sample in shown]
    figures = [
        tag("figure", tag("figcaption", ", ".join(columns)), _map(embedding, shown, f"map of {', '.join(columns)}"))
        for embedding, columns in maps
    ]
    legend = [key(name, _color(label, len(classes))) for label, name in enumerate(classes)]
    sheet = image(_sheet(images, shown), "jpeg", "", style=f"width:{100 * _ACROSS}%")
    some = f"{MOST} of {len(samples)} test images" if len(samples) > MOST else "Test images"
    note = (
        f"{some}, by t-SNE of their representations. Point at one, tap it, or go from one to the next with the arrow "
        "keys: its image appears, and a ring where each map has it. How a map is turned or mirrored means nothing."
    )
    return tag(
        "div",
        tag("p", *legend, class_="legend") if 0 < len(classes) <= _NAMED else "",
        tag("div", *figures, class_="row"),
        tag("p", note),
        tag("div", tag("div", sheet), tag("span"), class_="shown", hidden=""),
        tag("ol", *(tag("li", item) for item in words), hidden=""),
        class_="maps",
        data_across=_ACROSS,
    )


def _choose(maps: Sequence[Embedding], samples: Sequence[int]) -> list[int]:
    """At most `MOST` of the `samples`, each map's first ones in one random order: the same of each map if all maps have
    the same, and some of each if not."""
    order = random.Random(0).sample(samples, len(samples))
    own = ([sample for sample in order if sample in embedding.points] for embedding in maps)
    by_turns = dict.fromkeys(sample for turn in zip_longest(*own) for sample in turn if sample is not None)
    return sorted(list(by_turns)[:MOST])


def _map(embedding: Embedding, shown: Sequence[int], title: str) -> Markup:
    """The points of the samples that are `shown`; each names the cell of its image in the sheet."""
    own = {cell: embedding.points[sample] for cell, sample in enumerate(shown) if sample in embedding.points}
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*own.values(), strict=True))
    scale = (_SIZE - 4 * _RADIUS) / (max(right - left, high - low) or 1)
    by_color: dict[str, list[Markup]] = {}
    for cell, (x, y) in own.items():
        across = _SIZE / 2 + scale * (x - (left + right) / 2)
        down = _SIZE / 2 - scale * (y - (low + high) / 2)
        color = _color(int(embedding.images.test.labels[shown[cell]]), len(embedding.images.classes))
        circle = tag("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r=_RADIUS, data_cell=cell)
        by_color.setdefault(color, []).append(circle)
    groups = (tag("g", *circles, fill=color) for color, circles in by_color.items())
    return tag("svg", *groups, viewBox=f"0 0 {_SIZE} {_SIZE}", role="group", aria_label=title)


def _color(label: int, classes: int) -> str:
    """That of map.png for up to ten classes; of more classes, neighboring ones get distant hues."""
    from simclr.report.figure import COLORS

    return COLORS[max(0, label)] if classes <= len(COLORS) else f"hsl({label * 137.508 % 360:.0f},65%,50%)"


def _sheet(images: Images, samples: Sequence[int]) -> bytes:
    """A JPEG file of all images, in rows: a sixth of the bytes of as many PNG files of photographs."""
    from PIL import Image

    sheet = Image.new("RGB", (SIDE * _ACROSS, SIDE * -(-len(samples) // _ACROSS)))
    for k, cell in enumerate(images.cells(samples, SIDE)):
        sheet.paste(Image.fromarray(cell), (SIDE * (k % _ACROSS), SIDE * (k // _ACROSS)))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85, subsampling=0)
    return buffer.getvalue()
