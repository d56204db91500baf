"""Pretraining with SimCLR (Chen et al. 2020, algorithm 1)."""

import math
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from simclr import batches, encoder, knn, loader, optimizer, params, projection, randomness, views
from simclr.batch_norm import synchronised
from simclr.beton import Beton
from simclr.dataset import Description
from simclr.distributed import Session
from simclr.early_stopping import EarlyStopping, EarlyStoppingParams
from simclr.encoder import Encoder, EncoderParams, Preparation
from simclr.failure import UserError
from simclr.nt_xent import nt_xent
from simclr.optimizer import OptimizerParams
from simclr.projection import Head, HeadParams
from simclr.report import progress
from simclr.report.board import Board
from simclr.report.pictures import view_grid
from simclr.represent import representations
from simclr.schedule import scaled_lr, warmup_cosine
from simclr.statistics import contrast
from simclr.views import Draws, ViewParams

_LOG_STEPS = 20
"""Statistics are taken, and the device waited for, every so many steps."""
_BANK = 50_000
"""Training images that vote in the kNN validation, at most."""
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

    seed: int = params.at_least(0)
    split: str = params.choice("train", "unlabelled")
    epochs: int = params.at_least(1)
    batch_size: int = params.at_least(2)
    temperature: float = params.above(0)
    precision: str = params.choice("auto", "fp32", "bf16")
    compile: bool
    encoder: EncoderParams
    head: HeadParams
    views: ViewParams
    optimizer: OptimizerParams
    penalty: PenaltyParams
    validation: ValidationParams
    early_stopping: EarlyStoppingParams


@dataclass(frozen=True)
class Data:
    """The opened splits: `source` is pretrained on, `train` and `val` are labelled and validate."""

    source: Beton
    train: Beton
    val: Beton
    description: Description


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
    """The first pairs of views of the first batch, (H, W, 3)."""


