"""Pretraining with SimCLR (Chen et al. 2020, algorithm 1)."""

import dataclasses
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from simclr import (
    batches,
    encoder,
    fingerprint,
    knn,
    loader,
    optimizer,
    params,
    processor,
    projection,
    randomness,
    shares,
    views,
)
from simclr.batch_norm import synchronised
from simclr.beton import Beton
from simclr.checkpoint import Checkpoints, Identity, Say
from simclr.dataset import Description
from simclr.distributed import Session
from simclr.early_stopping import EarlyStopping, EarlyStoppingParams
from simclr.encoder import Encoder, EncoderParams, Preparation
from simclr.failure import Stopped, UserError
from simclr.interruption import Interruption
from simclr.nt_xent import nt_xent
from simclr.optimizer import OptimizerParams
from simclr.projection import Head, HeadParams
from simclr.report import pictures, progress
from simclr.report.board import Board
from simclr.represent import representations
from simclr.schedule import scaled_lr, warmup_cosine
from simclr.statistics import contrast
from simclr.transfer import Parcel
from simclr.views import ViewParams

_LOG_STEPS = 20
"""Statistics are taken, and the device waited for, every so many steps."""
_BANK = 50_000
"""Training images that vote in the kNN validation, at most."""
_ENCODED = 512
"""Images that it encodes at once on each rank, at most: 5 GiB for a ResNet-50 at 224 px in float32."""
_SHOWN = 32
"""Pairs of views in the picture."""


@dataclass(kw_only=True)
class PenaltyParams:
    """`pretrain.penalty` of params.yaml."""

    l2: float = params.at_least(0)
    smooth_l1: float = params.at_least(0)


@dataclass(kw_only=True)
class ValidationParams:
    """`pretrain.validation` of params.yaml."""

    every_epochs: int = params.at_least(1)
    neighbors: int = params.at_least(1)
    temperature: float = params.above(0)


@dataclass(kw_only=True)
class PretrainParams:
    """`pretrain` of params.yaml."""

    seed: int = params.seed()
    split: str = params.choice("train", "unlabelled")
    epochs: int = params.at_least(1)
    batch_size: int = params.at_least(2)
    temperature: float = params.above(0)
    precision: str = params.choice("auto", "fp32", "bf16")
    compile: bool
    deterministic: bool
    encoder: EncoderParams
    head: HeadParams
    views: ViewParams
    optimizer: OptimizerParams
    penalty: PenaltyParams
    validation: ValidationParams
    early_stopping: EarlyStoppingParams


def check(parameters: PretrainParams, source: int, train: int) -> None:
    """Compare `parameters` with the numbers of images in the split to pretrain on, `source`, and in `train`.

    Raises:
        UserError: there are fewer images than a batch takes, or than there are neighbors in the validation.
    """
    if parameters.batch_size > source:
        takes = f"at most {source}, the images of {parameters.split}"
        raise params.refusal("pretrain.batch_size", parameters.batch_size, takes)
    neighbors, voters = parameters.validation.neighbors, min(train, _BANK)
    if neighbors > voters:
        takes = f"at most {voters}, the images of train that vote"
        raise params.refusal("pretrain.validation.neighbors", neighbors, takes)


@dataclass(frozen=True)
class Data:
    """The opened splits: `source` is pretrained on, `train` and `val` are labelled and validate."""

    source: Beton
    train: Beton
    val: Beton
    description: Description


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Contact:
    """What a run tells, and hears, while it goes on; by default nothing."""

    board: Board = field(default_factory=lambda: Board(None))
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    interruption: Interruption = field(default_factory=Interruption)
    say: Say = _silent
    """Called with a line for the user."""


@dataclass(frozen=True)
class Result:
    """The encoder that was kept, and how it came about."""

    encoder: Encoder
    preparation: Preparation
    history: list[dict[str, float]]
    """Each epoch's mean loss and last learning rate."""
    validation: list[dict[str, float]]
    """kNN top-1 accuracy, in percent, after each epoch that was validated."""
    metrics: dict[str, Any]
    view_grid: npt.NDArray[np.uint8]
    """Pairs of views of the first samples, (H, W, 3)."""
    starts: dict[int, int]
    """The steps at which the run began or went on, and how many processes shared it from there."""


