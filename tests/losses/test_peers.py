"""Losses against those of lightly, where it is installed (`make bench` does so)."""

from typing import Any

import pytest
import torch

from tests.contracts.test_losses import batch_of, option, projections, value_of

peers: Any = pytest.importorskip("lightly.loss")
weights: Any = pytest.importorskip("lightly.loss.dcl_loss").negative_mises_fisher_weights


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
