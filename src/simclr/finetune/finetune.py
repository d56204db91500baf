"""Fine-tuning with few labels (Chen et al. 2020, section 6 and appendix B.5): a network and a linear layer on it
trained together by cross entropy, with random crops and flips and Nesterov momentum, without warm-up.
"""

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core.errors import UserError
from simclr.core.printable import join_names
from simclr.data.beton import Beton
from simclr.data.sampling import Indices
from simclr.device.precision import has_bf16
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import representations
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.features.knn import accuracy
from simclr.finetune.finetune_params import FinetuneParams
from simclr.learning.schedule import scaled_lr
from simclr.methods import classifier
from simclr.methods.classifier import Classifier
from simclr.tracking import progress

_log = logging.getLogger(__name__)

_ENCODED = 256
"""Images of an encoding batch."""


@dataclass(frozen=True)
class FinetuneResult:
    """The network of the best learning rate."""

    top1: float
    """The accuracy on test, in percent."""
    top5: float
    lr: float
    """The learning rate, before scaling with the batch."""


@dataclass(frozen=True)
class FineTuning:
    """The training of networks on few labels.

    Args:
        splits: train, val and test.
    """

    parameters: FinetuneParams
    transform: EvalTransform
    splits: Mapping[str, Beton]
    classes: int
    session: Session

    def best(self, start: Callable[[], Encoder], subset: Indices, epochs: int, title: str) -> FinetuneResult:
        """Train on the `subset` of train once for each learning rate, from the encoder that `start` makes; the network
        with the lowest cross entropy on val is applied to test.

        A `subset` smaller than a batch is repeated to fill one, with other crops. All ranks get the same result.

        Raises:
            UserError: with no learning rate is the loss finite.
        """
        parameters = self.parameters
        train = self.splits["train"].take(np.resize(subset, max(len(subset), parameters.batch_size)))
        steps = epochs * (len(train) // parameters.batch_size)
        best: tuple[Classifier, float] | None = None
        lowest, diverged = math.inf, []
        total = steps * len(parameters.lr)
        with progress.bar(total, "step", title, shown=self.session.is_main) as bar:
            for lr in parameters.lr:
                method = Classifier(start(), self.classes)
                self._train(method, train, epochs, steps, lr, bar)
                loss = F.cross_entropy(*self._scores(method, "val")).item()
                if not math.isfinite(loss):
                    diverged.append(lr)
                if loss < lowest:
                    lowest, best = loss, (method, lr)
        if best is None:
            raise UserError("finetune.lr: with none of these rates is the loss on val finite; lower them")
        if diverged and self.session.is_main:
            _log.info(f"{title}: the loss on val is not finite with {join_names(f'{lr:g}' for lr in diverged)}")
        network, rate = best
        scores, labels = self._scores(network, "test")
        top1, top5 = (100 * accuracy(scores, labels, top) for top in (1, 5))
        return FinetuneResult(top1, top5, rate)

    def _train(self, method: Classifier, train: Beton, epochs: int, steps: int, lr: float, bar: progress.Bar) -> None:
        peak = scaled_lr(lr, self.parameters.batch_size, "linear")
        classifier.fit(
            method, self.parameters, train, self.transform, self.parameters.seed, epochs, steps, self.session, bar,
            drop_last=True, lr=peak, bf16=has_bf16(self.session.device),
        )  # fmt: skip

    @torch.no_grad()
    def _scores(self, method: Classifier, split: str) -> tuple[Tensor, Tensor]:
        """The scores (N, C) and the labels (N,) of all images of the `split`, on the CPU of every rank."""
        file = self.splits[split]
        h = representations(method.encoder, file, np.arange(len(file)), self.transform, _ENCODED, self.session)
        scores = shares.all_gather(method.layers[0](h), len(file), self.session).cpu()
        return scores, torch.from_numpy(file.labels)


def trainable(encoder: Encoder) -> Encoder:
    """A copy of `encoder` to be trained."""
    return copy.deepcopy(encoder).requires_grad_(True)