class SimCLR(nn.Module):
    """Encoder f and projection head g: views (N, 3, S, S), and (N,) keys of their dropout, to h (N, D) and z (N, d)."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(images)
        with torch.autocast(h.device.type, enabled=False):  # bf16 has 8 bits: of z they are noise in the gradient
            return h, self.head(h.to(torch.promote_types(h.dtype, torch.float32)), keys)


def identity(parameters: PretrainParams, data: Data, session: Session) -> Identity:
    """What decides the result of `pretrain`, but for the number of processes, which changes no more than rounding."""
    digests = data.description.digests
    return Identity(
        {
            "parameters": params.flat({"pretrain": dataclasses.asdict(parameters)}),
            "data": {name: digests[name] for name in sorted({parameters.split, "train", "val"})},
            "code": fingerprint.of_code(__name__, without="simclr.report"),
            "platform": {
                "torch": torch.__version__,
                "device": session.device.type,
                "instructions": processor.mode(),
                "threads": processor.threads(),
            },
        }
    )


def pretrain(parameters: PretrainParams, data: Data, session: Session, contact: Contact) -> Result:
    """Train an encoder on the two views of every sample of `data.source`, from the latest checkpoint on.

    All ranks return the same encoder. The test split is not among `data`: what is kept, and when to stop, is decided
    on `data.val`. Only the leading rank needs a `contact` that does something, but for its interruption.

    Raises:
        UserError: as `check`, the processes cannot share the global batch, the gradient is not finite, or a checkpoint
            cannot be written.
        Stopped: at the interruption of any rank, after the step in progress; a checkpoint of it is written.
    """
    check(parameters, len(data.source), len(data.train))
    if parameters.batch_size % session.world:
        takes = f"a multiple of the {session.world} processes"
        raise params.refusal("pretrain.batch_size", parameters.batch_size, takes)
    if parameters.precision == "bf16" and session.device.type == "cpu" and processor.mode() == "held":
        takes = "auto or fp32 on a CPU held to AVX2, where it is ten times as slow (SIMCLR_CPU=native lifts that)"
        raise params.refusal("pretrain.precision", "bf16", takes)
    trainer = _Trainer(parameters, data, session, contact)
    trainer.resume(session.from_leader(contact.checkpoints.latest(contact.say)))
    course = trainer.course
    if trainer.step:
        contact.say(f"goes on from step {trainer.step} of {trainer.steps}")
    stopping = EarlyStopping(parameters.early_stopping)
    for row in course.validation:
        stopping.gained(row["knn_top1"], int(row["epoch"]))
    view_grid = trainer.view_grid()
    contact.board.image("views", view_grid, 0)
    with progress.bar(trainer.steps, "step", "pretrain", shown=session.leads, done=trainer.step) as bar:
        while course.epoch <= parameters.epochs and not stopping.exhausted:
            epoch = course.epoch
            row = {"epoch": epoch, **trainer.train(bar)}
            if epoch % parameters.validation.every_epochs == 0 or epoch == parameters.epochs:
                accuracy = trainer.validate()  # may stop: what follows is not to be done twice
                course.validation.append({"epoch": epoch, "knn_top1": accuracy})
                if stopping.gained(accuracy, epoch) and stopping.active:
                    course.best = {name: tensor.clone() for name, tensor in trainer.encoder.state_dict().items()}
            course.history.append(row)
            course.begin(epoch + 1)
    trainer.save()
    contact.checkpoints.flush()
    if course.best:
        trainer.encoder.load_state_dict(course.best)
    patience = parameters.early_stopping.patience
    metrics = {
        "loss": course.history[-1]["loss"],
        "val_knn_top1": stopping.best if course.best else course.validation[-1]["knn_top1"],
        "kept_epoch": stopping.best_epoch if course.best else len(course.history),
        "epochs": len(course.history),
        "stopped": f"no gain in {patience} validations" if stopping.exhausted else "all epochs done",
    }
    kept = encoder.frozen(trainer.encoder)
    return Result(kept, trainer.preparation, course.history, course.validation, metrics, view_grid, course.starts)


@dataclass
class _Course:
    """How far a run has come, beside what it has learnt."""

    losses: Tensor
    """The sum over the steps of this epoch, on this rank."""
    epoch: int = 1
    """The one in progress."""
    epoch_step: int = 0
    """Steps of it that are done."""
    history: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The encoder of the best validation so far, where early stopping asks for it."""
    starts: dict[int, int] = field(default_factory=dict)
    """As in `Result`."""

    def begin(self, epoch: int) -> None:
        self.epoch, self.epoch_step = epoch, 0
        self.losses.zero_()


