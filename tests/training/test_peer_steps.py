"""The training step against that of lightly's parts, where it is installed, and of some lines of torch: the same views
and initial weights give the same losses, gradients, running statistics and weights."""

import dataclasses
import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.training.run_context import RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import stripes

LR, MOMENTUM, DECAY, TEMPERATURE, BATCH, EPOCHS = 4.0, 0.9, 5e-3, 0.5, 8, 2
Parts = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]
"""A projection head, and a loss of the projections of both views."""


def lightly(dimension: int, hidden: int, output: int, layers: int, batch_norm: bool) -> Parts:
    if not find_spec("lightly"):
        pytest.skip("lightly is not installed")
    heads: Any = import_module("lightly.models.modules")
    losses: Any = import_module("lightly.loss")
    return heads.SimCLRProjectionHead(dimension, hidden, output, layers, batch_norm), losses.NTXentLoss(TEMPERATURE)


def plain(dimension: int, hidden: int, output: int, layers: int, batch_norm: bool) -> Parts:
    parts: list[nn.Module] = []
    for width in [hidden] * (layers - 1) + [output]:
        parts += [nn.Linear(dimension, width, bias=not batch_norm)]
        parts += [nn.BatchNorm1d(width)] * batch_norm
        parts += [nn.ReLU()]
        dimension = width
    return nn.Sequential(*parts[:-1]), equation_1


def equation_1(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent as in Chen et al. 2020, section 2.1: the mean of l(i, j) over both orders of all positive pairs."""
    z = F.normalize(torch.cat([first, second]), dim=1)
    s = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
    partner = torch.arange(len(z)).roll(len(first))
    return F.cross_entropy(s, partner)


def load(peer: nn.Module, ours: nn.Module) -> None:
    """Give `peer` the weights of `ours`, which has the same layers under other names."""
    values = list(ours.state_dict().values())
    peer.load_state_dict(dict(zip(peer.state_dict(), values, strict=True)))


def assert_equal(peer: nn.Module, ours: nn.Module) -> None:
    torch.testing.assert_close(
        list(peer.state_dict().values()), list(ours.state_dict().values()), rtol=1e-8, atol=1e-10
    )
    for theirs, own in zip(peer.parameters(), ours.parameters(), strict=True):
        if own.requires_grad:
            torch.testing.assert_close(theirs.grad, own.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain head", "head with BatchNorm"])
@pytest.mark.parametrize("peer", [lightly, plain])
def test_every_step_is_that_of_the_peers_parts(
    peer: Callable[..., Parts], batch_norm: bool, layers: int, tmp_path: Path
) -> None:
    """Both views of lightly's parts go through the encoder together, as ours do: see docs/speed.md."""
    chosen = recipe(
        epochs=EPOCHS, batch_size=BATCH, losses__nt_xent__temperature=TEMPERATURE,
        methods__simclr__head__batch_norm=batch_norm, methods__simclr__head__layers=layers,
        optimizer__name="sgd", optimizer__lr=LR, optimizer__lr_scaling="linear", optimizer__momentum=MOMENTUM,
        optimizer__weight_decay=DECAY, optimizer__warmup_epochs=0,
    )  # fmt: skip
    trainer = Trainer(chosen, stripes(tmp_path, 32), ALONE, RunContext())
    method: Any = trainer.method.double()
    encoder = chosen.model.module.build(chosen.model.parameters, chosen.parameters.views.resolution).double()
    widths = chosen.method.parameters.head
    head, criterion = peer(method.encoder.dimension, widths.hidden, widths.output, layers, batch_norm)
    head = head.double()
    load(encoder, method.encoder)
    load(head, method.head)
    weights = [*encoder.parameters(), *head.parameters()]
    if batch_norm:
        weights.pop()  # the last shift, which SimCLR's authors leave out
    matrices = [weight for weight in weights if weight.ndim > 1]
    vectors = [weight for weight in weights if weight.ndim == 1]
    solver = torch.optim.SGD(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors}], LR * BATCH / 256, MOMENTUM
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.4] * 3, [0.3] * 3))
    encoder.train()
    head.train()
    trainer.learner.model.train()
    step, steps = 0, 32 // BATCH * EPOCHS
    for epoch in (1, 2):
        for batch in trainer.stream.epoch(epoch, BATCH, ALONE, drop_last=True, pieces=1, first=0):
            batch = dataclasses.replace(batch, images=(batch.images[0].double(),))
            views = (batch.images[0] - mean) / std
            for group in solver.param_groups:
                group["lr"] = LR * BATCH / 256 * (1 + math.cos(math.pi * step / steps)) / 2
            solver.zero_grad()
            loss = criterion(*head(encoder(views)).chunk(2))
            loss.backward()
            solver.step()
            found = trainer.learner.step(batch, trainer.lr(step) / trainer.peak_lr, step / steps)
            step += 1
            torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-8, atol=1e-10)
            assert_equal(encoder, method.encoder)
            assert_equal(head, method.head)
    assert step == steps
