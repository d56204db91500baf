"""The weighted k-nearest-neighbor classifier of Wu et al. 2018 (section 3.4) on test, for several k.

top1_k<k> is the accuracy in percent, with _low and _high, its 95 % interval over the test images (Wilson 1927). A k
larger than the smallest class of train is replaced by the size of that class, since no more neighbors can be of it; the
name has the k that was used. The table is the accuracy by k, up to the largest.
"""

from dataclasses import dataclass

import numpy as np

from simclr.core import params
from simclr.core.interval import wilson
from simclr.distributed import shares
from simclr.evaluations import Findings, Subject
from simclr.features import knn

NEEDS_LABELS = True
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of neighbors of the table."""


@dataclass(kw_only=True)
class Params:
    """`evaluations.knn` of params.yaml."""

    neighbors: list[int] = params.each_at_least(1)
    temperature: float = params.above(0)


def evaluate(parameters: Params, subject: Subject) -> Findings:
    """See `evaluations`."""
    train, test, session = subject.features["train"], subject.features["test"], subject.session
    smallest = int(np.unique(subject.splits["train"].labels, return_counts=True)[1].min())
    sizes = sorted({min(k, smallest) for k in parameters.neighbors})
    h, labels = (shares.all_gather(rows, test.count, session) for rows in (test.h, test.labels))
    similarities, nearest = knn.neighbors(h, train.h, train.count, sizes[-1], session)
    votes = shares.all_gather(train.labels, train.count, session)[nearest]

    accuracies = {}
    for k in sorted({*(k for k in _STEPS if k < sizes[-1]), *sizes}):
        scores = knn.scores(similarities[:, :k], votes[:, :k], subject.classes, parameters.temperature)
        accuracies[k] = knn.accuracy(scores, labels)
    metrics: dict[str, float] = {}
    for k in sizes:
        low, high = wilson(round(accuracies[k] * test.count), test.count)
        metrics |= {f"top1_k{k}": 100 * accuracies[k], f"top1_k{k}_low": 100 * low, f"top1_k{k}_high": 100 * high}
    return Findings(metrics, [{"neighbors": k, "accuracy": 100 * accuracy} for k, accuracy in accuracies.items()])
