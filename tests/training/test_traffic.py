"""What processes send each other in a step is what the algebra asks for, and nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from simclr.data.converted import DatasetInfo
from simclr.distributed.session import Session
from simclr.training import pretrain
from simclr.training.recipe import Recipe
from simclr.training.run_context import RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import on_ranks
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import DIGESTS, PretrainData, striped

FLOAT = 4
"""Bytes."""


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def counted(session: Session, data: PretrainData, chosen: Recipe) -> tuple[Counter[str], dict[str, int]]:
    """The bytes that this rank hands to each collective in the second step, and the sizes that they should follow."""
    sent: Counter[str] = Counter()
    gather, reduce = dist.all_gather, dist.all_reduce

    def all_gather(tensors: list[Tensor], own: Tensor, *rest: Any, **named: Any) -> Any:
        sent["gathered"] += size(own)
        return gather(tensors, own, *rest, **named)

    def all_reduce(tensor: Tensor, *rest: Any, **named: Any) -> Any:
        sent["reduced"] += size(tensor)
        return reduce(tensor, *rest, **named)

    def hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sent["gradients"] += size(bucket.buffer())
        return (
            reduce(bucket.buffer().div_(session.world_size), async_op=True)
            .get_future()
            .then(lambda done: done.value()[0])
        )

    trainer = Trainer(chosen, data, session, RunContext())
    trainer.learner.model.register_comm_hook(None, hook)
    steps = iter(range(100))
    pause = trainer._pause

    def counting() -> None:
        pause()
        if next(steps) == 1:
            trainer.counted = sent.copy()
        sent.clear()

    trainer._pause = counting  # type: ignore[method-assign]
    dist.all_gather, dist.all_reduce = all_gather, all_reduce
    try:
        with pretrain.progress.bar(8, "step", "", shown=False) as bar:
            trainer.train(bar)
    finally:
        dist.all_gather, dist.all_reduce = gather, reduce
    norms = [module for module in trainer.method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    sizes = {
        "weights": sum(weight.numel() for weight in trainer.method.parameters() if weight.requires_grad),
        "channels": sum(norm.num_features for norm in norms),
    }
    return trainer.counted, sizes


@pytest.mark.parametrize(
    ("world", "norm", "pieces"), [(2, "batch", 1), (4, "batch", 1), (2, "group", 1), (2, "batch", 2), (2, "group", 4)]
)
def test_a_step_sends_z_and_two_numbers_of_each_row_the_gradients_and_the_sums_of_batch_norm(
    world: int, norm: str, pieces: int, tmp_path: Path
) -> None:
    train, val = striped(tmp_path / "train.beton", 32, 0), striped(tmp_path / "val.beton", 12, 1)
    data = PretrainData(train, train, val, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS))
    piece_size = None if pieces == 1 else 16 // pieces
    chosen = recipe(batch_size=16, piece_size=piece_size, methods__simclr__head__output=6, models__resnet__norm=norm)
    rows = 2 * 16 // world
    passes, pauses = (2, 1) if pieces == 1 else (3 * pieces, 2 * pieces)  # of a piece: twice forward, once backward
    for sent, sizes in on_ranks(world, counted, data, chosen):
        assert sent == {
            # z, the positive and the log-sum-exp of each row, in the forward pass; the backward pass gathers nothing
            "gathered": FLOAT * rows * (6 + 1 + 1),
            "gradients": FLOAT * sizes["weights"],
            # all ranks' means and variances, and their gradients, for each pass of a piece; after each of these two
            # integers: is a checkpoint due, did a signal come
            "reduced": FLOAT * sizes["channels"] * 2 * world * passes + 2 * 8 * pauses,
        }
