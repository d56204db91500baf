"""What a run works on, and whom it tells how it goes."""

from dataclasses import dataclass, field

from simclr.core.signals import Interruption
from simclr.data.beton import Beton
from simclr.data.converted import DatasetInfo
from simclr.tracking.tensorboard import Board
from simclr.training.checkpoints import Checkpoints
from simclr.training.run_lock import Say


@dataclass(frozen=True)
class Data:
    """The opened splits: `source` is pretrained on, `train` and `val` are labelled and validate."""

    source: Beton
    train: Beton
    val: Beton
    description: DatasetInfo


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class RunContext:
    """What a run tells, and hears, while it goes on; by default nothing."""

    board: Board = field(default_factory=lambda: Board(None))
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    interruption: Interruption = field(default_factory=Interruption)
    say: Say = _silent
    """Called with a line for the user."""
