"""Linear evaluation of the frozen encoder (Chen et al. 2020, section 2.2 and appendix B.6).

Two forms: logistic regression on cached features, and a linear layer trained with random crops and flips through the
encoder. Whatever there is to choose is chosen by the loss on the validation split; the test split is read once, at
the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr import batches, loader, params, probe, shares, views
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Encoder, Preparation, frozen
from simclr.features import Features, encoded
from simclr.knn import accuracy
from simclr.report import progress
from simclr.schedule import scaled_lr, warmup_cosine
from simclr.transfer import Parcel
from simclr.views import ViewParams

_RAW_PIXELS = 32
"""Side to which images are shrunk before their pixels are features."""
_ENCODED = 256
"""Images that are encoded at once, however many a step takes."""


@dataclass(kw_only=True)
class CachedParams:
    """`linear_eval.cached` of params.yaml."""

    l2: list[float] = params.each_above(0)
    max_iterations: int = params.at_least(1)


@dataclass(kw_only=True)
class AugmentedParams:
    """`linear_eval.augmented` of params.yaml."""

    epochs: int = params.at_least(1)
    batch_size: int = params.at_least(1)
    lr: list[float] = params.each_above(0)
    momentum: float = params.between(0, 0.9999)
    weight_decay: float = params.at_least(0)
    crop_scale: list[float] = params.interval(0.0001, 1)
    flip: float = params.between(0, 1)


@dataclass(kw_only=True)
class LinearEvalParams:
    """`linear_eval` of params.yaml."""

    seed: int = params.seed()
    cached: CachedParams
    augmented: AugmentedParams


@dataclass(frozen=True)
class Verdict:
    """Class scores (N, C) on test, what was chosen on validation and the accuracy there, 0 to 1."""

    scores: Tensor
    chosen: float
    val_accuracy: float


def on_cached(
    parameters: CachedParams, splits: dict[str, Features], classes: int, session: Session, title: str = ""
) -> Verdict:
    """Logistic regression on the features of train, its regularisation chosen on val, applied to test."""
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    chosen, strength = probe.select(
        train, val, classes, parameters.l2, parameters.max_iterations, session, title if session.leads else ""
    )
    return _verdict(chosen, strength, val, test, session)


def _verdict(
    classifier: Callable[[Tensor], Tensor], chosen: float, val: Features, test: Features, session: Session
) -> Verdict:
    on_val, on_test = (shares.gathered(classifier(split.h), split.count, session).cpu() for split in (val, test))
    labels = shares.gathered(val.labels, val.count, session).cpu()
    return Verdict(on_test, chosen, accuracy(on_val, labels))


def untrained_features(
    seed: int, encoder: Encoder, preparation: Preparation, splits: dict[str, Beton], session: Session
) -> dict[str, Features]:
    """What the same network gives before any training."""
    torch.manual_seed(seed)
    fresh = frozen(Encoder(**encoder.architecture)).to(session.device)
    return encoded(fresh, splits, preparation, _ENCODED, session, "untrained, ")


def pixel_features(preparation: Preparation, splits: dict[str, Beton], session: Session) -> dict[str, Features]:
    """The pixels themselves, of images at most 32 on a side."""
    small = Preparation(min(preparation.size, _RAW_PIXELS), preparation.crop_share, preparation.mean, preparation.std)
    return encoded(nn.Flatten(), splits, small, _ENCODED, session, "raw pixels, ")


def through_encoder(
    parameters: LinearEvalParams,
    encoder: Encoder,
    preparation: Preparation,
    train: Beton,
    features: dict[str, Features],
    session: Session,
    classes: int,
) -> Verdict:
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
    with progress.bar(steps, "step", "linear_eval", shown=session.leads) as bar:
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
                    weight.grad = session.total(weight.grad)
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

        def load(samples: batches.Indices, epoch: int = epoch) -> Parcel:
            heights, widths = train.heights[samples], train.widths[samples]
            boxes = views.draw(cropping, heights, widths, parameters.seed, epoch, samples, views=1).boxes
            labels = {"labels": train.labels[samples]}
            return loader.load(train, samples, boxes, preparation.size, session.device, labels)

        shares = batches.shuffled(
            len(train),
            chosen.batch_size,
            parameters.seed,
            epoch,
            session.rank,
            session.world,
            drop_last=False,
        )
        left = len(train)
        for loaded in batches.prefetched(load, shares, loader.ahead(session.device)):
            batch = loaded.to(session.device)
            images = preparation.normalise(loader.crops(batch, preparation.size))
            size = min(chosen.batch_size, left)
            yield images.contiguous(memory_format=torch.channels_last), batch["labels"], size
            left -= size


def _crop_and_flip(chosen: AugmentedParams, size: int) -> ViewParams:
    return ViewParams(
        size=size, crop_scale=chosen.crop_scale, crop_ratio=[3 / 4, 4 / 3], flip=chosen.flip,
        jitter=0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0,
        blur=0, blur_sigma=[1, 1], solarize=0, solarize_threshold=1,
    )  # fmt: skip


@torch.no_grad()
def _best(heads: list[nn.Linear], rates: list[float], features: dict[str, Features], session: Session) -> Verdict:
    """As `probe.select`: the head with the lowest cross entropy on val."""
    val = features["val"]
    labels = shares.gathered(val.labels, val.count, session)
    losses = [F.cross_entropy(shares.gathered(head(val.h), val.count, session), labels).item() for head in heads]
    best = min(range(len(heads)), key=losses.__getitem__)
    return _verdict(heads[best], rates[best], val, features["test"], session)


def truth(split: Beton) -> Tensor:
    """The labels (N,) int64 of all images of `split`."""
    return torch.from_numpy(split.labels)


def confusion(scores: Tensor, labels: Tensor, classes: int) -> npt.NDArray[np.int64]:
    """How often each true class (row) was taken for each class (column): (C, C)."""
    pairs = labels * classes + scores.argmax(dim=1)
    counts: npt.NDArray[np.int64] = torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()
    return counts


def top(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent."""
    return {f"top{k}": 100 * accuracy(scores, labels, k) for k in (1, 5)}
