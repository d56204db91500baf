"""Early stopping: end a run that no longer gains on validation data."""

from dataclasses import dataclass

from simclr.core import params


@dataclass(kw_only=True)
class EarlyStoppingParams:
    """`pretrain.early_stopping` of params.yaml."""

    patience: int | None = params.at_least(1)
    min_gain: float = params.between(0, 100)


class EarlyStopping:
    """Follows an accuracy (percent) from validation to validation; with `patience: null` it never stops."""

    def __init__(self, parameters: EarlyStoppingParams) -> None:
        self._parameters = parameters
        self.best = float("-inf")
        self.best_epoch = 0
        self._without_gain = 0

    @property
    def active(self) -> bool:
        return self._parameters.patience is not None

    def gained(self, accuracy: float, epoch: int) -> bool:
        """Take note of the `accuracy` after `epoch`; whether it beats the best so far by the minimum gain.

        The gain must be positive even where `min_gain` is 0.
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
