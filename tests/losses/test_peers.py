"""Losses against those of lightly, where it is installed (`make bench` does so), and against solo-learn's formula."""

import math
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.contracts.test_losses import batch_of, option, projections, value_of

peers: Any = find_spec("lightly") and import_module("lightly.loss")
weights: Any = find_spec("lightly") and import_module("lightly.loss.dcl_loss").negative_mises_fisher_weights


def solo_learn(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss in solo-learn, written anew from its formula: rows with one label are each other's positives, and
    -log( sum of exp over the positives / sum of exp over all other rows ) of each row."""
    s = (F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / temperature).exp()
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = (labels[:, None] == labels) & ~itself
    return -((s * positive).sum(dim=1) / (s * ~itself).sum(dim=1)).log().mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_with_two_views_value_and_gradient_are_those_of_solo_learn(temperature: float) -> None:
    results = []
    for loss in (
        lambda z: value_of(option("nt_xent", temperature=temperature), z, batch_of(24, 2)),
        lambda z: solo_learn(z, torch.arange(24).repeat(2), temperature),
    ):
        z = projections(48, 16).requires_grad_()
        value = loss(z)
        value.backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "views", "labels"), [("nt_xent", 3, None), ("supervised", 2, [0, 1, 2] * 8)])
def test_with_more_positives_it_is_above_solo_learns(name: str, views: int, labels: list[int] | None) -> None:
    """Theirs is the logarithm of a sum over positives (Khosla et al. 2020, L_in but for a constant), which one close
    positive satisfies; ours a sum of logarithms, L_out, which asks for all of them, and is larger by Jensen's
    inequality, by log P at least, of P positives."""
    z = projections(24 * views, 16)
    classes = torch.tensor(labels) if labels else torch.arange(24)
    ours = value_of(option(name, temperature=0.5), z, batch_of(24, views, labels))
    theirs = solo_learn(z, classes.repeat(views), 0.5)
    positives = views * (8 if labels else 1) - 1
    assert ours > theirs + math.log(positives) - 1e-9


@pytest.mark.skipif(peers is None, reason="lightly is not installed")
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize(
    ("name", "changes", "peer"),
    [
        ("nt_xent", {}, lambda tau: peers.NTXentLoss(tau)),
        ("decoupled", {}, lambda tau: peers.DCLLoss(tau)),
        ("decoupled", {"weight_sigma": 0.5}, lambda tau: peers.DCLLoss(tau, weight_fn=weights)),
    ],
    ids=["nt_xent", "decoupled", "decoupled and weighted"],
)
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_value_and_gradient_are_those_of_lightly(
    name: str, changes: dict[str, Any], peer: Any, temperature: float
) -> None:
    results = []
    for loss in (
        lambda z: value_of(option(name, temperature=temperature, **changes), z, batch_of(24, 2)),
        lambda z: peer(temperature)(*z.chunk(2)),
    ):
        z = projections(48, 16).requires_grad_()
        value = loss(z)
        value.backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)
