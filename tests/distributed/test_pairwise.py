"""What losses over pairs ask of the device; their values are in tests/contracts/test_losses.py."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmarks.fake_memory import CUDA, MIB, counted
from torch import Tensor

from simclr.distributed import pairwise, softmax
from simclr.distributed.pairwise import mean_over_rows, other_views
from simclr.distributed.session import Session
from simclr.distributed.similarity import Compared, Similarity
from simclr.distributed.softmax import SoftmaxRule, nt_xent
from tests.contracts.test_losses import projections
from tests.helpers.ranks import ALONE


def test_positives_are_the_other_views() -> None:
    assert [rows.tolist() for rows in other_views(torch.arange(6), 2)] == [[3, 4, 5, 0, 1, 2]]
    assert [rows.tolist() for rows in other_views(torch.arange(6), 3)] == [[2, 3, 4, 5, 0, 1], [4, 5, 0, 1, 2, 3]]


def test_its_products_are_not_those_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    blocks = pairwise._blocks

    def watched(*arguments: Any) -> Iterator[Any]:
        used.append(torch.backends.cuda.matmul.fp32_precision)
        return blocks(*arguments)

    monkeypatch.setattr(pairwise, "_blocks", watched)
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        rows = Compared(projections(8).requires_grad_(), Similarity(0.1), None)
        mean_over_rows(rows, 2, SoftmaxRule(nt_xent, 10), ALONE).backward()
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    assert used == ["ieee", "ieee"]


class Context:
    """Of an autograd function: its engine knows no device that is not there."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_on_a_gpu_8192_samples_take_a_sixteenth_of_the_dense_form(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which holds the similarities, their log-softmax and its gradient at once; kernels in Triton would take less."""
    monkeypatch.setattr(softmax, "_triton_works", lambda: False)
    rows, context = 2 * 8192, Context()
    with counted() as peak:
        z = torch.empty(rows, 128, device=CUDA)
        rule, alone = SoftmaxRule(nt_xent, 1 / temperature), Session(rank=0, world_size=1, device=CUDA)
        pairwise._MeanOverRows.forward(context, z, 2, Similarity(temperature), None, rule, alone)
        pairwise._MeanOverRows.backward(context, torch.ones((), device=CUDA))
    dense = 3 * rows**2 * 4
    assert 64 * MIB < peak.gpu < dense / 16
    assert peak.gpu < 64 * MIB + 10.5 * rows * 128 * 4  # the block, and ten tensors like z
