"""The section `linear_eval` of params.yaml."""

from dataclasses import dataclass

from simclr.core import params
from simclr.core.errors import raise_all
from simclr.data import sampling


@dataclass(kw_only=True)
class CachedParams:
    """`linear_eval.cached` of params.yaml."""

    l2: list[float] = params.each_above(0)
    max_iterations: int = params.at_least(1)
    class_weights: str = params.choice("none", "balanced")


@dataclass(kw_only=True)
class AugmentedParams:
    """`linear_eval.augmented` of params.yaml."""

    epochs: int = params.at_least(1)
    batch_size: int = params.at_least(1)
    shuffle_window: int | None = params.at_least(2)
    lr: list[float] = params.each_above(0)
    momentum: float = params.between(0, 0.9999)
    weight_decay: float = params.at_least(0)
    crop_scale: list[float] = params.interval(0.0001, 1)
    flip: float = params.between(0, 1)


@dataclass(kw_only=True)
class LinearEvalParams:
    """`linear_eval` of params.yaml."""

    seed: int = params.seed()
    refit: bool
    cached: CachedParams
    augmented: AugmentedParams


def check(parameters: LinearEvalParams, origin: str) -> None:
    """Compare the values.

    Raises:
        UserError: fewer samples are shuffled at a time than a batch has.
    """
    probe = parameters.augmented
    raise_all(sampling.window_refusals("linear_eval.augmented", probe.shuffle_window, probe.batch_size, origin))
