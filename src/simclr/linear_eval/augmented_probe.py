"""Linear evaluation with random crops and flips (Chen et al. 2020, appendix B.6).

A linear layer is trained on the output of the frozen encoder. Its learning rate is selected by the loss on the
validation split; the test split is read once, at the end.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from simclr.augment import crop, flip
from simclr.core.errors import UserError
from simclr.core.options import Option
from simclr.data.beton import Beton
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import freeze
from simclr.features.eval_transform import EvalTransform
from simclr.learning import optimizer, placement
from simclr.learning.learner import Learner
from simclr.learning.schedule import scaled_lr, warmup_cosine
from simclr.linear_eval.cached_probe import ProbeResult, probe_result
from simclr.linear_eval.linear_eval_params import LinearEvalParams
from simclr.methods.classifier import Classifier
from simclr.tracking import progress
from simclr.views.compose import Views
from simclr.views.stream import ViewStream


def probe_augmented(
    parameters: LinearEvalParams,
    encoder: Encoder,
    transform: EvalTransform,
    train: Beton,
    features: dict[str, Features],
    session: Session,
    classes: int,
) -> ProbeResult:
    """A linear layer on the encoder's output for random crops and flips of `train`, by SGD with Nesterov momentum.

    One layer for each learning rate, all trained on the same pass through the encoder; the best on val is applied to
    test. Validation and test images are not augmented, so their cached `features` serve.
    """
    probe_params = parameters.augmented
    rates = [scaled_lr(lr, probe_params.batch_size, "linear") for lr in probe_params.lr]
    method = Classifier(freeze(encoder), classes, rates=rates)
    model = placement.place_model(method, session, compiled=False)
    groups = optimizer.with_decay(method.parameter_groups(), probe_params.weight_decay)
    solver = torch.optim.SGD(groups, momentum=probe_params.momentum, nesterov=probe_params.momentum > 0)
    learner = Learner(method, model, solver, transform, session)
    augmentations = (
        Option("augment", "crop", crop.Params(scale=probe_params.crop_scale, ratio=[3 / 4, 4 / 3])),
        Option("augment", "flip", flip.Params(probability=probe_params.flip)),
    )
    stream = ViewStream(train, (Views(augmentations, 1, transform.size, parameters.seed),), session.device)
    steps = probe_params.epochs * -(-len(train) // probe_params.batch_size)
    model.train()
    with progress.bar(steps, "step", "linear_eval", shown=session.is_main) as bar:
        batches = (
            batch
            for epoch in range(1, probe_params.epochs + 1)
            for batch in stream.epoch(epoch, probe_params.batch_size, session, drop_last=False)
        )
        for step, batch in enumerate(batches):
            learner.step(batch, warmup_cosine(step, steps, warmup_steps=0), (step + 1) / steps)
            bar.update()
    return _best(method.layers, probe_params.lr, features, session)


@torch.no_grad()
def _best(heads: nn.ModuleList, rates: list[float], features: dict[str, Features], session: Session) -> ProbeResult:
    """The head with the lowest cross entropy on val, as in `logistic_regression.select`."""
    val = features["val"]
    labels = shares.all_gather(val.labels, val.count, session)
    losses = [F.cross_entropy(shares.all_gather(head(val.h), val.count, session), labels).item() for head in heads]
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    if not finite:
        raise UserError("linear_eval.augmented.lr: with none of these rates is the loss on val finite; lower them")
    best = min(finite, key=losses.__getitem__)
    return probe_result(heads[best], rates[best], val, features["test"], session)
