"""Early stopping: end a run whose validation accuracy no longer improves."""

from dataclasses import dataclass

from simclr.core import params


@dataclass(kw_only=True)
class EarlyStoppingParams:
    """`pretrain.early_stopping` of params.yaml."""

    watch: str = params.choice("knn_top1", "probe_top1")
    patience: int | None = params.at_least(1)
    min_gain: float = params.between(0, 100)


class EarlyStopping:
    """Tracks an accuracy (percent) over the validations; with `patience: null` it never stops."""

    def __init__(self, parameters: EarlyStoppingParams) -> None:
        self._parameters = parameters
        self.best = float("-inf")
        self.best_epoch = 0
        self._without_gain = 0

    @property
    def active(self) -> bool:
        return self._parameters.patience is not None

    def update(self, accuracy: float, epoch: int) -> bool:
        """Record the `accuracy` after `epoch`; return whether it beats the best so far by the minimum gain.

        The gain must be positive even if `min_gain` is 0.
        """
        better = accuracy > self.best and accuracy >= self.best + self._parameters.min_gain
        if better:
            self.best, self.best_epoch, self._without_gain = accuracy, epoch, 0
        else:
            self._without_gain += 1
        return better

    @property
    def exhausted(self) -> bool:
        patience = self._parameters.patience
        return patience is not None and self._without_gain >= patience
