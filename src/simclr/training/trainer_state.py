"""The progress of a run of pretraining."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class TrainerState:
    """The progress of a run, apart from weights and optimiser."""

    losses: Tensor
    """The sum of the losses over the steps of this epoch, on this rank."""
    epoch: int = 1
    """The current epoch."""
    epoch_step: int = 0
    """Finished steps of this epoch."""
    history: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Encoder and head of the best validation so far, if early stopping is active."""
    starts: dict[int, int] = field(default_factory=dict)
    """As in `PretrainResult`."""

    def begin(self, epoch: int) -> None:
        self.epoch, self.epoch_step = epoch, 0
        self.losses.zero_()
