"""Penalties: terms that are added to the loss, on the representations h and on the weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params


@dataclass(kw_only=True)
class Strengths:
    """A section of `pretrain.penalty`."""

    l2: float = params.at_least(0)
    smooth_l1: float = params.at_least(0)


@dataclass(kw_only=True)
class PenaltyParams:
    """`pretrain.penalty` of params.yaml."""

    representations: Strengths
    weights: Strengths


def penalties(parameters: PenaltyParams, h: Tensor, groups: Iterable[dict[str, Any]]) -> list[Tensor]:
    """The terms of `parameters`, scalars; a strength of 0 makes none.

    On the representations h (N, D), in float32: `l2` times the mean of h^2, and `smooth_l1` times that of smooth_l1(h).
    On the weights w that decay in a method's `groups` (`Method.parameter_groups`): `l2` / 2 times the sum of w^2, whose
    gradient is that of weight decay, and `smooth_l1` times the sum of smooth_l1(w). smooth_l1(x) is x^2 / 2 up to
    |x| = 1, and |x| - 1/2 beyond (Girshick 2015, equation 3).
    """
    terms = []
    strengths = parameters.representations
    if strengths.l2 > 0:
        terms.append(strengths.l2 * h.float().square().mean())
    if strengths.smooth_l1 > 0:
        terms.append(strengths.smooth_l1 * _smooth_l1(h.float(), "mean"))
    strengths, weights = (
        parameters.weights,
        [weight for group in groups if group["decay"] for weight in group["params"]],
    )
    if strengths.l2 > 0:
        terms.append(strengths.l2 / 2 * torch.stack([weight.square().sum() for weight in weights]).sum())
    if strengths.smooth_l1 > 0:
        terms.append(strengths.smooth_l1 * torch.stack([_smooth_l1(weight, "sum") for weight in weights]).sum())
    return terms


def _smooth_l1(values: Tensor, reduction: str) -> Tensor:
    return F.smooth_l1_loss(values, torch.zeros_like(values), reduction=reduction)
