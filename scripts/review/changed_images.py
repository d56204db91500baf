"""The test images that the linear probe of one revision has right and that of another wrong, as pictures.

Predictions are in Git, images are not: they are shown where data/beton holds the data that both revisions are about.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from review import results
from review.html import Markup, join, picture, tag
from review.revision import Revision
from review.verdict import PREDICTIONS

MOST = 24
"""Pictures of images gained, and of images lost."""
SIDE = 64
"""Of a picture, in pixels."""
BETON = Path("data/beton")


class NotShownError(Exception):
    """There are no pictures; says why."""


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
        shown = [change for changes in kinds.values() for change in changes[:MOST]]
        pictures = dict(zip(shown, _pictures(_data(before, after), actual, shown), strict=True)) if shown else {}
    except NotShownError as reason:
        return join(title, tag("p", f"Not shown: {reason}."))
    return join(title, *(_gallery(words, changes, pictures) for words, changes in kinds.items()))


def changes(actual: Sequence[str], before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """The images that `after` has right and `before` wrong, in the order of test."""
    rows = enumerate(zip(actual, before, after, strict=True))
    return [Change(k, label, wrong) for k, (label, wrong, guess) in rows if guess == label != wrong]


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
    """The digest of the data that the predictions of both are about.

    dvc.lock knows what linear_eval read, and the run.json of convert its digest. The run.json of linear_eval would not
    do: DVC brings results back from its run cache without it.
    """
    digests = []
    for revision in (before, after):
        locked = results.locked(revision, "linear_eval")
        md5 = hashlib.md5(revision.read(PREDICTIONS) or b"", usedforsecurity=False).hexdigest()
        record = results.flat(results.record(revision, "convert"))
        if locked.get(PREDICTIONS) != md5 or locked.get(str(BETON), "") != record.get(f"outs.{BETON}"):
            raise NotShownError(f"dvc.lock and run.json do not say which data {revision.name} is about")
        digests.append(str(record.get("fingerprints.data")))
    if digests[0] != digests[1]:
        raise NotShownError("the data are not the same")
    return digests[0]


def _pictures(data: str, actual: Sequence[str], shown: Sequence[Change]) -> list[bytes]:
    """PNG files of images of test, from data/beton."""
    if not BETON.is_dir():
        raise NotShownError(f"there is no {BETON} here")
    try:
        from simclr.core import fingerprint
        from simclr.core.errors import UserError
        from simclr.data import converted, loader
        from simclr.thumbnails import cells
    except ImportError as error:
        raise NotShownError(f"reading {BETON} needs the environment on the PATH ({error})") from error
    import numpy as np  # after simclr, which chooses the instructions that it uses
    from PIL import Image

    try:
        info = converted.load_info(BETON)
        test = converted.open_split(BETON, "test")
        same = fingerprint.of_values(info.digests) == data
        if not same or [info.classes[label] for label in test.labels[: len(actual)]] != actual:
            raise NotShownError(f"{BETON} holds other data here; `dvc checkout` may bring back those of a commit")
        images = loader.thumbnails(test, np.array([change.sample for change in shown]), SIDE)
    except UserError as error:
        raise NotShownError(str(error)) from error
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(cells.fit(image, SIDE)).save(buffer, "PNG")
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
        for change in changes[:MOST]
    ]
    rest = f"; {MOST} are shown" if len(changes) > MOST else ""
    return join(tag("p", f"{len(changes)} {words}{rest}."), tag("div", *cells, class_="images"))
