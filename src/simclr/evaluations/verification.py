"""Whether two images are of the same class, as Siamese networks are asked (Chopra, Hadsell and LeCun 2005): a small
network classifies the two representations, concatenated, as the same or not.

Half of the pairs are of one class. The network, one hidden layer on frozen representations, is trained on pairs of
train; its threshold is the one with the highest accuracy on pairs of val. On pairs of test:

- accuracy: of the network with that threshold, in percent; 50 is chance.
- auc: the area under the receiver operating characteristic of its logits, in percent.
- cosine_accuracy, cosine_auc: the same of the cosine similarity, which learns nothing.

The table is the receiver operating characteristic of both: the true positives, in percent, by the false ones.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from simclr.core import params
from simclr.core.errors import UserError, raise_all
from simclr.core.randomness import permutation, uniform
from simclr.evaluations import Findings, Indices, Subject

NEEDS_LABELS = True
_BATCH = 256
_WEIGHT_DECAY = 1e-4
_RATES = np.linspace(0, 1, 51)
"""False positive rates of the table."""


@dataclass(kw_only=True)
class Params:
    """`evaluations.verification` of params.yaml."""

    pairs: int = params.between(2, 100_000)
    hidden: int = params.between(1, 8192)
    epochs: int = params.at_least(1)
    lr: float = params.above(0)


@dataclass(frozen=True)
class _Pairs:
    first: Tensor
    """(P, D) representations."""
    second: Tensor
    same: Tensor
    """(P,) 1.0 where both are of one class, else 0.0."""


def evaluate(parameters: Params, subject: Subject) -> Findings:
    """See `evaluations`.

    Raises:
        UserError: a split has no two images of one class, or one class alone; or the network's weights diverge.
    """
    raise_all(refusals({split: images.labels for split, images in subject.splits.items()}))
    train, val, test = (
        _pairs(subject, split, parameters.pairs, number) for number, split in enumerate(("train", "val", "test"))
    )
    scores: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "network": _trained(parameters, train, subject.seed),
        "cosine": F.cosine_similarity,
    }
    metrics: dict[str, float] = {}
    table: list[dict[str, float | str]] = [{"false_positives": 100 * rate} for rate in _RATES.tolist()]
    for name, score in scores.items():
        prefix = "" if name == "network" else f"{name}_"
        with torch.no_grad():
            on_val, on_test = (score(pairs.first, pairs.second).double().cpu().numpy() for pairs in (val, test))
        same = test.same.cpu().numpy()
        predicted = on_test >= best_threshold(on_val, val.same.cpu().numpy())
        metrics[f"{prefix}accuracy"] = 100 * float(np.mean(predicted == (same == 1)))
        metrics[f"{prefix}auc"] = 100 * float(roc_auc_score(same, on_test))
        false, true, _ = roc_curve(same, on_test)
        for row, rate in zip(table, np.interp(_RATES, false, true).tolist(), strict=True):
            row[name] = 100 * rate
    for row in table:
        row["chance"] = row["false_positives"]
    return Findings(metrics, table)


def refusals(labels: Mapping[str, Indices]) -> Iterator[UserError]:
    """See `evaluations`."""
    for split, own in labels.items():
        sizes = np.unique(own, return_counts=True)[1]
        if len(sizes) < 2 or sizes.max() < 2:
            yield UserError(
                f"evaluations.verification: {split} has no two images of one class, or one class alone; "
                "leave verification out of evaluate.evaluations"
            )


def _pairs(subject: Subject, split: str, count: int, number: int) -> _Pairs:
    labels = subject.splits[split].labels
    first, second = draw_pairs(labels, count, subject.seed, number)
    same = torch.from_numpy((labels[first] == labels[second]).astype(np.float32))
    return _Pairs(subject.rows(split, first), subject.rows(split, second), same.to(subject.session.device))


def draw_pairs(labels: Indices, count: int, *counters: int) -> tuple[Indices, Indices]:
    """`count` pairs of different samples, drawn with replacement, by turns of one class and of two.

    `labels` (N,) has two classes, and a class with two samples.
    """
    # The samples in the order of their classes: those of a class follow each other.
    order = np.argsort(labels, kind="stable")
    _, starts, class_at, sizes = np.unique(labels[order], return_index=True, return_inverse=True, return_counts=True)
    numbers = np.arange(count)

    def draw(name: int, bounds: int | Indices) -> Indices:
        return (uniform(*counters, name, numbers) * bounds).astype(np.int64)

    has_sibling = np.flatnonzero(sizes[class_at] > 1)
    first = np.where(numbers % 2 == 0, has_sibling[draw(0, len(has_sibling))], draw(1, len(labels)))
    start, size = starts[class_at[first]], sizes[class_at[first]]
    # another one of its class: 1 to size - 1 places on, cyclically in the class
    sibling = start + (first - start + 1 + draw(2, size - 1)) % size
    # one of another class: those after its class, cyclically
    stranger = (start + size + draw(3, len(labels) - size)) % len(labels)
    return order[first], order[np.where(numbers % 2 == 0, sibling, stranger)]


def best_threshold(scores: npt.NDArray[np.float64], same: npt.NDArray[np.float32]) -> float:
    """The score from which on pairs count as the same with the most correct decisions (N,); the highest of equals."""
    false, true, thresholds = roc_curve(same, scores, drop_intermediate=False)
    positives = same.sum()
    # whole numbers again, so that equals are equal
    correct = np.rint(true * positives) + np.rint((1 - false) * (len(same) - positives))
    return float(thresholds[np.argmax(correct)])


class _Head(nn.Module):
    """Logits (P,) of two representations (P, D)."""

    def __init__(self, h: Tensor, hidden: int) -> None:
        super().__init__()
        std, self.mean = torch.std_mean(h, dim=0, correction=0)
        self.std = torch.where(std > 0, std, 1.0)
        self.layers = nn.Sequential(nn.Linear(2 * h.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)).to(h.device)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat([(h - self.mean) / self.std for h in (first, second)], dim=1))
        return logits[:, 0]


def _trained(parameters: Params, pairs: _Pairs, seed: int) -> nn.Module:
    """The same on every rank, because all have the same pairs."""
    torch.manual_seed(seed)
    head = _Head(pairs.first, parameters.hidden)
    optimizer = torch.optim.AdamW(head.parameters(), lr=parameters.lr, weight_decay=_WEIGHT_DECAY)
    steps = parameters.epochs * -(-len(pairs.same) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(parameters.epochs):
        order = torch.from_numpy(permutation(len(pairs.same), seed, epoch)).to(pairs.same.device)
        for batch in order.split(_BATCH):
            ends = (pairs.first[batch], pairs.second[batch])
            # by turns, so that it does not matter which comes first
            loss = F.binary_cross_entropy_with_logits(head(*ends[:: 1 if epoch % 2 else -1]), pairs.same[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    if not all(weight.isfinite().all() for weight in head.parameters()):
        takes = "a lower rate: the network's weights are not finite with it"
        raise params.refusal("evaluations.verification.lr", parameters.lr, takes)
    return head
