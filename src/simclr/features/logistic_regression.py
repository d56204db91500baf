"""A linear classifier of features: multinomial logistic regression."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core.errors import UserError
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features
from simclr.tracking import progress

_ROWS = 1 << 14
"""Features in a block that is copied to float64."""
_SCORES = 1 << 26
"""Class scores in a block: 256 MiB of float32."""


@dataclass(frozen=True)
class Probe:
    """Class scores of features (N, D): standardised, then `weights` (C, D) and `bias` (C,)."""

    mean: Tensor
    std: Tensor
    weights: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return F.linear((features - self.mean) / self.std, self.weights, self.bias)


def fit(
    train: Features,
    classes: int,
    l2: float,
    iterations: int,
    session: Session,
    start: Probe | None = None,
    *,
    balanced: bool = False,
    in_place: bool = False,
) -> Probe:
    """The probe that minimises mean cross entropy + l2 / 2 |weights|^2 over `train`, the same on every rank.

    `balanced` weighs the images so that every class of `train` weighs the same (`class_weights`). With `in_place` the
    features of `train` are standardised themselves, instead of a copy.

    Full-batch L-BFGS in the type of the features, from zeros or from `start` (Chen et al. 2020, appendix B.8, for the
    linear evaluation by transfer). Each rank adds the gradient of its share of the features.
    """
    inputs, blank = _standardise(train, classes, session, in_place=in_place)
    by_class = class_weights(train, classes, session) if balanced else None
    return _solve(inputs, train, by_class, l2, iterations, session, start or blank)


def class_weights(split: Features, classes: int, session: Session) -> Tensor:
    """n / (C n_c), of a class c with n_c of the n images of `split`, C of whose classes have images: (classes,) in the
    type of the features, the same on every rank (scikit-learn's class_weight="balanced", after King and Zeng 2001).
    Their mean over the images is 1.
    """
    counts = session.sum(torch.bincount(split.labels, minlength=classes))
    present = (counts > 0).sum()
    return (split.count / (present * counts.clamp(min=1)).double()).to(split.h.dtype)


def _standardise(train: Features, classes: int, session: Session, *, in_place: bool = False) -> tuple[Tensor, Probe]:
    """This rank's rows with zero mean and unit variance over all ranks, and a zero probe with this standardisation.

    Sums are in float64, so that the mean of a constant feature is exactly its value for any number of ranks: a
    deviation from rounding alone would blow the feature up.
    """
    h = train.h
    mean = _mean(h, 1, train.count, session).to(h.dtype)
    inputs = h.sub_(mean) if in_place else h - mean
    std = _mean(inputs, 2, train.count, session).sqrt().to(h.dtype)
    std = torch.where(std > 0, std, 1.0)
    zeros = h.new_zeros(classes, h.shape[1])
    return inputs.div_(std), Probe(mean, std, zeros, zeros[:, 0].clone())


def _mean(rows: Tensor, power: int, count: int, session: Session) -> Tensor:
    """The mean of a power of the `rows` of all ranks, `count` in all, in float64."""
    parts = [part.double().pow(power).sum(dim=0) for part in rows.split(_ROWS)]
    return session.sum(torch.stack(parts).sum(dim=0)) / count


def _solve(
    inputs: Tensor,
    train: Features,
    by_class: Tensor | None,
    l2: float,
    iterations: int,
    session: Session,
    start: Probe,
) -> Probe:
    weights, bias = start.weights.clone(), start.bias.clone()
    solver = torch.optim.LBFGS([weights, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        loss, *gradients = _cross_entropy(inputs, train.labels, train.count, weights, bias, by_class)
        weights.grad, bias.grad = (session.sum(gradient) for gradient in gradients)
        weights.grad += l2 * weights
        return session.sum(loss) + l2 / 2 * weights.square().sum()

    solver.step(objective)
    return Probe(start.mean, start.std, weights.detach(), bias.detach())


def _cross_entropy(
    inputs: Tensor, labels: Tensor, count: int, weights: Tensor, bias: Tensor, by_class: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed cross entropy of the rows of `inputs` over `count`, and its gradients by `weights` and `bias`. Each
    row weighs as `by_class` (C,) says of its label, or 1.

    Computed block by block: with many classes, the scores of all rows would take more memory than the rows.
    """
    height = max(1, _SCORES // len(weights))
    total, by_weights, by_bias = inputs.new_zeros(()), torch.zeros_like(weights), torch.zeros_like(bias)
    for rows, targets in zip(inputs.split(height), labels.split(height), strict=True):
        # Weights are (C, D) because the gradient of inputs @ (D, C) is 40 times slower on a CPU where C is small.
        log_probabilities = F.linear(rows, weights, bias).log_softmax(dim=1)
        total += F.nll_loss(log_probabilities, targets, by_class, reduction="sum") / count
        errors = log_probabilities.exp_().div_(count)
        errors.scatter_add_(1, targets[:, None], errors.new_full((len(targets), 1), -1 / count))
        if by_class is not None:
            errors *= by_class[targets, None]
        by_weights.addmm_(errors.T, rows)
        by_bias += errors.sum(dim=0)
    return total, by_weights, by_bias


def select(
    train: Features,
    val: Features,
    classes: int,
    strengths: list[float],
    iterations: int,
    session: Session,
    title: str = "",
    *,
    balanced: bool = False,
) -> tuple[Probe, float]:
    """The probe, fitted on `train`, that predicts `val` best, and its strength among `strengths`.

    The criterion is cross entropy, because on a few hundred images accuracy does not separate the strengths. Each fit
    starts from the one before, strongest first. A `title` shows a progress bar. With `balanced` every class weighs the
    same in the loss, on `train` and on `val`.

    Raises:
        UserError: no loss is finite.
    """
    best: tuple[float, Probe, float] | None = None
    inputs, probe = _standardise(train, classes, session)
    labels = shares.all_gather(val.labels, val.count, session)
    on_train, on_val = (class_weights(split, classes, session) if balanced else None for split in (train, val))
    with progress.bar(len(strengths), "fit", title, shown=bool(title)) as bar:
        for strength in sorted(strengths, reverse=True):
            probe = _solve(inputs, train, on_train, strength, iterations, session, probe)
            loss = F.cross_entropy(shares.all_gather(probe(val.h), val.count, session), labels, on_val).item()
            if math.isfinite(loss) and (best is None or loss < best[0]):
                best = loss, probe, strength
            bar.update()
    if best is None:
        raise UserError("linear_eval.cached.l2: with none of these strengths is the loss on val finite")
    return best[1:]
