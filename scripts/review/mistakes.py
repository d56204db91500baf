"""What the linear probe takes for what, on test: the differences of confusion matrices."""

from collections import Counter
from collections.abc import Sequence

from review import results
from review.revision import Revision
from review.verdict import PREDICTIONS

MOST = 40


def mistakes(revisions: Sequence[Revision]) -> tuple[list[str], list[dict[str, float]]]:
    """Pairs of a class and what it is taken for, in words, those first whose numbers differ most among the
    `revisions`, or else the most frequent ones; and for each revision the number of images of each pair.

    Of several revisions only pairs whose numbers differ count. There are none if the test images are not the same.
    """
    tables = [results.table(revision, PREDICTIONS) for revision in revisions]
    actual = [[row.get("actual", "") for row in rows] for rows in tables]
    if any(labels != actual[0] for labels in actual) or not any(actual[0]):
        return [], []
    counts = [
        Counter(
            f"{row['actual']} taken for {row['predicted']}"
            for row in rows
            if row.get("predicted", row["actual"]) != row["actual"]
        )
        for rows in tables
    ]
    names = sorted(set().union(*counts), key=lambda name: (-_spread(name, counts), -counts[0][name], name))
    differing = [name for name in names if len(counts) == 1 or _spread(name, counts)]
    return differing[:MOST], [{name: float(count[name]) for name in differing[:MOST]} for count in counts]


def _spread(name: str, counts: Sequence[Counter[str]]) -> int:
    numbers = [count[name] for count in counts]
    return max(numbers) - min(numbers)
