"""The linear probe on cached features: multinomial logistic regression."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.report import progress


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
    features: Tensor, labels: Tensor, classes: int, l2: float, iterations: int, start: Probe | None = None
) -> Probe:
    """The probe that minimises mean cross entropy + l2 / 2 |weights|^2 over `features` (N, D), `labels` (N,).

    Full-batch L-BFGS in the type of the features, from zeros or from `start` (Chen et al. 2020, appendix B.8, for the
    linear evaluation by transfer).
    """
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    inputs = (features - mean) / std
    weights = start.weights.clone() if start else inputs.new_zeros(classes, inputs.shape[1])
    bias = start.bias.clone() if start else inputs.new_zeros(classes)
    weights.requires_grad_(True)
    bias.requires_grad_(True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        # Weights are (C, D) because the gradient of inputs @ (D, C) is 40 times slower on a CPU where C is small.
        loss = F.cross_entropy(F.linear(inputs, weights, bias), labels) + l2 / 2 * weights.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    return Probe(mean, std, weights.detach(), bias.detach())


def select(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: int,
    strengths: list[float],
    iterations: int,
    title: str = "",
) -> tuple[Probe, float]:
    """The probe, fitted on `train`, that predicts `val` best, and its strength among `strengths`.

    Judged by cross entropy: on a few hundred images, accuracy cannot tell one strength from another. Each fit starts
    from the one before, strongest first. A `title` shows a progress bar.
    """
    best: tuple[float, Probe, float] | None = None
    probe = None
    with progress.bar(len(strengths), "fit", title, shown=bool(title)) as bar:
        for strength in sorted(strengths, reverse=True):
            probe = fit(*train, classes, strength, iterations, probe)
            loss = F.cross_entropy(probe(val[0]), val[1]).item()
            if best is None or loss < best[0]:
                best = loss, probe, strength
            bar.update()
    assert best is not None
    return best[1:]
