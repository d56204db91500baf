"""Linear evaluation with random crops and flips (Chen et al. 2020, appendix B.6).

A linear layer is trained on the output of the frozen encoder. Its learning rate is chosen by the loss on the validation
split; the test split is read once, at the end.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.augment import views
from simclr.augment.views import ViewParams
from simclr.core import prefetch
from simclr.core.errors import UserError
from simclr.data import loader, sampling
from simclr.data.beton import Beton
from simclr.device.transfer import Parcel
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.evaluation.linear_eval.cached_probe import ProbeResult, probe_result
from simclr.evaluation.linear_eval.linear_eval_params import AugmentedParams, LinearEvalParams
from simclr.features.encode import Features
from simclr.models.encoder_file import frozen
from simclr.models.eval_transform import Preparation
from simclr.models.resnet import Encoder
from simclr.optim.schedule import scaled_lr, warmup_cosine
from simclr.tracking import progress

_ENCODED = 256
"""Images that are encoded at once, however many a step takes."""


def probe_augmented(
    parameters: LinearEvalParams,
    encoder: Encoder,
    preparation: Preparation,
    train: Beton,
    features: dict[str, Features],
    session: Session,
    classes: int,
) -> ProbeResult:
    """A linear layer on the encoder's output for random crops and flips of `train`, by SGD with Nesterov momentum.

    One layer for each learning rate, all trained on the same pass through the encoder; the best on val is applied to
    test. Validation and test images have no augmentation, so that their cached `features` serve.
    """
    chosen = parameters.augmented
    encoder = frozen(encoder).to(session.device, memory_format=torch.channels_last)
    heads = [nn.Linear(encoder.dimension, classes, device=session.device) for _ in chosen.lr]
    for weight in (weight for head in heads for weight in head.parameters()):
        nn.init.zeros_(weight)
    solver = torch.optim.SGD(
        [
            {"params": [weight], "peak_lr": scaled_lr(lr, chosen.batch_size, "linear"), "weight_decay": decay}
            for head, lr in zip(heads, chosen.lr, strict=True)
            for weight, decay in ((head.weight, chosen.weight_decay), (head.bias, 0.0))
        ],
        momentum=chosen.momentum,
        nesterov=chosen.momentum > 0,
    )
    steps = chosen.epochs * -(-len(train) // chosen.batch_size)
    with progress.bar(steps, "step", "linear_eval", shown=session.is_main) as bar:
        for step, (images, labels, total) in enumerate(_augmented_batches(parameters, preparation, train, session)):
            with torch.no_grad():
                h = torch.cat([encoder(part) for part in images.split(_ENCODED)])
            # a sum over this rank's share, divided by the global batch: the ranks' gradients add up to the mean's
            loss = torch.stack([F.cross_entropy(head(h), labels, reduction="sum") for head in heads]).sum() / total
            solver.zero_grad()
            loss.backward()
            for group in solver.param_groups:
                group["lr"] = group["peak_lr"] * warmup_cosine(step, steps, warmup_steps=0)
                for weight in group["params"]:
                    weight.grad = session.sum(weight.grad)
            solver.step()
            bar.update()
    return _best(heads, chosen.lr, features, session)


def _augmented_batches(
    parameters: LinearEvalParams, preparation: Preparation, train: Beton, session: Session
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """This rank's (images, labels) of every step of all epochs, and the size of the step's global batch."""
    chosen = parameters.augmented
    cropping = _crop_and_flip(chosen, preparation.size)
    for epoch in range(1, chosen.epochs + 1):

        def load(samples: sampling.Indices, epoch: int = epoch) -> Parcel:
            heights, widths = train.heights[samples], train.widths[samples]
            boxes = views.draw(cropping, heights, widths, parameters.seed, epoch, samples, views=1).boxes
            labels = {"labels": train.labels[samples]}
            return loader.load(train, samples, boxes, preparation.size, session.device, labels)

        shares = sampling.shuffled(
            len(train),
            chosen.batch_size,
            parameters.seed,
            epoch,
            session.rank,
            session.world_size,
            drop_last=False,
        )
        left = len(train)
        for loaded in prefetch.prefetched(load, shares, loader.ahead(session.device)):
            batch = loaded.to(session.device)
            images = preparation.normalise(loader.crops(batch, preparation.size))
            size = min(chosen.batch_size, left)
            yield images.contiguous(memory_format=torch.channels_last), batch["labels"], size
            left -= size


def _crop_and_flip(chosen: AugmentedParams, size: int) -> ViewParams:
    return ViewParams(
        resolution=size, crop_scale=chosen.crop_scale, crop_ratio=[3 / 4, 4 / 3], flip=chosen.flip,
        jitter=0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0,
        blur=0, blur_sigma=[1, 1], solarize=0, solarize_threshold=1,
    )  # fmt: skip


@torch.no_grad()
def _best(heads: list[nn.Linear], rates: list[float], features: dict[str, Features], session: Session) -> ProbeResult:
    """As `logistic_regression.select`: the head with the lowest cross entropy on val."""
    val = features["val"]
    labels = shares.gathered(val.labels, val.count, session)
    losses = [F.cross_entropy(shares.gathered(head(val.h), val.count, session), labels).item() for head in heads]
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    if not finite:
        raise UserError("linear_eval.augmented.lr: with none of these rates is the loss on val finite; lower them")
    best = min(finite, key=losses.__getitem__)
    return probe_result(heads[best], rates[best], val, features["test"], session)