class _Trainer:
    """The state of a run: model, optimiser and course."""

    def __init__(self, parameters: PretrainParams, data: Data, session: Session, contact: Contact) -> None:
        self.parameters, self.data, self.session = parameters, data, session
        self.board, self.checkpoints, self.interruption = contact.board, contact.checkpoints, contact.interruption
        torch.manual_seed(parameters.seed)
        size = parameters.views.size
        self.encoder = encoder.build(parameters.encoder, size)
        self.preparation = Preparation(
            size=size,
            crop_share=1.0 if self.encoder.architecture["small_stem"] else 0.875,
            mean=data.description.mean,
            std=data.description.std,
        )
        self.network = SimCLR(self.encoder, projection.build(parameters.head, self.encoder.dimension))
        self.model = self._placed(self.network)
        chosen = parameters.optimizer
        self.peak_lr = scaled_lr(chosen.lr, parameters.batch_size, chosen.lr_scaling)
        self.optimizer = optimizer.build(chosen, self.model.parameters(), self.peak_lr)
        self.half = parameters.precision == "bf16" or (parameters.precision == "auto" and session.device.type == "cuda")
        self.epoch_steps = len(data.source) // parameters.batch_size
        self.steps = self.epoch_steps * parameters.epochs
        self.warmup_steps = min(self.steps, round(chosen.warmup_epochs * self.epoch_steps))
        self.course = _Course(torch.zeros((), device=session.device))
        self.first_unsound = torch.full((), -1, device=session.device)
        """The first step whose gradient was not finite; -1 as long as there is none."""
        self._asked: Callable[[], list[int]] = lambda: [0, 0]
        """What the ranks were asked for by the last step: is a checkpoint due, and the number of a signal."""

    @property
    def step(self) -> int:
        """Steps that are done."""
        return (self.course.epoch - 1) * self.epoch_steps + self.course.epoch_step

    def lr(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.peak_lr * warmup_cosine(step, self.steps, self.warmup_steps)

    def _placed(self, model: nn.Module) -> nn.Module:
        """`model` on the device, its BatchNorm and gradients shared by all ranks, compiled if asked for."""
        model = model.to(self.session.device).to(memory_format=torch.channels_last)
        model = synchronised(model, self.session)
        if self.parameters.compile:
            model.compile()
        if self.session.world > 1:
            with warnings.catch_warnings():
                # torch 2.14 calls it forward_sync_buffers, 2.11 does not
                warnings.simplefilter("ignore", FutureWarning)
                model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
        return model

    def train(self, bar: progress.Bar) -> dict[str, float]:
        """The rest of the epoch in progress; its mean loss over steps and ranks, and its last learning rate."""
        course, epoch = self.course, self.course.epoch
        shares = batches.shuffled(
            len(self.data.source), self.parameters.batch_size, self.parameters.seed, epoch,
            self.session.rank, self.session.world, drop_last=True,
        )  # fmt: skip
        self.model.train()
        began, began_step = time.perf_counter(), self.step
        left = shares[course.epoch_step :]
        ahead = loader.ahead(self.session.device)
        for loaded in batches.prefetched(lambda samples: self._load(samples, epoch), left, ahead):
            lr = self.lr(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            images, keys = self._views(loaded)
            h, z = self._forward(images, keys)
            loss = nt_xent(z, self.parameters.temperature, self.session)
            self.optimizer.zero_grad()
            (loss + self._penalty(h)).backward()
            norm = self._clipped()
            unsound = ~norm.isfinite() & (self.first_unsound < 0)
            self.first_unsound = torch.where(unsound, self.step, self.first_unsound)
            self.optimizer.step()
            course.losses += loss.detach()
            course.epoch_step += 1
            bar.update()
            if self.step % _LOG_STEPS == 0 or self.step == 1:
                self._log(loss, lr, norm, z)
            self._pause()
        self._check()  # which waits for the device
        seconds = time.perf_counter() - began
        mean_loss = self.session.mean(course.losses / self.epoch_steps).item()
        bar.set_postfix(epoch=epoch, loss=f"{mean_loss:.3f}", refresh=False)
        if self.step > began_step:
            self._log_speed((self.step - began_step) * self.parameters.batch_size / seconds)
        return {"loss": mean_loss, "lr": self.lr(self.step - 1)}

    def _clipped(self) -> Tensor:
        """The norm of the gradient, which is cut to the largest that is allowed."""
        weights, most = list(self.model.parameters()), self.parameters.optimizer.clip_grad_norm
        norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if most is not None:
            clip_grads_with_norm_(weights, most, norm)
        return norm

    def _pause(self) -> None:
        """Between two steps, or batches of a validation: keep a checkpoint where one is due, and stop where any rank
        was asked to.

        Several ranks do so after the step, or batch, that follows, when they have heard of each other: none waits for
        an answer.
        """
        heard, self._asked = self._asked, self.session.largest_later([self.checkpoints.due, self.interruption.number])
        due, number = (heard if self.session.world > 1 else self._asked)()
        if due or number:
            self.save()
        if number:
            self.interruption.heed()
            self.checkpoints.flush()
            self._check()
            raise Stopped(number, f" at step {self.step} of {self.steps}; the same command goes on from there")

    def save(self) -> None:
        """Have a checkpoint written of how things stand. All ranks take part."""
        course = {item.name: getattr(self.course, item.name) for item in dataclasses.fields(self.course)}
        state = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "course": {**course, "losses": self.session.gather_rows(self.course.losses[None])},
            "points": self.board.points(),
        }
        self.checkpoints.save(self.step, state, self.first_unsound < 0)

    def resume(self, state: Any | None) -> None:
        """Go on from what `save` kept, the same on all ranks, of whatever number; with None from the start."""
        self._rehearse()
        if state is not None:
            self.network.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            losses = state["course"].pop("losses")
            own = losses[self.session.rank] if len(losses) == self.session.world else losses.mean()
            self.course = _Course(own.to(self.session.device), **state["course"])
            self.board.restore(state["points"])
        self.course.starts[self.step] = self.session.world

    def _rehearse(self) -> None:
        """Among several ranks, take a step that changes nothing.

        DDP sorts its buckets of gradients anew after its first step, and from three ranks on the place in a bucket
        decides in which order a gradient is summed: so that a run that goes on rounds as one that was not disturbed,
        every real step comes after the sorting.
        """
        if self.session.world == 1:
            return
        before = [buffer.clone() for buffer in self.network.buffers()]
        count, size = 2 * self.parameters.batch_size // self.session.world, self.parameters.views.size
        images = torch.zeros(count, 3, size, size, device=self.session.device)
        keys = torch.zeros(count, dtype=torch.int64, device=self.session.device)
        self._forward(images.contiguous(memory_format=torch.channels_last), keys)[1].sum().backward()
        for buffer, value in zip(self.network.buffers(), before, strict=True):
            buffer.copy_(value)
        self.optimizer.zero_grad()

    def _forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The representations and the projections of `images` in [0, 1], for training."""
        with torch.autocast(self.session.device.type, torch.bfloat16, enabled=self.half):
            h, z = self.model(self.preparation.normalise(images), keys)
        return h, z

    def _check(self) -> None:
        """End the run if the gradient of a step was not finite."""
        step = int(self.first_unsound)
        if step < 0:
            return
        self.checkpoints.flush()
        last = self.checkpoints.last
        raise UserError(
            f"the gradient is not finite at step {step} (epoch {step // self.epoch_steps + 1}), at a learning rate of "
            f"{self.lr(step):.3g}; the last good checkpoint is {last or 'none'}; "
            "lower pretrain.optimizer.lr, or set pretrain.optimizer.clip_grad_norm"
        )

    def _load(self, samples: batches.Indices, epoch: int) -> Parcel:
        """Host work for one batch: draw the views and read the pixels they need."""
        source, parameters, device = self.data.source, self.parameters, self.session.device
        draws = views.draw(
            parameters.views, source.heights[samples], source.widths[samples], parameters.seed, epoch, samples
        )
        rows = views.rows(draws, parameters.views, device)
        return loader.load(source, samples, draws.boxes, parameters.views.size, device, rows)

    def _views(self, loaded: Parcel) -> tuple[Tensor, Tensor]:
        """Device work for one batch: (2B, 3, S, S) in [0, 1], the second views after the first; and their keys (2B,)
        for dropout."""
        batch = loaded.to(self.session.device)
        augmented = views.augment(loader.crops(batch, self.parameters.views.size), batch, self.parameters.views)
        return augmented.contiguous(memory_format=torch.channels_last), batch["keys"]

    def _penalty(self, h: Tensor) -> Tensor:
        penalty = h.new_zeros((), dtype=torch.float32)
        weights = self.parameters.penalty
        if weights.l2 > 0:
            penalty = penalty + weights.l2 * h.float().square().mean()
        if weights.smooth_l1 > 0:
            penalty = penalty + weights.smooth_l1 * F.smooth_l1_loss(
                h.float(), torch.zeros_like(h, dtype=torch.float32)
            )
        return penalty

    def _log(self, loss: Tensor, lr: float, norm: Tensor, z: Tensor) -> None:
        self._check()
        values = {"loss": self.session.mean(loss), "gradient_norm": norm, **contrast(z)}
        scalars = {f"train/{name}": value.item() for name, value in values.items()}
        self.board.scalars({**scalars, "train/lr": lr, "train/epoch": self.step / self.epoch_steps}, self.step)

    def _log_speed(self, samples_per_second: float) -> None:
        if self.session.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # it is in KiB
        speed = {"samples_per_second": samples_per_second, "peak_memory_gib": memory}
        self.board.scalars({f"speed/{name}": value for name, value in speed.items()}, self.step)

    def validate(self) -> float:
        """The kNN top-1 accuracy, in percent, of the encoder as it is on the validation split.

        Raises:
            Stopped: as `pretrain`, between two batches; the run goes on from before the validation.
        """
        data, chosen = self.data, self.parameters.validation
        bank = randomness.permutation(len(data.train), self.parameters.seed)[:_BANK]
        batch_size = min(2 * self.parameters.batch_size // self.session.world, _ENCODED)
        keys, h = (
            representations(
                self.encoder, split, samples, self.preparation, batch_size, self.session, between=self._pause
            )
            for split, samples in ((data.train, bank), (data.val, np.arange(len(data.val))))
        )
        queries = shares.gathered(h, len(data.val), self.session)
        similarities, nearest = knn.neighbors(queries, keys, len(bank), chosen.neighbors, self.session)
        labels = torch.from_numpy(data.train.labels[bank]).to(self.session.device)[nearest]
        votes = knn.scores(similarities, labels, len(data.description.classes), chosen.temperature)
        accuracy = 100 * knn.accuracy(votes, torch.from_numpy(data.val.labels).to(self.session.device))
        self.board.scalars({"validation/knn_top1": accuracy}, self.step)
        return accuracy

    def view_grid(self) -> npt.NDArray[np.uint8]:
        """Pairs of views of the first samples, as the first epoch sees them: (H, W, 3)."""
        first = np.arange(min(_SHOWN, len(self.data.source)))
        images, _ = self._views(self._load(first, epoch=1))
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return pictures.view_grid(pixels[: len(first)], pixels[len(first) :])
