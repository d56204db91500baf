"""Better, worse or within noise: two classifiers on the same test images, compared image by image."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from statistics import mean

PREDICTIONS = "reports/linear_eval/predictions.csv"
PROBES = {"predicted": "linear_eval.pretrained", "augmented": "linear_eval.augmented"}
"""Where the metrics of the columns of that file are."""
_UNEQUAL = 2
"""How many times the images of the smallest class the largest one has, from which on those means are compared too."""
ALPHA = 0.05
"""From this p-value on a difference counts as noise."""
NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Verdict:
    """A classifier before and after, on N test images."""

    name: str
    """The column of the table of predictions."""
    images: int
    right_before: int
    right_after: int
    gained: int
    """Images that only the one after has right."""
    lost: int
    """Images that only the one before has right."""

    @property
    def metric(self) -> str:
        """What this is the accuracy of."""
        return f"{PROBES[self.name]}.top1" if self.name in PROBES else self.name

    @property
    def difference(self) -> float:
        """Of the accuracy, in percentage points."""
        return 100 * (self.gained - self.lost) / self.images

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval of the difference, in percentage points: Wald's, paired, which is that of
        a paired bootstrap without the draws."""
        changed = self.gained + self.lost
        variance = changed - (self.gained - self.lost) ** 2 / self.images
        return 100 * NORMAL * math.sqrt(max(0.0, variance)) / self.images

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test: how likely so uneven a split of the changed images is, if both are as good."""
        changed = self.gained + self.lost
        fewer = min(self.gained, self.lost)
        ways = tail = 1  # of choosing 0 of the changed images, then up to `fewer`
        for k in range(fewer):
            ways = ways * (changed - k) // (k + 1)
            tail += ways
        return min(1.0, float(Fraction(2 * tail, 2**changed)))

    @property
    def word(self) -> str:
        if self.p_value >= ALPHA:
            return "within noise"
        return "better" if self.gained > self.lost else "worse"


@dataclass(frozen=True)
class OverClasses:
    """A classifier before and after, class by class."""

    metric: str
    """What the mean of the classes' accuracies is called."""
    parts: list[Verdict]
    """On the images of each class."""

    @property
    def before(self) -> float:
        """The mean of the classes' accuracies, in percent."""
        return 100 * mean(part.right_before / part.images for part in self.parts)

    @property
    def after(self) -> float:
        return 100 * mean(part.right_after / part.images for part in self.parts)

    @property
    def margin(self) -> float:
        """How far, in percentage points, the difference may be from 0 by noise: by McNemar's test, approximate and
        corrected for continuity, where each image weighs 1 / n of the n images of its class."""
        changed = [(part.gained + part.lost, part.images) for part in self.parts]
        spread = math.sqrt(sum(count / images**2 for count, images in changed))
        largest = max((1 / images for count, images in changed if count), default=0.0)
        return 100 * (NORMAL * spread + largest) / len(self.parts)

    @property
    def images(self) -> int:
        return sum(part.images for part in self.parts)


def verdicts(before: str, after: str) -> list[Verdict]:
    """Compare two tables of predictions: CSV with the column `actual`, and a column for each classifier.

    Raises:
        ValueError: a table is none, or the test images are not the same or without labels; says which.
    """
    actual, pairs = _compared(before, after)
    return [_verdict(name, actual, *pair) for name, pair in pairs.items()]


def over_classes(before: str, after: str) -> list[OverClasses]:
    """As `verdicts`, for the linear probes; nothing where the classes have about as many images each.

    Raises:
        ValueError: a table is none, or the test images are not the same or without labels; says which.
    """
    actual, pairs = _compared(before, after)
    members = defaultdict(list)
    for image, label in enumerate(actual):
        members[label].append(image)
    sizes = [len(images) for images in members.values()]
    if max(sizes) < _UNEQUAL * min(sizes):
        return []
    found = []
    for name in PROBES.keys() & pairs.keys():
        columns = (actual, *pairs[name])
        parts = [_verdict(name, *([column[i] for i in images] for column in columns)) for images in members.values()]
        found.append(OverClasses(f"{PROBES[name]}.balanced_accuracy", parts))
    return found


def _compared(before: str, after: str) -> tuple[list[str], dict[str, tuple[list[str], list[str]]]]:
    """The labels, and the predictions of each classifier before and after.

    Raises:
        ValueError: as `verdicts`.
    """
    tables = [_columns(before, "before"), _columns(after, "now")]
    first, second = (table["actual"] for table in tables)
    unlabelled = [when for when, actual in (("before", first), ("now", second)) if not any(actual)]
    if unlabelled:
        raise ValueError(f"the test images have no labels {' and '.join(unlabelled)}")
    if first != second:
        sizes = f"{len(first)} before, {len(second)} now" if len(first) != len(second) else "their classes differ"
        raise ValueError(f"the test images are not the same ({sizes})")
    if gone := tables[0].keys() - tables[1].keys():
        raise ValueError(f"there are no predictions now of {', '.join(sorted(gone))}")
    return first, {name: (own, tables[1][name]) for name, own in tables[0].items() if name != "actual"}


def labelled(table: bytes | None) -> bool:
    """Whether this is a table of predictions of images with labels, or was: a damaged one counts as such."""
    try:
        return any(_columns((table or b"").decode(errors="replace"), "")["actual"]) if table else False
    except ValueError:
        return True


def _columns(text: str, when: str) -> dict[str, list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:
        rows = []
    if len(rows) < 2 or "actual" not in rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"there is no table of predictions {when}")
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}


def _verdict(name: str, actual: list[str], before: list[str], after: list[str]) -> Verdict:
    def right(predicted: list[str]) -> Iterator[bool]:
        return (guess == truth for guess, truth in zip(predicted, actual, strict=True))

    pairs = list(zip(right(before), right(after), strict=True))
    return Verdict(
        name=name,
        images=len(actual),
        right_before=sum(first for first, _ in pairs),
        right_after=sum(second for _, second in pairs),
        gained=pairs.count((False, True)),
        lost=pairs.count((True, False)),
    )
