"""Linear evaluation with random crops and flips (Chen et al. 2020, appendix B.6).

A linear layer is trained on the output of the frozen encoder. Its learning rate is selected by the loss on the
validation split; the test split is read once, at the end.
"""

import logging
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from simclr.core.errors import UserError
from simclr.core.printable import join_names
from simclr.data.beton import Beton
from simclr.data.joined import join
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import freeze
from simclr.features.eval_transform import EvalTransform
from simclr.learning.schedule import scaled_lr
from simclr.linear_eval.cached_probe import ProbeResult, gathered_scores, probe_result
from simclr.linear_eval.linear_eval_params import LinearEvalParams
from simclr.methods import classifier
from simclr.methods.classifier import Classifier
from simclr.tracking import progress

_log = logging.getLogger(__name__)


def probe_augmented(
    parameters: LinearEvalParams,
    encoder: Encoder,
    transform: EvalTransform,
    splits: dict[str, Beton],
    features: dict[str, Features],
    session: Session,
    classes: int,
) -> ProbeResult:
    """A linear layer on the encoder's output for random crops and flips of train, by SGD with Nesterov momentum.

    One layer for each learning rate, all trained on the same pass through the encoder; the best on val is applied to
    test, trained anew on train and val before that if `parameters.refit`. Validation and test images are not augmented,
    so their cached `features` serve.
    """

    def trained(rates: list[float], train: Beton, title: str) -> nn.ModuleList:
        probe_params = parameters.augmented
        peaks = [scaled_lr(lr, probe_params.batch_size, "linear") for lr in rates]
        method = Classifier(freeze(encoder), classes, rates=peaks)
        steps = probe_params.epochs * -(-len(train) // probe_params.batch_size)
        with progress.bar(steps, "step", title, shown=session.is_main) as bar:
            classifier.fit(
                method, probe_params, train, transform, parameters.seed, probe_params.epochs, steps, session, bar,
                drop_last=False,
            )  # fmt: skip
        return method.layers

    rates = parameters.augmented.lr
    best = _best(trained(rates, splits["train"], "linear_eval"), rates, features, session)
    if not parameters.refit:
        return best
    (layer,) = trained([best.hyperparameter], join(splits["train"], splits["val"]), "linear_eval, train and val")
    with torch.no_grad():
        scores = gathered_scores(layer, features["test"], session)
    if not scores.isfinite().all():
        rate = f"{best.hyperparameter:g}"
        raise UserError(f"linear_eval.augmented.lr: {rate}, chosen on val, diverges on train and val; lower the rates")
    return replace(best, scores=scores)


@torch.no_grad()
def _best(heads: nn.ModuleList, rates: list[float], features: dict[str, Features], session: Session) -> ProbeResult:
    """The head with the lowest cross entropy on val, as in `logistic_regression.select`."""
    val = features["val"]
    labels = shares.all_gather(val.labels, val.count, session)
    losses = [F.cross_entropy(shares.all_gather(head(val.h), val.count, session), labels).item() for head in heads]
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    if not finite:
        raise UserError("linear_eval.augmented.lr: with none of these rates is the loss on val finite; lower them")
    if session.is_main and (diverged := [f"{rates[index]:g}" for index in range(len(rates)) if index not in finite]):
        _log.info(f"linear_eval.augmented.lr: the loss on val is not finite with {join_names(diverged)}")
    best = min(finite, key=losses.__getitem__)
    return probe_result(heads[best], rates[best], val, features["test"], session)
