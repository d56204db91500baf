"""Better, worse or within noise: two classifiers on the same test images, compared image by image."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

PREDICTIONS = "reports/linear_eval/predictions.csv"
PROBES = {"predicted": "linear_eval.pretrained.top1", "augmented": "linear_eval.augmented.top1"}
"""The metrics of the columns of that file."""
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
        return PROBES.get(self.name, self.name)

    @property
    def difference(self) -> float:
        """Of the accuracy, in percentage points."""
        return 100 * (self.gained - self.lost) / self.images

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval of the difference, in percentage points (Wald, paired)."""
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


def verdicts(before: str, after: str) -> list[Verdict]:
    """Compare two tables of predictions: CSV with the column `actual`, and a column for each classifier.

    Raises:
        ValueError: a table is none, or the test images are not the same or without labels; says which.
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
    return [_verdict(name, first, own, tables[1][name]) for name, own in tables[0].items() if name != "actual"]


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
