"""Pretraining of an encoder (Chen et al. 2020, algorithm 1)."""

import dataclasses
import logging
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from simclr.core import fingerprint, params, processor, tables
from simclr.core.errors import raise_all
from simclr.data.converted import files_of
from simclr.distributed.session import Session, open_session
from simclr.features import encoder_file
from simclr.learning.method import Method
from simclr.tracking import progress
from simclr.training import loaded_encoder
from simclr.training.early_stopping import EarlyStopping
from simclr.training.pretrain_params import PretrainParams, in_bf16, process_refusals, validation_refusals
from simclr.training.pretrain_result import PretrainResult
from simclr.training.recipe import Recipe, refusals, refusals_without_labels
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.run_identity import Identity
from simclr.training.trainer import Trainer

_log = logging.getLogger(__name__)


def identity(recipe: Recipe, data: PretrainData, session: Session) -> Identity:
    """Everything that decides the result of `pretrain`, except the number of processes, which only changes rounding."""
    digests = data.info.digests
    return Identity(
        {
            "parameters": tables.flat(
                {"pretrain": dataclasses.asdict(recipe.parameters)}
                | {option.path: dataclasses.asdict(option.parameters) for option in recipe.options}
            ),
            "data": {name: digests[name] for name in sorted({*files_of(recipe.parameters.split), "train", "val"})},
            "code": fingerprint.of_code(__name__, [option.path for option in recipe.options]),
            "platform": {
                "torch": torch.__version__,
                "device": session.device.type,
                "bf16": in_bf16(recipe.parameters, session.device),
                "instructions": processor.mode(),
                "threads": processor.threads(),
            },
        }
    )


def open_session_for(parameters: PretrainParams) -> AbstractContextManager[Session]:
    """The session that `parameters` ask for: see `open_session`."""
    return open_session(
        deterministic=parameters.deterministic,
        benchmark=not parameters.deterministic,
        tf32=parameters.precision != "fp32",
        memory_hint="set a smaller pretrain.piece_size or pretrain.batch_size",
    )


def check_session(parameters: PretrainParams, session: Session) -> None:
    """Compare `parameters` with the processes and the device.

    Raises:
        UserError: the processes cannot share the batch or its pieces, bf16 is far too slow, or the network cannot be
            compiled.
    """
    raise_all(process_refusals(parameters, session.world_size))
    if parameters.precision == "bf16" and session.device.type == "cpu" and processor.mode() == "held":
        takes = (
            "auto or fp32 on a CPU held to AVX2 (processor.instructions: native lifts that); bf16 takes ten times as "
            "long there"
        )
        raise params.refusal("pretrain.precision", "bf16", takes)
    if parameters.compile and session.shares_gpu:  # seen to fail on an H100 with torch 2.11
        raise params.refusal("pretrain.compile", True, "false where processes share a GPU")


def pretrain(recipe: Recipe, data: PretrainData, session: Session, context: RunContext) -> PretrainResult:
    """Train an encoder by `recipe` on the views of every sample of `data.source`, from the latest checkpoint on.

    All ranks return the same encoder. `data` has no test split: `data.val` decides on the encoder to keep and on early
    stopping; without labels the last one is kept. Only the main process needs the board and the checkpoints of
    `context`.

    Raises:
        UserError: the data have too few images or no labels for some values, the processes cannot share the global
            batch, the gradient is not finite, or a checkpoint cannot be written.
        Stopped: after a signal to any rank, once the current step or piece is done and a checkpoint is written.
    """
    parameters = recipe.parameters
    raise_all(refusals(recipe, len(data.source)))
    if data.info.labelled:
        raise_all(validation_refusals(parameters, len(data.train)))
    else:
        raise_all(refusals_without_labels(recipe))
    check_session(parameters, session)
    if not recipe.trains:
        return loaded_encoder.load(recipe, data, session)
    trainer = Trainer(recipe, data, session, context)
    trainer.resume(session.broadcast(context.checkpoints.latest()))
    state = trainer.state
    if trainer.step and session.is_main:
        _log.info(f"goes on from step {trainer.step} of {trainer.steps}")
    stopping, watch = EarlyStopping(parameters.early_stopping), parameters.early_stopping.watch
    for row in state.validation:
        stopping.update(row[watch], int(row["epoch"]))
    views = trainer.stream.first_views(parameters.seed)
    context.board.views(views)
    with progress.bar(trainer.steps, "step", "pretrain", shown=session.is_main, done=trainer.step) as bar:
        while state.epoch <= parameters.epochs and not stopping.exhausted:
            epoch = state.epoch
            row = {"epoch": epoch, **trainer.train(bar)}
            due = epoch % parameters.validation.every_epochs == 0 or epoch == parameters.epochs
            # may raise Stopped, so it comes before all changes of the state
            if due and (accuracies := trainer.validate()):
                state.validation.append({"epoch": epoch, **accuracies})
                if stopping.update(accuracies[watch], epoch) and stopping.active:
                    state.best = _result_weights(trainer.method)
            state.history.append(row)
            state.begin(epoch + 1)
    trainer.save()
    context.checkpoints.flush()
    if state.best:
        trainer.method.load_state_dict(state.best, strict=False)
    patience = parameters.early_stopping.patience
    kept_epoch = stopping.best_epoch if state.best else len(state.history)
    kept = next((row for row in state.validation if row["epoch"] == kept_epoch), {})
    metrics = {
        "loss": state.history[-1]["loss"],
        **{f"val_{name}": value for name, value in kept.items() if name != "epoch"},
        "kept_epoch": kept_epoch,
        "epochs": len(state.history),
        "stopped": f"no gain in {patience} validations" if stopping.exhausted else "all epochs done",
    }
    encoder = encoder_file.freeze(trainer.method.encoder)
    head = getattr(trainer.method, "head", None)
    return PretrainResult(
        encoder, head, trainer.transform, state.history, state.validation, metrics, views, state.starts
    )


def _result_weights(method: Method) -> dict[str, Tensor]:
    """A copy of the state of what is saved in the end."""
    return {
        name: tensor.clone() for name, tensor in method.state_dict().items() if name.startswith(("encoder.", "head."))
    }
