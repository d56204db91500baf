"""Views of test images, as the evaluations show them to the encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from torch import Tensor

from simclr.core.options import Option
from simclr.data import sampling
from simclr.distributed import shares
from simclr.evaluations import Indices, Subject
from simclr.views.compose import Views
from simclr.views.stream import ViewStream

BATCH = 256
"""Images that are encoded at once, unless their gradients are asked for."""


def batches(
    subject: Subject, samples: Indices, augmentations: Sequence[Option] = (), count: int = 1, batch_size: int = BATCH
) -> Iterator[tuple[Indices, Tensor]]:
    """This rank's share of the `samples` (N,) of test, in their order: at most `batch_size` of them, (B,), and `count`
    views of each by the `augmentations`, (count * B, 3, S, S) float32 in [0, 1], all first views before all second
    ones."""
    session, transform = subject.session, subject.transform
    views = Views(augmentations, count, transform.size, subject.seed, share=transform.crop_share)
    stream = ViewStream(subject.splits["test"], (views,), session.device)
    for batch in sampling.sequential_batches(samples[shares.own(len(samples), session)], batch_size):
        yield batch, stream.batch(stream.load(batch, 1), len(batch)).images[0]


def always(option: Option) -> Option:
    """The augmentation with probability 1."""
    if any(field.name == "probability" for field in fields(option.parameters)):
        return replace(option, parameters=replace(option.parameters, probability=1.0))
    return option
