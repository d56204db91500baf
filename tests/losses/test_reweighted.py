"""What the correction for false negatives reports."""

from functools import partial

import pytest
import torch

from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.distributed.softmax import differentiated
from simclr.losses import reweighted
from tests.contracts.test_losses import batch_of, option
from tests.helpers.ranks import ALONE, on_ranks


@pytest.mark.parametrize(("tau_plus", "share"), [(0.0, 0.0), (0.1, 0.0), (0.6, 0.5), (0.99, 0.5)])
def test_the_share_of_clamped_rows(tau_plus: float, share: float) -> None:
    """Negatives are at s = 0. Of samples with equal views tau+ e is taken off each 1, with opposite ones tau+ / e: this
    leaves more than the least possible, 1 / e, times 1 - tau+."""
    close = torch.eye(4)
    z = torch.cat([close, torch.cat([close[:2], -close[2:]])])
    loss = option("reweighted", temperature=1.0, beta=0.0, tau_plus=tau_plus)
    scalars = loss.module.scalars(z, batch_of(4, 2), loss.parameters, ALONE)
    assert {name: value.item() for name, value in scalars.items()} == {"clamped_rows": share}


def share_on_rank(session: Session) -> float:
    """Of the batch above: the rows that are clamped are of the last two samples, so of one rank alone."""
    close = torch.eye(4)
    z = torch.cat([close, torch.cat([close[:2], -close[2:]])])
    whole = batch_of(4, 2)
    own = torch.arange(4).tensor_split(session.world_size)[session.rank]
    rows = torch.cat([own, own + 4])
    batch = Batch((), whole.keys[rows], whole.labels[own], whole.samples[own], 2, 4)
    loss = option("reweighted", temperature=1.0, beta=0.0, tau_plus=0.6)
    share: float = loss.module.scalars(z[rows], batch, loss.parameters, session)["clamped_rows"].item()
    return share


def test_the_share_of_clamped_rows_is_of_the_global_batch() -> None:
    assert on_ranks(2, share_on_rank) == [0.5, 0.5]


def test_a_correction_that_leaves_next_to_nothing_has_a_finite_gradient() -> None:
    positive, statistics = torch.full((4, 1), -0.24999740719795227), torch.full((4, 1), -0.24999739229679108)
    parameters = option("reweighted", temperature=1.0, beta=0.0, tau_plus=0.5).parameters
    terms = differentiated(partial(reweighted._losses, parameters, 2))(positive, statistics)
    assert terms.attraction.isfinite().all()
    assert terms.weight.isfinite().all()
