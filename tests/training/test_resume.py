"""A run that stops at any step and goes on gives what an undisturbed one gives, bit for bit."""

import dataclasses
import functools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from simclr.augment import jitter
from simclr.core import signals
from simclr.core.errors import Stopped, UserError
from simclr.core.signals import Interruption
from simclr.data.converted import DatasetInfo
from simclr.distributed.session import Session
from simclr.features import encode
from simclr.losses import nt_xent
from simclr.tracking.tensorboard import Board
from simclr.training import checkpoint_folder, pretrain, validation
from simclr.training.checkpoints import Checkpoints
from simclr.training.pretrain import PretrainResult
from simclr.training.recipe import Recipe
from simclr.training.run_context import RunContext
from tests.helpers.logs import logged
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import DIGESTS, PretrainData, stripes

STEPS = 8  # two epochs of four


BATCHES = 4
"""In which each validation encodes: 34 images in three, and 12."""


class AtStep(Interruption):
    """Asks the run to stop when it has asked so often, between steps and batches of validations; 0: never."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        super().__init__()

    @property
    def number(self) -> int:
        self._left -= 1
        return signal.SIGTERM if self._left == 0 else 0

    @number.setter
    def number(self, _: int) -> None:
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PretrainData:
    return stripes(tmp_path_factory.mktemp("data"), 34)


def run(
    root: Path, data: PretrainData, chosen: Recipe, session: Session = ALONE, stop: int = 0,
    said: list[str] | None = None, *, in_validation: bool = False,
) -> tuple[PretrainResult, list[Any]]:  # fmt: skip
    """From the latest checkpoint in `root` to the end, or to a stop; the board's points too, but for their times.

    `stop` counts steps from where the run goes on, and batches of validations too if `in_validation`.
    """
    encode = validation.representations
    if not in_validation:
        encode = functools.partial(_deaf, encode)
    with mock.patch.object(validation, "representations", encode), logged(said if said is not None else []):
        return _run(root, data, chosen, session, AtStep(stop))


def _deaf(encode: Any, *arguments: Any, after_batch: Any, **named: Any) -> torch.Tensor:
    found: torch.Tensor = encode(*arguments, **named)
    return found


def _run(
    root: Path, data: PretrainData, chosen: Recipe, session: Session, noticed: Interruption
) -> tuple[PretrainResult, list[Any]]:
    if not session.is_main:
        return pretrain.pretrain(chosen, data, session, RunContext(interruption=noticed)), []
    this = pretrain.identity(chosen, data, session)
    with (
        checkpoint_folder.open_checkpoints(root / "checkpoints", this, 1e9, lambda: None) as checkpoints,
        Board(root / "board") as board,
    ):
        result = pretrain.pretrain(chosen, data, session, RunContext(board, checkpoints, noticed))
        points = [point[:3] for point in board.points() if not point[0].startswith("speed")]
        checkpoints.finish(None)
    return result, points


def same(first: PretrainResult, second: PretrainResult) -> bool:
    states = [result.encoder.state_dict() for result in (first, second)]
    return (
        all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        and (first.history, first.validation, first.metrics) == (second.history, second.validation, second.metrics)
        and all((a == b).all() for a, b in zip(first.views, second.views, strict=True))
    )


CASES: dict[str, dict[str, Any]] = {
    "lars": {"optimizer__name": "lars", "optimizer__lr": 2.0},
    "sgd": {"optimizer__name": "sgd", "optimizer__clip_grad_norm": 0.5, "methods__simclr__head__layers": 3},
    "adamw, dropout": {"optimizer__name": "adamw", "optimizer__lr": 0.01, "methods__simclr__head__dropout": 0.3},
    "a window": {"shuffle_window": 16, "optimizer__lr": 2.0},
    "early stopping": {"epochs": 3, "early_stopping__patience": 1, "optimizer__lr": 0.001},
}


@pytest.mark.parametrize("name", CASES)
def test_stopped_at_any_step(name: str, data: PretrainData, tmp_path: Path) -> None:
    """One recipe at each step, the others within an epoch, between two and at the end."""
    chosen = recipe(**CASES[name])
    planned = 4 * chosen.parameters.epochs
    whole, points = run(tmp_path / "whole", data, chosen)
    steps = 4 * int(whole.metrics["epochs"])
    for stop in range(1, steps + 1) if name == "lars" else (3, 4, steps - 1, steps):
        root = tmp_path / str(stop)
        said: list[str] = []
        with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {stop} of {planned}; the same"):
            run(root, data, chosen, stop=stop)
        resumed, resumed_points = run(root, data, chosen, said=said)
        assert said == [f"goes on from step {stop} of {planned}"]
        assert same(resumed, whole)
        assert resumed_points == points
        assert resumed.starts == {0: 1, stop: 1}


def test_stopped_between_any_pieces_of_a_batch(data: PretrainData, tmp_path: Path) -> None:
    """Three times in each step: twice in the first pass, once in the second. And after each step."""
    chosen = recipe(piece_size=4, methods__simclr__head__dropout=0.3)
    whole, points = run(tmp_path / "whole", data, chosen)
    for stop in range(13, 21):
        root = tmp_path / str(stop)
        with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {stop // 4} of 8; the same"):
            run(root, data, chosen, stop=stop)
        resumed, resumed_points = run(root, data, chosen)
        assert same(resumed, whole)
        assert resumed_points == points


@pytest.mark.parametrize("name", ["lars", "early stopping"])
def test_stopped_between_any_batches_of_a_validation(name: str, data: PretrainData, tmp_path: Path) -> None:
    """It goes on from the step before, and validates anew."""
    chosen = recipe(**CASES[name])
    whole, points = run(tmp_path / "whole", data, chosen)
    assert whole.metrics["epochs"] >= 2
    for epoch in (1, 2):
        for batch in range(1, BATCHES + 1):
            root, said = tmp_path / f"{epoch} {batch}", []
            stop = 4 * epoch + BATCHES * (epoch - 1) + batch
            with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {4 * epoch} of"):
                run(root, data, chosen, stop=stop, in_validation=True)
            resumed, resumed_points = run(root, data, chosen, said=said)
            assert said == [f"goes on from step {4 * epoch} of {4 * chosen.parameters.epochs}"]
            assert same(resumed, whole)
            assert resumed_points == points


def test_stopped_while_images_without_labels_are_checked(data: PretrainData, tmp_path: Path) -> None:
    unlabelled = dataclasses.replace(data, info=dataclasses.replace(data.info, classes=[]))
    chosen = recipe(**CASES["lars"])
    whole, points = run(tmp_path / "whole", unlabelled, chosen)
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 4 of"):
        run(tmp_path, unlabelled, chosen, stop=5, in_validation=True)
    resumed, resumed_points = run(tmp_path, unlabelled, chosen)
    assert same(resumed, whole)
    assert resumed_points == points


def long_validation(session: Session, root: Path, data: PretrainData, chosen: Recipe) -> str:
    """How a run ends whose validations take seconds, when a signal comes to one rank in the first of them."""
    timers: list[threading.Timer] = []

    def slowly(*arguments: Any, after_batch: Any, **named: Any) -> torch.Tensor:
        def wait() -> None:
            if session.rank == 1 and not timers:
                timers.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)))
                timers[0].start()
            time.sleep(0.4)
            after_batch()

        return encode.representations(*arguments, after_batch=wait, **named)

    with (
        mock.patch.object(signals, "_GRACE", 1.5),
        mock.patch.object(validation, "representations", slowly),
        signals.catch_signals(multi_process=True) as noticed,
    ):
        try:
            _run(root, data, chosen, session, noticed)
        except Stopped as stopped:
            return str(stopped)
    return "ended"


def test_a_signal_in_a_long_validation_leaves_a_checkpoint(data: PretrainData, tmp_path: Path) -> None:
    """Seven batches of 0.4 s, in which a process that does not heed it would be ended without one."""
    chosen = recipe(batch_size=4)
    whole = on_ranks(2, on_rank, tmp_path / "whole", data, chosen, 0)
    expected = "stopped by SIGTERM at step 8 of 16; the same command goes on from there"
    assert on_ranks(2, long_validation, tmp_path, data, chosen) == [expected] * 2
    resumed = on_ranks(2, on_rank, tmp_path, data, chosen, 0)
    assert resumed[0].starts == {0: 2, 8: 2}
    assert same(resumed[0], whole[0])


def test_stopped_again_and_again(data: PretrainData, tmp_path: Path) -> None:
    chosen = recipe(epochs=3)
    whole, points = run(tmp_path / "whole", data, chosen)
    for step in (1, 4, 5, 12):
        with pytest.raises(Stopped, match=f"at step {step} of 12"):
            run(tmp_path, data, chosen, stop=step - max((s for s in (1, 4, 5) if s < step), default=0))
    resumed, resumed_points = run(tmp_path, data, chosen)
    assert same(resumed, whole)
    assert resumed_points == points
    assert list(resumed.starts) == [0, 1, 4, 5, 12]


def test_killed_after_its_end_it_trains_no_more(
    data: PretrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "finish", lambda *_: None)  # where DVC has not collected the results
        whole, _ = run(tmp_path, data, chosen)
    monkeypatch.setattr(nt_xent, "loss", pytest.fail)
    resumed, _ = run(tmp_path, data, chosen)
    assert same(resumed, whole)


def on_rank(session: Session, root: Path, data: PretrainData, chosen: Recipe, stop: int) -> PretrainResult | str:
    try:
        return run(root, data, chosen, session, stop)[0]
    except Stopped as stopped:
        return str(stopped)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_stop_together_and_go_on(world: int, data: PretrainData, tmp_path: Path) -> None:
    """A step after the one that was asked for, when they know of it."""
    chosen = recipe(methods__simclr__head__dropout=0.3, batch_size=4 * world, epochs=3)
    steps = 3 * (34 // chosen.parameters.batch_size)
    whole = on_ranks(world, on_rank, tmp_path / "whole", data, chosen, 0)
    stopped = on_ranks(world, on_rank, tmp_path, data, chosen, 3)
    assert stopped == [f"stopped by SIGTERM at step 4 of {steps}; the same command goes on from there"] * world
    resumed = on_ranks(world, on_rank, tmp_path, data, chosen, 0)
    for first, second in zip(whole, resumed, strict=True):
        assert same(first, second)
    assert resumed[0].starts == {0: world, 4: world}


@pytest.mark.parametrize(
    "within",
    [{"piece_size": 4, "methods__simclr__head__dropout": 0.3}, {"method": "adversarial"}],
    ids=["two pieces", "three steps of an attack"],
)
def test_ranks_stop_together_within_a_step(within: dict[str, Any], data: PretrainData, tmp_path: Path) -> None:
    """Four requests in a step, and each is heeded at the next one: asked for by one rank or by both."""
    chosen = recipe(**within)
    whole = on_ranks(2, on_rank, tmp_path / "whole", data, chosen, 0)
    for stop, asked in ((9, on_rank), (10, stopped_by_one), (11, on_rank), (13, stopped_by_one)):
        expected = f"stopped by SIGTERM at step {(stop + 1) // 4} of 8; the same command goes on from there"
        assert on_ranks(2, asked, tmp_path / str(stop), data, chosen, stop) == [expected] * 2
    resumed = on_ranks(2, on_rank, tmp_path / "10", data, chosen, 0)
    assert same(resumed[0], whole[0])


def test_one_process_goes_on_where_two_stopped(data: PretrainData, tmp_path: Path) -> None:
    chosen = recipe(optimizer__name="sgd", optimizer__lr=0.01)
    whole, _ = run(tmp_path / "whole", data, chosen)
    on_ranks(2, on_rank, tmp_path, data, chosen, 3)
    resumed, _ = run(tmp_path, data, chosen)
    assert resumed.starts == {0: 2, 4: 1}
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def stopped_by_one(
    session: Session, root: Path, data: PretrainData, chosen: Recipe, stop: int = 3
) -> PretrainResult | str:
    return on_rank(session, root, data, chosen, stop if session.rank == 1 else 0)


def test_a_signal_to_any_rank_stops_all_at_one_step(data: PretrainData, tmp_path: Path) -> None:
    expected = "stopped by SIGTERM at step 4 of 8; the same command goes on from there"
    assert on_ranks(2, stopped_by_one, tmp_path, data, recipe()) == [expected] * 2


def test_a_signal_after_the_last_step_but_one_comes_too_late_for_ranks(data: PretrainData, tmp_path: Path) -> None:
    results = on_ranks(2, on_rank, tmp_path, data, recipe(), STEPS)
    assert all(isinstance(result, PretrainResult) for result in results)


OTHERS = {
    "parameters": (
        {"validation__temperature": 0.7},
        {},
        "other parameters (pretrain.validation.temperature 0.1, now 0.7)",
    ),
    "data": ({}, {"train": "f" * 64}, "other data (train)"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_with_other_parameters_or_data_it_starts_anew_and_says_why(
    kind: str, data: PretrainData, tmp_path: Path
) -> None:
    changes, digests, words = OTHERS[kind]
    with pytest.raises(Stopped):
        run(tmp_path, data, recipe(), stop=3)
    other = DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS | digests)
    said: list[str] = []
    result, _ = run(tmp_path, PretrainData(data.source, data.train, data.val, other), recipe(**changes), said=said)
    assert result.starts == {0: 1}
    assert len(said) == 1
    assert words in said[0]


def test_with_other_code_it_starts_anew_and_says_why(
    data: PretrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, data, recipe(), stop=3)
    edited = tmp_path / "jitter.py"
    edited.write_text(Path(jitter.__file__).read_text() + "\nANOTHER = 1\n")
    monkeypatch.setattr(jitter.__spec__, "origin", str(edited))
    said: list[str] = []
    assert run(tmp_path, data, recipe(), said=said)[0].starts == {0: 1}
    assert said[0].endswith("is of other code (simclr.augment.jitter)")


def test_a_gradient_that_is_not_finite_names_the_step_and_spoils_no_checkpoint(
    data: PretrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(epochs=3)
    with pytest.raises(Stopped):
        run(tmp_path, data, chosen, stop=3)
    good = list((tmp_path / "checkpoints").rglob("step-*"))
    contents = [path.read_bytes() for path in good]
    calls = []

    def infinite(z: torch.Tensor, views: int, parameters: Any, session: Session) -> torch.Tensor:
        calls.append(len(z))
        return z.sum() * (torch.inf if len(calls) == 3 else 1)

    monkeypatch.setattr(nt_xent, "loss", infinite)
    monkeypatch.setattr(Checkpoints, "due", True)
    with pytest.raises(UserError) as error:
        run(tmp_path, data, chosen)
    last = sorted((tmp_path / "checkpoints").rglob("step-*"))
    assert [path.name.split("-")[1] for path in last] == ["000000004", "000000005"]
    assert str(error.value).startswith("the gradient is not finite at step 5 (epoch 2), at a learning rate of ")
    assert f"the last good checkpoint is {last[-1]};" in str(error.value)
    assert contents
    state = torch.load(last[-1], weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())
