"""The test images that the linear probe of one revision has right and that of another wrong, as pictures.

Predictions are in Git, images are not: they are shown where data/beton holds the data that both revisions are about.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from review import images, results
from review.html import Markup, join, picture, tag
from review.images import NotShownError
from review.revision import Revision
from review.verdict import PREDICTIONS

MOST = 24
"""Pictures of images gained, and of images lost."""
SIDE = 64
"""Of a picture, in pixels."""


@dataclass(frozen=True)
class Change:
    """A row of test that one probe has right, and the other takes for an image of the class `wrong`."""

    sample: int
    actual: str
    wrong: str


def changed_images(before: Revision, after: Revision) -> Markup:
    """What `after` has right and `before` wrong, and what it is the other way round; or a line that says why not."""
    title = tag("h3", f"{after.name}, compared with {before.name}")
    try:
        actual, [first, second] = _predictions([before, after])
        kinds = {
            f"gained, which {before.name} takes for others": changes(actual, first, second),
            f"lost, which {after.name} takes for others": changes(actual, second, first),
        }
        shown = [change for changes in kinds.values() for change in spread(changes)]
        pictures = dict(zip(shown, _pictures(_data(before, after), actual, shown), strict=True)) if shown else {}
    except NotShownError as reason:
        return join(title, tag("p", f"Not shown: {reason}."))
    return join(title, *(_gallery(words, changes, pictures) for words, changes in kinds.items()))


def changes(actual: Sequence[str], before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """The images that `after` has right and `before` wrong, in the order of test."""
    rows = enumerate(zip(actual, before, after, strict=True))
    return [Change(k, label, wrong) for k, (label, wrong, guess) in rows if guess == label != wrong]


def spread(changes: Sequence[Change]) -> list[Change]:
    """At most `MOST` of them, evenly from all of test, which has one class after another."""
    count = min(MOST, len(changes))
    return [changes[k * len(changes) // count] for k in range(count)]


def _predictions(revisions: Sequence[Revision]) -> tuple[list[str], list[list[str]]]:
    """The class of each test image, and the one that each revision predicts."""
    actual, predicted = [], []
    for revision in revisions:
        rows = results.table(revision, PREDICTIONS)
        if not rows or not {"actual", "predicted"} <= rows[0].keys():
            raise NotShownError(f"{revision.name} has no predictions of a linear probe")
        actual.append([row["actual"] for row in rows])
        predicted.append([row["predicted"] for row in rows])
    if not any(actual[0]):
        raise NotShownError("the test images have no labels")
    if actual[0] != actual[1]:
        raise NotShownError("the test images are not the same")
    return actual[0], predicted


def _data(before: Revision, after: Revision) -> str:
    """The digest of the data that the predictions of both are about."""
    digests = []
    for revision in (before, after):
        md5 = hashlib.md5(revision.read(PREDICTIONS) or b"", usedforsecurity=False).hexdigest()
        digests.append(images.data_of(revision, "linear_eval", PREDICTIONS, md5))
    if digests[0] != digests[1]:
        raise NotShownError("the data are not the same")
    return digests[0]


def _pictures(data: str, actual: Sequence[str], shown: Sequence[Change]) -> list[bytes]:
    """PNG files of images of test, from data/beton."""
    found = images.open_images(data)
    if found.names[: len(actual)] != actual:
        raise images.other_data()
    from PIL import Image

    files = []
    for cell in found.cells([change.sample for change in shown], SIDE):
        buffer = io.BytesIO()
        Image.fromarray(cell).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _gallery(words: str, changes: Sequence[Change], pictures: dict[Change, bytes]) -> Markup:
    if not changes:
        return tag("p", f"None {words.partition(',')[0]}.")
    cells = [
        tag(
            "figure",
            picture(pictures[change], f"test image {change.sample}"),
            tag("figcaption", f"{change.actual} taken for {change.wrong}"),
        )
        for change in spread(changes)
    ]
    rest = f"; {MOST} are shown" if len(changes) > MOST else ""
    return join(tag("p", f"{len(changes)} {words}{rest}."), tag("div", *cells, class_="images"))
