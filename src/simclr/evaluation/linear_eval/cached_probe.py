"""Linear evaluation on cached features (Chen et al. 2020, section 2.2): logistic regression.

The strength of its regularisation is chosen by the loss on the validation split; the test split is read once, at the
end.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.evaluation.linear_eval import logistic_regression
from simclr.evaluation.linear_eval.linear_eval_params import CachedParams
from simclr.features.encode import Features
from simclr.features.knn import accuracy


@dataclass(frozen=True)
class ProbeResult:
    """Class scores (N, C) on test, what was chosen on validation and the accuracy there, 0 to 1."""

    scores: Tensor
    chosen: float
    val_accuracy: float


def probe_features(
    parameters: CachedParams, splits: dict[str, Features], classes: int, session: Session, title: str = ""
) -> ProbeResult:
    """Logistic regression on the features of train, its regularisation chosen on val, applied to test."""
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    chosen, strength = logistic_regression.select(
        train, val, classes, parameters.l2, parameters.max_iterations, session, title if session.is_main else ""
    )
    return probe_result(chosen, strength, val, test, session)


def probe_result(
    classifier: Callable[[Tensor], Tensor], chosen: float, val: Features, test: Features, session: Session
) -> ProbeResult:
    on_val, on_test = (shares.gathered(classifier(split.h), split.count, session).cpu() for split in (val, test))
    labels = shares.gathered(val.labels, val.count, session).cpu()
    return ProbeResult(on_test, chosen, accuracy(on_val, labels))
