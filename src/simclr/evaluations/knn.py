"""The weighted k-nearest-neighbor classifier of Wu et al. 2018 (section 3.4) on test and on val, for several k.

top1_k<k> is the accuracy on test in percent, with _low and _high, its 95 % interval over the images (Wilson 1927);
val_top1_k<k> is that on val. A k larger than the smallest class of train is replaced by the size of that class, since
no more neighbors can be of it; the name has the k that was used. The table is the accuracy on test by k, with its
interval, up to the largest k.
"""

from dataclasses import dataclass

from simclr.core import params
from simclr.core.interval import limits
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
    most = knn.most_neighbors(subject.splits["train"].labels)
    sizes = sorted({min(k, most) for k in parameters.neighbors})
    steps = sorted({*(k for k in _STEPS if k < sizes[-1]), *sizes})
    on_test = _accuracies(subject, "test", steps, parameters.temperature)
    on_val = _accuracies(subject, "val", sizes, parameters.temperature)
    metrics: dict[str, float] = {}
    for split, prefix, accuracies in (("test", "", on_test), ("val", "val_", on_val)):
        for k in sizes:
            name = f"{prefix}top1_k{k}"
            metrics |= {name: accuracies[k], **limits(name, accuracies[k], subject.features[split].count)}
    images = subject.features["test"].count
    return Findings(
        metrics,
        [{"neighbors": k, "accuracy": top1, **limits("accuracy", top1, images)} for k, top1 in on_test.items()],
    )


def _accuracies(subject: Subject, split: str, sizes: list[int], temperature: float) -> dict[int, float]:
    """Top-1 in percent on `split`, by the number of neighbors in train, of which the last is the largest."""
    train, queries, session = subject.features["train"], subject.features[split], subject.session
    h, labels = (shares.all_gather(rows, queries.count, session) for rows in (queries.h, queries.labels))
    similarities, nearest = knn.neighbors(h, train.h, train.count, sizes[-1], session)
    votes = shares.all_gather(train.labels, train.count, session)[nearest]
    scores = {k: knn.scores(similarities[:, :k], votes[:, :k], subject.classes, temperature) for k in sizes}
    return {k: 100 * knn.accuracy(own, labels) for k, own in scores.items()}
