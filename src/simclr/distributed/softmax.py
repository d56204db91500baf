"""Losses over pairs that are functions of log-sum-exps of an anchor's negatives: NT-Xent and its relatives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.device import kernels
from simclr.distributed.pairwise import Block, RowLosses

_MAX_LOGIT = 60.0
"""If |s| is at most this, exp(s) and its sums stay far below float32's maximum without a shift."""


@dataclass(frozen=True)
class SoftmaxTerms:
    """The losses of all K rows, and their derivatives."""

    loss: Tensor
    """(K,) L."""
    attraction: Tensor
    """(K, V - 1) -dL/dp."""
    weight: Tensor
    """(K, R): w exp(c_r s - shift) is the derivative with respect to c_r s, of the r-th log-sum-exp."""
    shift: Tensor
    """(K, R)."""


@dataclass(frozen=True)
class SoftmaxRule:
    """A `pairwise.Rule` with the statistics n_r = log sum over negatives j of exp(c_r s_ij).

    Args:
        rows: from p (K, V - 1) and n (K, R) of all rows.
        limit: the largest |s|.
        scales: c (R,).
    """

    rows: Callable[[Tensor, Tensor], SoftmaxTerms]
    limit: float
    scales: tuple[float, ...] = (1.0,)

    @property
    def _is_bounded(self) -> bool:
        return self.limit * max(self.scales) <= _MAX_LOGIT

    def statistics(self, block: Block) -> Tensor:
        return torch.stack([self._log_sum_exp(scaled) for scaled in self._scaled(block)], dim=1)

    def _log_sum_exp(self, scaled: Tensor) -> Tensor:
        """In place, where torch's own makes two copies."""
        if self._is_bounded:
            return _sums_of_exp(scaled).log_()
        largest = scaled.amax(dim=1)
        return scaled.sub_(largest[:, None]).exp_().sum(dim=1).log_().add_(largest)

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        rows = self.rows(positive, statistics)
        weights = [weight * scale for weight, scale in zip(rows.weight.unbind(1), self.scales, strict=True)]
        weight = torch.stack(weights, dim=1)
        terms = weight * (-rows.shift).exp() if self._is_bounded else torch.cat([weight, rows.shift], dim=1)
        return RowLosses(rows.loss, rows.attraction, terms)

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        total = None
        for r, scaled in enumerate(self._scaled(block)):
            if self._is_bounded:
                # exp(s) cannot overflow, so one exponential serves both
                part = _multiply_exp_(scaled, anchors[:, r], keys[:, r])
            else:
                shift = r + len(self.scales)
                # no similarity exceeds the log-sum-exp it is part of, except where rounding tells s_ij from s_ji
                part = scaled.sub(anchors[:, shift, None]).clamp_(max=0).exp_().mul_(anchors[:, r, None])
                part += scaled.sub_(keys[:, shift]).clamp_(max=0).exp_().mul_(keys[:, r])
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _scaled(self, block: Block) -> list[Tensor]:
        """c_r s for each scale; the one of scale 1 is the block itself."""
        return [block.similarity if scale == 1 else block.similarity * scale for scale in self.scales]


def _sums_of_exp(similarities: Tensor) -> Tensor:
    """Over each row of s (h, K), which may be overwritten: (h,)."""
    if _in_triton(similarities):
        from simclr.distributed import _softmax_triton  # imports Triton, which a CPU does not need

        return _softmax_triton.sums_of_exp(similarities)
    return similarities.exp_().sum(dim=1)


def _multiply_exp_(similarities: Tensor, anchors: Tensor, keys: Tensor) -> Tensor:
    """exp(s) (a + b) in place of s (h, K), with a (h,) and b (K,)."""
    if _in_triton(similarities):
        from simclr.distributed import _softmax_triton

        return _softmax_triton.multiply_exp_(similarities, anchors, keys)
    return similarities.exp_().mul_(anchors[:, None] + keys)


def _in_triton(similarities: Tensor) -> bool:
    return similarities.device.type == "cuda" and similarities.dtype == torch.float32 and _triton_works()


@cache
def _triton_works() -> bool:
    """Whether Triton can compile a kernel here."""

    def probe() -> None:
        from simclr.distributed import _softmax_triton

        _softmax_triton.sums_of_exp(torch.zeros(1, 1, device="cuda"))

    return kernels.work_here(probe, "the loss is")


def differentiated(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], SoftmaxTerms]:
    """`SoftmaxRule.rows` of a differentiable function from p (K, V - 1) and n (K, R) to the loss (K,) of each row."""

    def rows(positive: Tensor, statistics: Tensor) -> SoftmaxTerms:
        with torch.enable_grad():
            positive, statistics = positive.detach().requires_grad_(), statistics.detach().requires_grad_()
            value = loss(positive, statistics)
            slopes = torch.autograd.grad(value.sum(), (positive, statistics))
        return SoftmaxTerms(value.detach(), -slopes[0], slopes[1], statistics.detach())

    return rows


def nt_xent(positive: Tensor, negative: Tensor) -> SoftmaxTerms:
    """`SoftmaxRule.rows` of NT-Xent, of p (K, V - 1) and n (K, 1).

    The attraction, 1 / (V - 1) - exp(p_k - d) with d the log-sum-exp of all keys, is computed by a sigmoid, exact for
    two views, because its terms cancel for well aligned views and a small tau.
    """
    count = positive.shape[1]
    rest = _all_but_one(positive, negative[:, 0])
    margin = positive - rest
    attraction = torch.sigmoid(-margin) - (count - 1) / count
    denominator = torch.logaddexp(positive[:, 0], rest[:, 0])[:, None]
    return SoftmaxTerms(-F.logsigmoid(margin).mean(dim=1), attraction, torch.ones_like(denominator), denominator)


def nt_xent_losses(positive: Tensor, negative: Tensor) -> Tensor:
    """The losses of `nt_xent` alone, differentiable, of p (K, V - 1) and n (K,): for each row the mean over its
    positives of log(1 + exp(m_k - p_k)), m_k the log-sum-exp of all keys but the row itself and this positive."""
    return -F.logsigmoid(positive - _all_but_one(positive, negative)).mean(dim=1)


def _all_but_one(positive: Tensor, negative: Tensor) -> Tensor:
    """(K, V - 1): the log-sum-exp of n (K,) and of all p (K, V - 1) of the row but the k-th."""
    columns = positive.unbind(1)
    rest = []
    for k in range(len(columns)):
        total = negative
        for j, column in enumerate(columns):
            if j != k:
                total = torch.logaddexp(total, column)
        rest.append(total)
    return torch.stack(rest, dim=1)
