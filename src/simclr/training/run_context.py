"""The data of a run, and its board, checkpoints and signals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from simclr.core.signals import Interruption
from simclr.data import converted
from simclr.data.beton import Beton
from simclr.data.converted import DatasetInfo
from simclr.tracking.tensorboard import Board
from simclr.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class PretrainData:
    """The open splits: `source` for pretraining, `train` and `val` with labels for validation."""

    source: Beton
    train: Beton
    val: Beton
    info: DatasetInfo

    @classmethod
    def open(cls, folder: Path, split: str) -> Self:
        """What the convert stage wrote to `folder`, to pretrain on its `split`.

        Raises:
            UserError: something is missing there, or damaged.
        """
        source, train, val = (converted.open_split(folder, name) for name in (split, "train", "val"))
        return cls(source, train, val, converted.load_info(folder))


@dataclass(frozen=True)
class RunContext:
    """Where a run logs, saves checkpoints and learns of signals; every default is a no-op."""

    board: Board = field(default_factory=lambda: Board(None))
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    interruption: Interruption = field(default_factory=Interruption)
