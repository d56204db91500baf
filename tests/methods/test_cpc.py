"""Contrastive predictive coding between views; `tests/contracts/test_methods.py` tries what every method keeps."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from simclr.core.errors import UserError
from simclr.training.run_context import RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import stripes


def test_its_loss_and_gradient_are_the_papers(tmp_path: Path) -> None:
    """Equation 4 of van den Oord et al. 2018, as cross entropy over all views but the anchor; both sides learn."""
    trainer = Trainer(recipe(method="cpc"), stripes(tmp_path, 32), ALONE, RunContext())
    batch = next(trainer.stream.epoch(1, 8, ALONE, drop_last=True))
    images = tuple(views.double() for views in batch.images)
    method = trainer.method.double()
    outputs = method.forward(images, batch.keys)
    loss = method.loss(outputs, batch, ALONE)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, retain_graph=True)

    _, z, predictions = outputs
    similarity = F.normalize(predictions, dim=1) @ F.normalize(z, dim=1).T / 0.5
    similarity = similarity.masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(similarity, torch.arange(16).roll(8))
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_loss_that_takes_no_keys_is_refused() -> None:
    with pytest.raises(
        UserError, match=r'pretrain\.loss = "supervised" is not allowed.* where pretrain\.method is cpc'
    ):
        recipe(method="cpc", loss="supervised")
