"""Evaluations of a frozen encoder. Each is a module of this package, by its name:

    NEEDS_LABELS = True     # where it does: it is left out for images without labels

    class Params: ...       # a dataclass: its section `evaluations.<name>` of params.yaml

    def evaluate(parameters: Params, subject: Subject) -> Findings: ...

    def refusals(labels: Mapping[str, Indices]) -> Iterator[UserError]: ...    # optional: why it cannot be had, by the
                                                                               # labels of each split

All ranks call it and get the same findings, whatever their number; what is drawn at random is drawn by `subject.seed`.
What it chooses, it chooses on val: test is read once, at the end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.core import options, params
from simclr.core.errors import UserError
from simclr.core.options import Option
from simclr.core.randomness import permutation
from simclr.data.beton import Beton
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform

FUNCTIONS = ("evaluate",)
"""A module has at least one of them: see `options.module`."""
Indices = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class EvaluateParams:
    """`evaluate` of params.yaml."""

    evaluations: list[str] = params.several(*options.names("evaluations"))
    seed: int = params.seed()


def refusals(evaluation: Option, labels: Mapping[str, Indices]) -> Iterator[UserError]:
    """Why `evaluation` cannot be had of images with these `labels` (N,) in each split."""
    if hasattr(evaluation.module, "refusals"):
        yield from evaluation.module.refusals(labels)


@dataclass(frozen=True)
class Subject:
    """A frozen encoder, and what it makes of the data."""

    encoder: Encoder
    transform: EvalTransform
    augmentations: Mapping[str, Option]
    """All augmentations, by name, with the parameters of params.yaml."""
    pretrained_with: Sequence[str]
    """The names of those that made the views of pretraining, in their order."""
    splits: Mapping[str, Beton]
    features: Mapping[str, Features]
    """Of the splits train, val and test, this rank's share each."""
    seed: int
    session: Session

    @property
    def classes(self) -> int:
        """The number of classes, by the largest label of all splits."""
        return int(max(split.labels.max() for split in self.splits.values())) + 1

    def draw(self, split: str, most: int, *counters: int) -> Indices:
        """At most so many samples of `split`, drawn by the seed and the `counters`."""
        return np.sort(permutation(len(self.splits[split]), self.seed, *counters)[:most])

    def rows(self, split: str, samples: Indices) -> Tensor:
        """The representations (n, D) of the `samples` (n,) of `split`, in their order, on every rank."""
        features = self.features[split]
        own = shares.own(features.count, self.session)
        here = np.flatnonzero((samples >= own.start) & (samples < own.stop))
        rows = features.h.new_zeros((len(samples), features.h.shape[1]))
        rows[torch.from_numpy(here).to(rows.device)] = features.h[
            torch.from_numpy(samples[here] - own.start).to(rows.device)
        ]
        return self.session.sum(rows)  # every row comes from one rank, the others add zeros


@dataclass(frozen=True)
class Findings:
    """What an evaluation found."""

    metrics: Mapping[str, float]
    """By name; accuracies in percent."""
    table: Sequence[Mapping[str, float | str]] = field(default=())
    """Rows for a picture, or none. The first column is the horizontal axis of the others, or names for bars; <name>_low
    and <name>_high are the interval of <name>."""
