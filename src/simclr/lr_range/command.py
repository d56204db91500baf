"""A range test from the values of params.yaml to its picture."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from simclr.core import fingerprint, params_file, signals, tables
from simclr.core.errors import UserError
from simclr.data import converted
from simclr.learning.schedule import scaled_lr
from simclr.lr_range.picture import draw
from simclr.lr_range.range_test import range_test
from simclr.lr_range.suggestion import smooth, suggest, two_digits
from simclr.training import recipe as recipes
from simclr.training.pretrain import check_session, open_session_for
from simclr.training.pretrain_params import PretrainParams
from simclr.training.run_context import PretrainData

_BETON, _FOLDER = Path("data/beton"), Path("runs/lr_range")
RANGES = {"lars": (1e-4, 100.0), "sgd": (1e-5, 10.0), "adamw": (1e-6, 1.0)}
"""The first and the last rate for each optimizer, after scaling with the batch."""
_FEWEST, _MOST = 50, 100_000
"""Steps of a test; the fewest are six times the width of the smoothing."""


def run(values: dict[str, Any], lowest: float | None, highest: float | None, steps: int) -> None:
    """Do a range test of `steps` steps with the nested `values` of params.yaml, write its picture and table, and print
    the rate that it names.

    Args:
        lowest, highest: the first and the last rate, in the unit of `pretrain.optimizer.lr`; None: those of `RANGES`.

    Raises:
        UserError: a value is not allowed, nothing is converted yet, or there is more than one process.
        Stopped: as `range_test`.
    """
    recipe = recipes.checked(values, str(params_file.FILE))
    parameters = recipe.parameters
    first, last = _range(parameters, lowest, highest)
    if not _FEWEST <= steps <= _MOST:
        raise UserError(f"--steps = {steps} is not allowed; it takes an integer from {_FEWEST} to {_MOST}")
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UserError(f"environment: WORLD_SIZE = {processes}, but a range test is one process; unset it")
    if not converted.has_split(_BETON, parameters.split):
        raise UserError(
            f"{_BETON} has no {parameters.split} split to train on; `dvc repro convert` makes what there is"
        )
    data = PretrainData.open(_BETON, parameters.split)
    with (
        open_session_for(parameters) as session,
        signals.catch_signals(multi_process=False) as interruption,
    ):
        check_session(parameters, session)
        curve = range_test(recipe, data, session, np.geomspace(first, last, steps), interruption)
    suggestion = suggest(curve.rates, curve.losses, curve.diverged)
    name = parameters.optimizer.name
    path = _FOLDER / f"{name}-{fingerprint.of_values([values, first, last, steps])[:8]}.png"
    draw(path, curve, suggestion, f"learning-rate range test: {name}, {steps} steps")
    columns = zip(curve.rates, curve.losses, smooth(curve.losses), strict=True)
    tables.write_csv(
        path.with_suffix(".csv"), [{"lr": lr, "loss": loss, "smoothed": smoothed} for lr, loss, smoothed in columns]
    )
    end = f"diverges at {two_digits(curve.rates[-1])}" if curve.diverged else "does not diverge"
    print(f"lr_range: {len(curve.rates)} steps from {two_digits(first)} on; the loss {end}; {path} and .csv")
    named = "no rate is named" if suggestion.rate is None else f"pretrain.optimizer.lr: {two_digits(suggestion.rate)}"
    print(f"lr_range: {named} ({suggestion.reason})")


def _range(parameters: PretrainParams, lowest: float | None, highest: float | None) -> tuple[float, float]:
    optimizer = parameters.optimizer
    scale = scaled_lr(1.0, parameters.batch_size, optimizer.lr_scaling)
    low, high = (rate / scale for rate in RANGES[optimizer.name])
    first, last = low if lowest is None else lowest, high if highest is None else highest
    if not 0 < first < last < math.inf:
        raise UserError(f"--lowest {first:g} --highest {last:g} is not allowed; it takes 0 < lowest < highest")
    return first, last
