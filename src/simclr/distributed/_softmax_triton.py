"""The passes of `softmax` over a block of similarities as one kernel each, for GPUs.

torch's own operations write what exp returns before they add it up, and write the sums of both rows' factors before
they multiply by them: 12 passes over the block forward and backward, where these make 6.
"""

import triton
import triton.language as tl
from torch import Tensor

_SUMMED, _MULTIPLIED = 4096, 2048
"""Similarities that a program holds in registers at once."""


def sums_of_exp(similarities: Tensor) -> Tensor:
    """The sum of exp(s) over each row of s (h, K) float32, contiguous: (h,)."""
    sums = similarities.new_empty(len(similarities))
    _sum_rows[(len(similarities),)](similarities, sums, similarities.shape[1], block=_SUMMED)
    return sums


def multiply_exp_(similarities: Tensor, anchors: Tensor, keys: Tensor) -> Tensor:
    """exp(s) (a + b) in place of s (h, K) float32, contiguous, with a (h,) and b (K,)."""
    height, width = similarities.shape
    grid = (height, triton.cdiv(width, _MULTIPLIED))
    _multiply[grid](similarities, anchors.contiguous(), keys.contiguous(), width, block=_MULTIPLIED)
    return similarities


@triton.jit  # type: ignore[untyped-decorator]
def _sum_rows(similarities, sums, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)  # times the width it can exceed an int32
    total = tl.zeros([block], tl.float32)
    for start in range(0, width, block):
        columns = start + tl.arange(0, block)
        total += tl.exp(tl.load(similarities + row * width + columns, mask=columns < width, other=float("-inf")))
    tl.store(sums + row, tl.sum(total, axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def _multiply(similarities, anchors, keys, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    places = similarities + row * width + columns
    factors = tl.load(anchors + row) + tl.load(keys + columns, mask=inside)
    tl.store(places, tl.exp(tl.load(places, mask=inside)) * factors, mask=inside)
