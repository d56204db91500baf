"""What a run works on, and whom it tells how it goes."""

from dataclasses import dataclass, field

from simclr.core.signals import Interruption
from simclr.data.beton import Beton
from simclr.data.converted import DatasetInfo
from simclr.tracking.tensorboard import Board
from simclr.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Data:
    """The opened splits: `source` is pretrained on, `train` and `val` are labelled and validate."""

    source: Beton
    train: Beton
    val: Beton
    description: DatasetInfo


@dataclass(frozen=True)
class RunContext:
    """Where a run draws its curves, keeps checkpoints and hears of signals; every default does nothing."""

    board: Board = field(default_factory=lambda: Board(None))
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    interruption: Interruption = field(default_factory=Interruption)
