"""What losses over pairs ask of the device; their values are in tests/contracts/test_losses.py."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmarks.fake_memory import CUDA, MIB, counted
from torch import Tensor

from simclr.core import options
from simclr.data.batch import Batch
from simclr.distributed import pairwise, softmax
from simclr.distributed.pairwise import mean_over_rows, other_views
from simclr.distributed.session import Session
from simclr.distributed.similarity import Compared, Similarity
from simclr.distributed.softmax import SoftmaxRule, nt_xent
from tests.contracts.test_losses import option, projections
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

    needs_input_grad = (True, False)
    """Of z and of keys."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


@pytest.mark.parametrize(
    ("temperature", "triton", "blocks", "share"),
    [(0.1, True, 1, 1 / 16), (0.1, False, 2, 1 / 11), (0.01, False, 2, 1 / 11)],
)
def test_on_a_gpu_8192_samples_take_a_small_share_of_the_dense_form(
    temperature: float, triton: bool, blocks: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which holds the similarities, their log-softmax and its gradient at once. Kernels make nothing but their results;
    without Triton, or for similarities of more than 60, torch's operations make a second block."""
    monkeypatch.setattr(softmax, "_triton_works", lambda: False)
    if triton:
        monkeypatch.setattr(softmax, "_sums_of_exp", lambda similarities: similarities.new_empty(len(similarities)))
        monkeypatch.setattr(softmax, "_multiply_exp_", lambda similarities, *_: similarities)
    rows, block, context = 2 * 8192, 128 * MIB, Context()
    with counted() as peak:
        z = torch.empty(rows, 128, device=CUDA)
        rule, alone = SoftmaxRule(nt_xent, 1 / temperature), Session(rank=0, world_size=1, device=CUDA)
        pairwise._MeanOverRows.forward(context, z, None, None, 2, Similarity(temperature), rule, alone)
        pairwise._MeanOverRows.backward(context, torch.ones((), device=CUDA))
    dense = 3 * rows**2 * 4
    assert block < peak.gpu < dense * share
    assert peak.gpu < blocks * block + 10.5 * rows * 128 * 4  # and ten tensors like z


@pytest.mark.parametrize("name", options.names("losses"))
def test_no_loss_holds_the_similarities_of_a_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of them, and tensors of a few numbers for each row."""
    rows, block = 4096, 1 << 18
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
    with counted() as peak:
        loss, numbers = option(name), torch.arange(rows)
        batch = Batch((), numbers, numbers[: rows // 2], numbers[: rows // 2], 2, rows // 2)
        z = torch.empty(rows, 32, requires_grad=True)
        loss.module.loss(z, batch, loss.parameters, ALONE).backward()
    assert 4 * block < peak.host < 4 * rows**2 / 5
