"""Frozen encoders to evaluate, on a few images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from simclr.core import options
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.evaluations import Subject
from simclr.features.encode import Features, encode_splits
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import freeze
from simclr.features.eval_transform import EvalTransform
from tests.helpers.betons import noise, stored
from tests.helpers.recipes import SHIPPED

SIDE = 8


class Pixels(Encoder):
    """h is the image itself, by which every similarity can be computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.architecture, self.dimension, self.crop_share = {}, 3 * SIDE**2, 1.0
        self.layers = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        h: Tensor = self.layers(images)
        return h


def subject(
    folder: Path,
    session: Session,
    encoder: Encoder | None = None,
    train: int = 40,
    test: int = 24,
    share: float = 1.0,
) -> Subject:
    """`encoder`, or the pixels, on noise of three classes, of which each is a shade."""
    folder.mkdir(exist_ok=True)
    splits = {}
    for seed, (name, count) in enumerate({"train": train, "val": 12, "test": test}.items()):
        labels = np.arange(count) % 3
        images = (noise(count, SIDE, seed) // 4 + (60 * labels)[:, None, None, None]).astype(np.uint8)
        path = folder / f"{name}-{session.rank}.beton"
        splits[name] = stored(path, images, labels)
    transform = EvalTransform(size=SIDE, crop_share=share, mean=[0.4] * 3, std=[0.2] * 3)
    encoder = freeze(encoder or Pixels())
    return Subject(
        encoder=encoder,
        transform=transform,
        augmentations={name: options.checked("augment", name, SHIPPED, "test") for name in options.names("augment")},
        pretrained_with=["crop", "flip", "jitter"],
        splits=splits,
        features=encode_splits(encoder, splits, transform, 8, session),
        seed=0,
        session=session,
    )


def with_features(subject: Subject, split: str, h: Tensor) -> Subject:
    """The `subject` with other representations (N, D) of `split`."""
    features = subject.features[split]
    own = h[shares.own(len(h), subject.session)]
    changed = {**subject.features, split: Features(own, features.labels, features.count)}
    return replace(subject, features=changed)


def directions(count: int, dimension: int) -> Tensor:
    """Random rows (count, dimension)."""
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(0))
