"""The training loop, resumable at any step."""

import dataclasses
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from simclr.core.errors import Stopped, UserError
from simclr.data import converted
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.learning import ddp_warm_up, optimizer, placement
from simclr.learning.learner import Learner, StepResult
from simclr.learning.method import Method
from simclr.learning.penalty import penalties
from simclr.learning.schedule import scaled_lr, warmup_cosine
from simclr.tracking import progress
from simclr.training import collapse, validation
from simclr.training.online_probe import OnlineProbe
from simclr.training.pretrain_params import in_bf16, pieces
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer_state import TrainerState
from simclr.views.compose import views_by_size
from simclr.views.stream import ViewStream

_LOG_STEPS = 20
"""Steps between two logs of metrics, each of which waits for the device."""


class Trainer:
    """The method, the optimiser and the state of a run."""

    def __init__(self, recipe: Recipe, data: PretrainData, session: Session, context: RunContext) -> None:
        parameters = recipe.parameters
        self.parameters, self.data, self.session = parameters, data, session
        self.board, self.checkpoints, self.interruption = context.board, context.checkpoints, context.interruption
        torch.manual_seed(parameters.seed)
        views = parameters.views
        encoder: Encoder = recipe.model.module.build(recipe.model.parameters, views.resolution)
        classes = len(data.info.classes)
        self.method: Method = recipe.method.module.build(recipe.method.parameters, encoder, classes, recipe.loss)
        self.transform = EvalTransform(
            size=views.resolution, crop_share=encoder.crop_share, mean=data.info.mean, std=data.info.std
        )
        self.stream = ViewStream(
            data.source,
            views_by_size(views, recipe.augmentations, parameters.seed),
            session.device,
            parameters.shuffle_window,
        )
        optimizer_params = parameters.optimizer
        self.peak_lr = scaled_lr(optimizer_params.lr, parameters.batch_size, optimizer_params.lr_scaling)
        model = placement.place_model(self.method, session, parameters.compile, pieces(parameters))
        groups = self.method.parameter_groups()
        self.learner = Learner(
            method=self.method,
            model=model,
            optimizer=optimizer.build(optimizer_params, groups, self.peak_lr),
            transform=self.transform,
            session=session,
            pieces=pieces(parameters),
            between=self._between_pieces,
            bf16=in_bf16(parameters, session.device),
            clip_grad_norm=optimizer_params.clip_grad_norm,
            penalties=lambda outputs: penalties(parameters.penalty, outputs[0], groups),
        )
        self.epoch_steps = len(data.source) // parameters.batch_size
        self.steps = self.epoch_steps * parameters.epochs
        self.warmup_steps = min(self.steps, round(optimizer_params.warmup_epochs * self.epoch_steps))
        self._collapse_alarm = collapse.CollapseAlarm(warns=session.is_main)
        probe_lr = parameters.online_probe.lr
        self.probe = None if probe_lr is None else OnlineProbe(encoder.dimension, classes, probe_lr, session)
        self.state = TrainerState(torch.zeros((), device=session.device))
        self.first_nonfinite = torch.full((), -1, device=session.device)
        """The first step with a gradient that was not finite; -1 without one."""
        self._pending: Callable[[], list[int]] = lambda: [0, 0]
        """The requests of all ranks at the last step: whether a checkpoint is due, and the number of a signal."""

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return (self.state.epoch - 1) * self.epoch_steps + self.state.epoch_step

    def lr(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.peak_lr * self._factor(step)

    def _factor(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup_steps)

    def train(self, bar: progress.Bar) -> dict[str, float]:
        """Train for the rest of the epoch; return its mean loss over steps and ranks, and its last learning rate."""
        state, epoch = self.state, self.state.epoch
        self.learner.model.train()
        began, began_step = time.perf_counter(), self.step
        batch_size = self.parameters.batch_size
        for batch in self.stream.epoch(
            epoch, batch_size, self.session, drop_last=True, pieces=self.learner.pieces, first=state.epoch_step
        ):
            try:
                result = self.learner.step(batch, self._factor(self.step), (self.step + 1) / self.steps)
            except Stopped:  # within the step, which is not done
                self.save()
                self.checkpoints.flush()
                raise
            probe_loss = None if self.probe is None else self.probe.step(result, self._factor(self.step))
            nonfinite = ~result.norm.isfinite() & (self.first_nonfinite < 0)
            self.first_nonfinite = torch.where(nonfinite, self.step, self.first_nonfinite)
            state.losses += result.loss
            state.epoch_step += 1
            bar.update()
            if self.step % _LOG_STEPS == 0 or self.step == 1:
                self._log(result, probe_loss)
            self._pause()
        self._check()  # waits for the device
        seconds = time.perf_counter() - began
        mean_loss = self.session.mean(state.losses / self.epoch_steps).item()
        bar.set_postfix(epoch=epoch, loss=f"{mean_loss:.3f}", refresh=False)
        if self.step > began_step:
            self._log_speed((self.step - began_step) * batch_size / seconds)
        return {"loss": mean_loss, "lr": self.lr(self.step - 1)}

    def _pause(self) -> None:
        """Between two steps, or two batches of a validation: save a checkpoint if it is due, and stop after a signal
        to any rank.

        Several ranks act on their requests one step, or batch, later, when the exchange is done, so that none waits.
        """
        due, number = self._requests()
        if due or number:
            self.save()
        if number:
            self.checkpoints.flush()
            self._check()
            raise self._stopped(number)

    def _between_pieces(self) -> None:
        """Between two pieces of a batch, or two steps of an attack: stop after a signal to any rank."""
        _, number = self._requests()
        if number:
            raise self._stopped(number)

    def _requests(self) -> list[int]:
        """The requests of all ranks, see `_pending`: with several ranks those of the call before."""
        earlier, self._pending = self._pending, self.session.max_async([self.checkpoints.due, self.interruption.number])
        return (earlier if self.session.world_size > 1 else self._pending)()

    def _stopped(self, number: int) -> Stopped:
        self.interruption.acknowledge()
        return Stopped(number, f" at step {self.step} of {self.steps}; the same command goes on from there")

    def save(self) -> None:
        """Start writing a checkpoint of the current state. All ranks take part."""
        fields = {item.name: getattr(self.state, item.name) for item in dataclasses.fields(self.state)}
        checkpoint = {
            "model": self.method.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "probe": {} if self.probe is None else self.probe.state_dict(),
            "course": {**fields, "losses": self.session.gather_rows(self.state.losses[None])},
            "points": self.board.points(),
        }
        self.checkpoints.save(self.step, checkpoint, self.first_nonfinite < 0)

    def resume(self, checkpoint: Any | None) -> None:
        """Resume from a checkpoint of `save`, the same on all ranks, of any number of ranks; None starts at step 0."""
        if self.session.world_size > 1:
            samples = self.parameters.batch_size // self.learner.pieces // self.session.world_size
            ddp_warm_up.run(self.learner, [(samples * views.count, views.resolution) for views in self.stream.views])
        if checkpoint is not None:
            self.method.load_state_dict(checkpoint["model"])
            self.learner.optimizer.load_state_dict(checkpoint["optimizer"])
            if self.probe is not None:
                self.probe.load_state_dict(checkpoint["probe"])
            losses = checkpoint["course"].pop("losses")
            own = losses[self.session.rank] if len(losses) == self.session.world_size else losses.mean()
            self.state = TrainerState(own.to(self.session.device), **checkpoint["course"])
            self.board.restore(checkpoint["points"])
        self.state.starts[self.step] = self.session.world_size

    def _check(self) -> None:
        """Raise a UserError if the gradient of a step was not finite."""
        step = int(self.first_nonfinite)
        if step < 0:
            return
        self.checkpoints.flush()
        last = self.checkpoints.last
        raise UserError(
            f"the gradient is not finite at step {step} (epoch {step // self.epoch_steps + 1}), at a learning rate of "
            f"{self.lr(step):.3g}; the last good checkpoint is {last or 'none'}; "
            "lower pretrain.optimizer.lr, set pretrain.optimizer.clip_grad_norm, raise the loss's temperature, or "
            "lower its other values or those of pretrain.penalty"
        )

    def _log(self, result: StepResult, probe_loss: Tensor | None) -> None:
        self._check()
        values = {"gradient_norm": result.norm, **result.scalars()}
        if probe_loss is not None:
            values["probe_loss"] = probe_loss
        scalars = {f"train/{name}": value.item() for name, value in values.items()}
        scalars["train/similarity"] = collapse.similarity(result.outputs[0])
        projections = scalars.get("train/negative_similarity", 0.0)
        self._collapse_alarm.watch(self.step, scalars["train/similarity"], projections)
        scalars["train/epoch"] = self.step / self.epoch_steps
        # TensorBoard sorts its groups: these come first
        curves = {"loss": self.session.mean(result.loss).item(), "lr": self.lr(self.step - 1)}
        self.board.scalars({**{f"curves/{name}": value for name, value in curves.items()}, **scalars}, self.step)

    def _log_speed(self, samples_per_second: float) -> None:
        if self.session.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # in KiB on Linux
        speed = {"samples_per_second": samples_per_second, "peak_memory_gib": memory}
        self.board.scalars({f"speed/{name}": value for name, value in speed.items()}, self.step)

    def validate(self) -> dict[str, float]:
        """The accuracies of the current encoder, as of `validation.top1`; the same on every rank, which all stop by
        them, though sums on a GPU have no fixed order; empty without labels.

        Raises:
            Stopped: as `pretrain`, between two batches; the run resumes before the validation.
        """
        data, encoder = self.data, self.method.encoder
        views = self.parameters.views.count * self.parameters.batch_size
        batch_size = views // self.learner.pieces // self.session.world_size
        if not data.info.labelled:
            validation.check(encoder, self.transform, data.val, batch_size, self.session, self._pause)
            return {}
        own = validation.top1(
            self.parameters.validation, encoder, self.probe, self.transform, data.train, data.val,
            len(data.info.classes), self.parameters.seed, batch_size, self.session, self._pause,
        )  # fmt: skip
        accuracies: dict[str, float] = self.session.broadcast(own)
        # apart from the curves of runs whose val was not trained on, which it does not compare with
        split = "trained_val" if self.parameters.split == converted.ALL else "val"
        self.board.scalars({f"curves/{split}_{name}": value for name, value in accuracies.items()}, self.step)
        return accuracies
