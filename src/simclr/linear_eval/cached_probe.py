"""Linear evaluation on cached features (Chen et al. 2020, section 2.2): logistic regression.

The strength of its regularisation is selected by the loss on the validation split; the test split is read once, at the
end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import logistic_regression
from simclr.features.encode import Features
from simclr.features.knn import accuracy
from simclr.linear_eval.linear_eval_params import CachedParams


@dataclass(frozen=True)
class ProbeResult:
    """Class scores (N, C) on test, the hyperparameter selected on val, and the accuracy on val, 0 to 1."""

    scores: Tensor
    hyperparameter: float
    val_accuracy: float


def probe_features(
    parameters: CachedParams,
    splits: dict[str, Features],
    classes: int,
    session: Session,
    title: str = "",
    *,
    refit: bool = False,
) -> ProbeResult:
    """Fit logistic regression on the features of train, select its regularisation on val, and apply it to test; with
    `refit` it is fitted on train and val before that.
    """
    balanced = parameters.class_weights == "balanced"
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    probe, strength = logistic_regression.select(
        train,
        val,
        classes,
        parameters.l2,
        parameters.max_iterations,
        session,
        title if session.is_main else "",
        balanced=balanced,
    )
    result = probe_result(probe, strength, val, test, session)
    if not refit:
        return result
    both = Features(torch.cat([train.h, val.h]), torch.cat([train.labels, val.labels]), train.count + val.count)
    probe = logistic_regression.fit(
        both, classes, strength, parameters.max_iterations, session, balanced=balanced, in_place=True
    )
    return replace(result, scores=gathered_scores(probe, test, session))


def probe_result(
    classifier: Callable[[Tensor], Tensor], hyperparameter: float, val: Features, test: Features, session: Session
) -> ProbeResult:
    on_val, on_test = (gathered_scores(classifier, split, session) for split in (val, test))
    labels = shares.all_gather(val.labels, val.count, session).cpu()
    return ProbeResult(on_test, hyperparameter, accuracy(on_val, labels))


def gathered_scores(classifier: Callable[[Tensor], Tensor], split: Features, session: Session) -> Tensor:
    """The scores (N, C) of all images of `split`, on the CPU of every rank."""
    return shares.all_gather(classifier(split.h), split.count, session).cpu()
