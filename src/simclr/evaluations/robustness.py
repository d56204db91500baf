"""Top-1 accuracy on changed test images, of a linear classifier that was fitted on the representations of train as they
are: logistic regression on standardised h, with one strength of L2 for all encoders.

- clean: on the images as they are.
- <augmentation>: under each by itself, always applied (probability 1), with the strengths of params.yaml; `mean` is
  their mean.
- pgd_<epsilon>: under an attack that may change each pixel by epsilon / 255 (`_pgd`), at the last of its steps. It goes
  through the classifier and the encoder, and begins at random.

The table has weaker augmentations too: at strength s each parameter is s of the way from the identity, which changes
nothing (IDENTITY in the augmentation's module), to its value in params.yaml. Parameters and not pixels, because half of
the way to a rotated image is not an image rotated by half the angle, but two of them. Draws are the same at every
strength. What has no IDENTITY, such as a flip, either happens or does not, and is the same at every strength above 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from simclr.augment import Draws
from simclr.core import params
from simclr.core.options import Option
from simclr.evaluations import Findings, Indices, Subject
from simclr.evaluations._pgd import attacked
from simclr.evaluations._views import always, batches
from simclr.features import logistic_regression

NEEDS_LABELS = True
_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_ITERATIONS = 200
_ATTACKED = 64
"""Images that are attacked at once: of a ResNet-50 at 224 px, autograd keeps 5.5 GB."""


@dataclass(kw_only=True)
class Params:
    """`evaluations.robustness` of params.yaml."""

    images: int = params.at_least(1)
    l2: float = params.above(0)
    epsilon: list[int] = params.each_at_least(0)
    steps: int = params.at_least(1)
    step_size: float = params.above(0)


@dataclass(frozen=True)
class _Classifier:
    """Class scores (N, C) of images (N, 3, S, S) in [0, 1]."""

    subject: Subject
    probe: logistic_regression.Probe

    def __call__(self, images: Tensor) -> Tensor:
        return self.probe(self.subject.encoder(self.subject.transform.normalise(images)))

    @torch.no_grad()
    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """The number of images (N, 3, S, S) whose highest score is that of their label (N,)."""
        return (self(images).argmax(dim=1) == labels).sum()


def evaluate(parameters: Params, subject: Subject) -> Findings:
    """See `evaluations`."""
    train, session = subject.features["train"], subject.session
    probe = logistic_regression.fit(train, subject.classes, parameters.l2, _ITERATIONS, session)
    classifier = _Classifier(subject, probe)
    samples = subject.draw("test", parameters.images)
    clean = _accuracy(classifier, samples, ())
    columns = {
        name: [clean, *(_accuracy(classifier, samples, (_weakened(option, share),)) for share in _STRENGTHS)]
        for name, option in subject.augmentations.items()
    }
    full = {name: column[-1] for name, column in columns.items()}
    under_attack = _under_attack(parameters, classifier, samples)
    return Findings(
        {"clean": clean, **full, "mean": sum(full.values()) / len(full), **under_attack},
        [
            {"strength": strength, **{name: column[row] for name, column in columns.items()}}
            for row, strength in enumerate((0.0, *_STRENGTHS))
        ],
    )


def _weakened(option: Option, share: float) -> Option:
    """The augmentation with probability 1, and with parameters that are `share` of the way from the identity."""
    identity = getattr(option.module, "IDENTITY", {})
    between = {name: _between(weakest, getattr(option.parameters, name), share) for name, weakest in identity.items()}
    return always(replace(option, parameters=replace(option.parameters, **between)))


def _between(first: Any, second: Any, share: float) -> Any:
    if isinstance(first, list):
        return [_between(*pair, share) for pair in zip(first, second, strict=True)]
    return (1 - share) * first + share * second


def _accuracy(classifier: _Classifier, samples: Indices, augmentations: Sequence[Option]) -> float:
    """In percent, on views of the `samples` of test by the `augmentations`."""
    subject = classifier.subject
    right = torch.zeros((), dtype=torch.int64, device=subject.session.device)
    for batch, images in batches(subject, samples, augmentations):
        right += classifier.right(images, _labels(subject, batch))
    return 100 * subject.session.sum(right).item() / len(samples)


def _under_attack(parameters: Params, classifier: _Classifier, samples: Indices) -> dict[str, float]:
    """The accuracy in percent for each epsilon, by the name of its metric."""
    subject, epsilons = classifier.subject, sorted(set(parameters.epsilon))
    right = torch.zeros(len(epsilons), dtype=torch.int64, device=subject.session.device)
    for batch, images in batches(subject, samples, batch_size=_ATTACKED):
        labels = _labels(subject, batch)
        drawn = Draws("pgd", subject.seed, 1, batch, views=1).uniform("", *images.shape[1:])[:, 0]
        start = torch.from_numpy(2 * drawn - 1).to(images)
        for number, epsilon in enumerate(epsilons):
            bound = epsilon / 255
            changed = attacked(classifier, images, labels, start, bound, bound * parameters.step_size, parameters.steps)
            right[number] += classifier.right(changed, labels)
    accuracies = 100 * subject.session.sum(right).double() / len(samples)
    return {f"pgd_{epsilon}": accuracy for epsilon, accuracy in zip(epsilons, accuracies.tolist(), strict=True)}


def _labels(subject: Subject, batch: Indices) -> Tensor:
    return torch.from_numpy(subject.splits["test"].labels[batch]).to(subject.session.device)
