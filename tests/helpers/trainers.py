"""Trainers that take single steps."""

from typing import Any

from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe


def trainer_of(data: PretrainData, session: Session = ALONE, **changes: Any) -> tuple[Trainer, list[Batch]]:
    """One in training mode, and the batches of eight of its first epoch; `changes` as of `recipe`."""
    trainer = Trainer(recipe(**changes), data, session, RunContext())
    trainer.learner.model.train()
    return trainer, list(trainer.stream.epoch(1, 8, session, drop_last=True))
