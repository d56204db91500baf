"""What the correction for false negatives reports."""

import pytest
import torch

from tests.contracts.test_losses import batch_of, option
from tests.helpers.ranks import ALONE


@pytest.mark.parametrize(("tau_plus", "share"), [(0.0, 0.0), (0.1, 0.0), (0.6, 0.5), (0.99, 0.5)])
def test_the_share_of_clamped_rows(tau_plus: float, share: float) -> None:
    """Negatives are at s = 0. Of samples with equal views tau+ e is taken off each 1, with opposite ones tau+ / e: this
    leaves more than the least possible, 1 / e, times 1 - tau+."""
    close = torch.eye(4)
    z = torch.cat([close, torch.cat([close[:2], -close[2:]])])
    loss = option("reweighted", temperature=1.0, beta=0.0, tau_plus=tau_plus)
    scalars = loss.module.scalars(z, batch_of(4, 2), loss.parameters, ALONE)
    assert {name: value.item() for name, value in scalars.items()} == {"clamped_rows": share}