class SimCLR(nn.Module):
    """Encoder f and projection head g: views (N, 3, S, S), and (N,) keys of their dropout, to h (N, D) and z (N, d)."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(images)
        return h, self.head(h, keys)


def pretrain(parameters: PretrainParams, data: Data, session: Session, board: Board) -> Result:
    """Train an encoder on the two views of every sample of `data.source`.

    All ranks return the same encoder. The test split is not among `data`: what is kept, and when to stop, is decided
    on `data.val`.

    Raises:
        UserError: the global batch does not fit the data or the number of processes, or the loss is not finite.
    """
    batch_size = parameters.batch_size
    if batch_size > len(data.source):
        raise UserError(
            f"params.yaml: pretrain.batch_size = {batch_size} is not allowed; "
            f"{data.source.path} holds {len(data.source)} images"
        )
    if batch_size % session.world:
        raise UserError(
            f"params.yaml: pretrain.batch_size = {batch_size} is not allowed; "
            f"it takes a multiple of the {session.world} processes"
        )
    trainer = _Trainer(parameters, data, session, board)
    stopping = EarlyStopping(parameters.early_stopping)
    best: dict[str, Tensor] = {}
    history: list[dict[str, float]] = []
    validation: list[dict[str, float]] = []
    stopped = "all epochs done"
    with trainer.progress:
        for epoch in range(1, parameters.epochs + 1):
            history.append({"epoch": epoch, **trainer.train(epoch)})
            if epoch % parameters.validation.every_epochs and epoch != parameters.epochs:
                continue
            accuracy = trainer.validate()
            validation.append({"epoch": epoch, "knn_top1": accuracy})
            if stopping.gained(accuracy, epoch) and stopping.active:
                best = {name: tensor.clone() for name, tensor in trainer.encoder.state_dict().items()}
            if stopping.exhausted:
                stopped = f"no gain in {parameters.early_stopping.patience} validations"
                break
    if best:
        trainer.encoder.load_state_dict(best)
    metrics = {
        "loss": history[-1]["loss"],
        "val_knn_top1": stopping.best if best else validation[-1]["knn_top1"],
        "kept_epoch": stopping.best_epoch if best else len(history),
        "epochs": len(history),
        "stopped": stopped,
    }
    kept = encoder.frozen(trainer.encoder)
    return Result(kept, trainer.preparation, history, validation, metrics, trainer.view_grid())


class _Trainer:
    """The state of a run: model, optimiser and step."""

    def __init__(self, parameters: PretrainParams, data: Data, session: Session, board: Board) -> None:
        self.parameters, self.data, self.session, self.board = parameters, data, session, board
        torch.manual_seed(parameters.seed)
        size = parameters.views.size
        self.encoder = encoder.build(parameters.encoder, size)
        self.preparation = Preparation(
            size=size,
            crop_share=1.0 if self.encoder.architecture["small_stem"] else 0.875,
            mean=data.description.mean,
            std=data.description.std,
        )
        head = projection.build(parameters.head, self.encoder.dimension)
        self.model = self._placed(SimCLR(self.encoder, head))
        chosen = parameters.optimizer
        self.peak_lr = scaled_lr(chosen.lr, parameters.batch_size, chosen.lr_scaling)
        self.optimizer = optimizer.build(chosen, self.model.parameters(), self.peak_lr)
        self.half = parameters.precision == "bf16" or (parameters.precision == "auto" and session.device.type == "cuda")
        self.epoch_steps = len(data.source) // parameters.batch_size
        self.steps = self.epoch_steps * parameters.epochs
        self.warmup_steps = min(self.steps, round(chosen.warmup_epochs * self.epoch_steps))
        self.step = 0
        self.progress = progress.bar(self.steps, "step", "pretrain", shown=session.leads)

    def _placed(self, model: nn.Module) -> nn.Module:
        """`model` on the device, its BatchNorm and gradients shared by all ranks, compiled if asked for."""
        model = model.to(self.session.device).to(memory_format=torch.channels_last)
        model = synchronised(model, self.session)
        if self.parameters.compile:
            model.compile()
        if self.session.world > 1:
            model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
        return model

    def train(self, epoch: int) -> dict[str, float]:
        """One pass over the source; the mean loss over its steps and ranks, and the last learning rate."""
        shares = batches.shuffled(
            len(self.data.source), self.parameters.batch_size, self.parameters.seed, epoch,
            self.session.rank, self.session.world, drop_last=True,
        )  # fmt: skip
        losses = torch.zeros((), device=self.session.device)
        self.model.train()
        began, began_step = time.perf_counter(), self.step
        lr = 0.0
        for pixels, draws in batches.prefetched(lambda samples: self._load(samples, epoch), shares):
            lr = self.peak_lr * warmup_cosine(self.step, self.steps, self.warmup_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            images, keys = self._views(pixels, draws), views.by_view(draws.keys, self.session.device)
            if self.step == 0:
                self.board.image("views", self._view_grid(images), 0)
            with torch.autocast(self.session.device.type, torch.bfloat16, enabled=self.half):
                h, z = self.model(self.preparation.normalise(images), keys)
            loss = nt_xent(z, self.parameters.temperature, self.session)
            self.optimizer.zero_grad()
            (loss + self._penalty(h)).backward()
            norm = clip_grad_norm_(self.model.parameters(), self.parameters.optimizer.clip_grad_norm or float("inf"))
            self.optimizer.step()
            losses += loss.detach()
            self.step += 1
            self.progress.update()
            if self.step % _LOG_STEPS == 0 or self.step == 1:
                self._log(loss, lr, norm, z)
        seconds = time.perf_counter() - began
        mean_loss = self.session.mean(losses / self.epoch_steps).item()
        if not math.isfinite(mean_loss):
            raise UserError(
                f"pretrain: the loss is not finite in epoch {epoch}, at a learning rate of {lr:.3g}; "
                "lower pretrain.optimizer.lr, or set pretrain.optimizer.clip_grad_norm"
            )
        self.progress.set_postfix(epoch=epoch, loss=f"{mean_loss:.3f}", refresh=False)
        speed = {"samples_per_second": (self.step - began_step) * self.parameters.batch_size / seconds}
        if self.session.device.type == "cuda":
            speed["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        else:
            speed["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # it is in KiB
        self.board.scalars({f"speed/{name}": value for name, value in speed.items()}, self.step)
        return {"loss": mean_loss, "lr": lr}

    def _load(self, samples: batches.Indices, epoch: int) -> tuple[Tensor, Draws]:
        """Host work for one batch: draw the views and read the pixels they need."""
        source, parameters = self.data.source, self.parameters
        draws = views.draw(
            parameters.views, source.heights[samples], source.widths[samples], parameters.seed, epoch, samples
        )
        return loader.pixels(source, samples, draws.boxes, parameters.views.size), draws

    def _views(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Device work for one batch: (2B, 3, S, S) in [0, 1], the second views after the first."""
        crops = loader.crops(pixels, draws.boxes, self.parameters.views.size, self.session.device)
        augmented = views.augment(crops, draws, self.parameters.views)
        return augmented.contiguous(memory_format=torch.channels_last)

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
        values = {"loss": self.session.mean(loss), "gradient_norm": norm, **contrast(z)}
        scalars = {f"train/{name}": value.item() for name, value in values.items()}
        self.board.scalars({**scalars, "train/lr": lr, "train/epoch": self.step / self.epoch_steps}, self.step)

    def validate(self) -> float:
        """The kNN top-1 accuracy, in percent, of the encoder as it is on the validation split."""
        data, chosen = self.data, self.parameters.validation
        bank = randomness.permutation(len(data.train), self.parameters.seed)[:_BANK]
        batch_size = 2 * self.parameters.batch_size
        keys, queries = (
            representations(self.encoder, split, samples, self.preparation, batch_size, self.session)
            for split, samples in ((data.train, bank), (data.val, np.arange(len(data.val))))
        )
        similarities, nearest = knn.neighbors(queries, keys, chosen.neighbors)
        labels = torch.from_numpy(data.train.labels[bank])[nearest]
        votes = knn.scores(similarities, labels, len(data.description.classes), chosen.temperature)
        accuracy = 100 * knn.accuracy(votes, torch.from_numpy(data.val.labels))
        self.board.scalars({"validation/knn_top1": accuracy}, self.step)
        return accuracy

    def view_grid(self) -> npt.NDArray[np.uint8]:
        """Pairs of views of the first samples, as the first epoch sees them: (H, W, 3)."""
        first = np.arange(min(_SHOWN, len(self.data.source)))
        return self._view_grid(self._views(*self._load(first, epoch=1)))

    @staticmethod
    def _view_grid(images: Tensor) -> npt.NDArray[np.uint8]:
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        half = len(pixels) // 2
        return view_grid(pixels[:half][:_SHOWN], pixels[half:][:_SHOWN])
