"""No step of a training waits for the device: tensors on the device "meta" have no values, and refuse to be read; and
what would be copied to a GPU from memory that is not pinned is refused here."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from simclr import presets
from simclr.data.batch import Batch
from simclr.data.converted import DatasetInfo
from simclr.distributed import pairwise
from simclr.distributed.session import Session
from simclr.training import recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from simclr.views.compose import Views
from tests.helpers.betons import noise, stored

COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
META = Session(rank=0, world_size=1, device=torch.device("meta"))
SAMPLES, STEPS = 8, 3
CHANGES = {
    "as it is": [],
    "clipped gradients": ["pretrain.optimizer.clip_grad_norm=1"],
    "SGD": ["pretrain.optimizer.name=sgd"],
    "an online probe": ["pretrain.online_probe.lr=0.1"],
    "in pieces": ["pretrain.piece_size=4"],
    "penalties": ["pretrain.penalty.representations.l2=0.1", "pretrain.penalty.weights.smooth_l1=0.1"],
    "small views": ["pretrain.views.small.count=2"],
}


class NoCopies(TorchDispatchMode):
    """Refuses an operation that takes values from the host to the device; `begun` says from when on."""

    def __init__(self) -> None:
        super().__init__()
        self._constructors = _NoConstructors(self)
        self.begun = False

    def __enter__(self) -> "NoCopies":
        self._constructors.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._constructors.__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        given = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor) and item.device.type == "cpu"]
        if operation not in COPIES:
            given = [item for item in given if item.dim()]  # of one without, a kernel takes the number
        if any(isinstance(item, Tensor) and item.device.type == "meta" for item in tree_leaves(made)) and given:
            self.refuse(operation)
        return made

    def refuse(self, operation: Any) -> None:
        if self.begun:
            raise RuntimeError(f"{operation}: values of the host are copied to the device")


class _NoConstructors(TorchFunctionMode):
    """As NoCopies, which does not see these, for tensors that are made on the device from numbers."""

    def __init__(self, copies: NoCopies) -> None:
        super().__init__()
        self._copies = copies

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor) and made.device.type == "meta":
            self._copies.refuse(function)
        return made


@dataclass(frozen=True)
class Stream:
    """In place of a ViewStream: batches of `views` without values."""

    views: tuple[Views, ...]
    copies: NoCopies

    def epoch(self, *_: object, **__: object) -> Iterator[Batch]:
        count = sum(views.count for views in self.views)
        for step in range(STEPS):
            self.copies.begun = step > 0  # the first step may make constants
            images = [
                torch.empty(views.count * SAMPLES, 3, views.resolution, views.resolution, device="meta")
                for views in self.views
            ]
            keys, labels, samples = (
                torch.empty(length, dtype=torch.int64, device="meta") for length in (count * SAMPLES, SAMPLES, SAMPLES)
            )
            yield Batch(tuple(images), keys, labels, samples, count, SAMPLES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_reads_nothing_from_the_device(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["encoder=resnet10_quarter", f"pretrain.batch_size={SAMPLES}", *CHANGES[change]]
    images = stored(tmp_path / "x.beton", noise(SAMPLES * STEPS, 32, seed=0), np.zeros(SAMPLES * STEPS, np.int64))
    data = PretrainData(images, images, images, DatasetInfo(["cat", "dog"], [0.5] * 3, [0.2] * 3, {}))
    trainer = Trainer(recipe.checked(presets.compose("cifar10", overrides), "test"), data, META, RunContext())
    copies = NoCopies()
    trainer.stream = Stream(trainer.stream.views, copies)  # type: ignore[assignment]
    for name in ("_log", "_check"):  # once in twenty steps, and at the end of an epoch
        monkeypatch.setattr(trainer, name, lambda *_: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "meta", 1 << 24)
    monkeypatch.setattr(Session, "mean", lambda *_: torch.zeros(()))  # at the end of an epoch too
    with copies:
        trainer.train(mock.Mock())
    assert trainer.state.epoch_step == STEPS


def test_what_is_read_is_seen() -> None:
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        torch.empty(1, device="meta").item()
    index = torch.tensor([0])
    for copy in (
        lambda: torch.tensor([1.0], device="meta"),
        lambda: torch.tensor(1.0).to("meta"),
        lambda: torch.empty(2, device="meta").copy_(torch.ones(2)),
        lambda: torch.empty(2, device="meta")[index],
    ):
        copies = NoCopies()
        copies.begun = True
        with pytest.raises(RuntimeError, match="values of the host are copied to the device"), copies:
            copy()
