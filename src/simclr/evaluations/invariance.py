"""What the representation keeps of an image under each augmentation: the mean cosine similarity of h of an image and of
a view of it, over test images; no labels.

Each augmentation is always applied here (probability 1), with the strengths of params.yaml. `all` are those of
pretraining together, with their probabilities. `other_image` is the similarity of two different images, against which
the others are to be read. `alignment` is the mean of |u - v|^2 over two views of an image by all of them, of normalised
h (Wang and Isola 2020, equation 1 of section 4.1.2, with alpha = 2); 0 is the best, and collapse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params
from simclr.core.options import Option
from simclr.distributed import shares
from simclr.evaluations import Findings, Indices, Subject
from simclr.evaluations._views import always, batches


@dataclass(kw_only=True)
class Params:
    """`evaluations.invariance` of params.yaml."""

    images: int = params.at_least(2)


def evaluate(parameters: Params, subject: Subject) -> Findings:
    """See `evaluations`."""
    samples = subject.draw("test", parameters.images)
    [plain] = _encoded(subject, samples, (), 1)
    similarities = {}
    for name, option in subject.augmentations.items():
        [view] = _encoded(subject, samples, (always(option),), 1)
        similarities[name] = _mean_similarity(plain, view)
    together = [subject.augmentations[name] for name in subject.pretrained_with]
    first, second = _encoded(subject, samples, together, 2)
    similarities["all"] = (_mean_similarity(plain, first) + _mean_similarity(plain, second)) / 2
    # over all pairs of different images: the square of the sum, less the pairs of each with itself
    total = plain.sum(dim=0).square().sum() - plain.square().sum()
    similarities["other_image"] = total.item() / (len(plain) * (len(plain) - 1))
    return Findings(
        {**similarities, "alignment": (first - second).square().sum(dim=1).mean().item()},
        [{"augmentation": name, "similarity": value} for name, value in similarities.items()],
    )


def _mean_similarity(u: Tensor, v: Tensor) -> float:
    return (u * v).sum(dim=1).mean().item()


@torch.no_grad()
def _encoded(subject: Subject, samples: Indices, augmentations: Sequence[Option], count: int) -> list[Tensor]:
    """Normalised h (n, D) float64 of `count` views of the `samples`, on every rank."""
    parts: list[list[Tensor]] = [[] for _ in range(count)]
    for _, images in batches(subject, samples, augmentations, count):
        representations = subject.encoder(subject.transform.normalise(images))
        for part, h in zip(parts, representations.chunk(count), strict=True):
            part.append(F.normalize(h.double(), dim=1))
    empty = subject.features["test"].h.new_zeros((0, subject.encoder.dimension), dtype=torch.float64)
    return [shares.all_gather(torch.cat([empty, *part]), len(samples), subject.session) for part in parts]
