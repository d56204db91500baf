"""The training of a range test: the recipe's own steps, at rates that rise instead of its schedule."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from simclr.core import params
from simclr.core.errors import Stopped, UserError, raise_all
from simclr.core.signals import Interruption
from simclr.distributed.session import Session
from simclr.lr_range.suggestion import Values, has_diverged
from simclr.tracking import progress
from simclr.training.recipe import Recipe, refusals, refusals_without_labels
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer


@dataclass(frozen=True)
class Curve:
    """The loss before the step at each rate, as far as the test came."""

    rates: Values
    """In the unit of `pretrain.optimizer.lr`: before scaling with the batch."""
    losses: Values
    diverged: bool
    """Whether the test ended because the loss diverged, or was not finite any more."""


def range_test(
    recipe: Recipe, data: PretrainData, session: Session, rates: Values, interruption: Interruption
) -> Curve:
    """Train by `recipe` from its initial weights, one step at each of the rising `rates`, until the loss diverges.

    The batches are those that a pretraining begins with, epoch by epoch; there is no warm-up.

    Raises:
        UserError: there are fewer images than in a batch, the recipe trains nothing or needs labels that are not there,
            or the first loss is not finite.
        Stopped: after a signal, once the current step is done.
    """
    parameters = recipe.parameters
    raise_all(refusals(recipe, len(data.source)))
    if not data.info.labelled:
        raise_all(refusals_without_labels(recipe))
    if not recipe.trains:
        raise params.refusal("pretrain.method", recipe.method.name, "one that trains the encoder")
    trainer = Trainer(recipe, data, session, RunContext())
    trainer.learner.model.train()
    batches = (
        batch
        for epoch in itertools.count(1)
        for batch in trainer.stream.epoch(epoch, parameters.batch_size, session, drop_last=True)
    )
    losses: list[float] = []
    diverged = False
    with progress.bar(len(rates), "step", "lr_range") as bar:
        for step, (rate, batch) in enumerate(zip(rates, batches, strict=False), 1):
            result = trainer.learner.step(batch, rate / parameters.optimizer.lr, min(1, step / trainer.steps))
            loss = result.loss.item()
            diverged = not math.isfinite(loss)
            if not diverged:
                losses.append(loss)
                diverged = has_diverged(np.array(losses))
            bar.set_postfix(lr=f"{rate:.2g}", loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if diverged:
                break
            if interruption.number:
                raise Stopped(interruption.number, f" at step {step} of {len(rates)}; nothing was written")
    if not losses:
        raise UserError("the loss is not finite before the first step")
    return Curve(rates[: len(losses)], np.array(losses), diverged)
