"""Augmentations, which make the views of a sample differ. Each is a module of this package, by its name:

    class Params: ...       # a dataclass: its section `augment.<name>` of params.yaml

One that decides which part of the image is cut, before the image is read, has

    def boxes(boxes: Ints, parameters: Params, draws: Draws, heights: Ints, widths: Ints) -> Ints: ...

from `boxes` (B, V, 4) of images (B, 1) high and wide to others: see `data.crop`. One that changes pixels has

    def draw(parameters: Params, draws: Draws, resolution: int) -> Values: ...
    def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor: ...
    def reference(image: Tensor, parameters: Params, values: Values) -> Tensor: ...

`draw` decides on the host what happens to each view: arrays (B, V, ...). `apply` does it to a batch (N, 3, S, S)
float32 in [0, 1], its values (N, ...), with no transfer to the host. `reference` does it to one image (3, S, S) by
torchvision, for the tests. Two more are optional:

    def kernel(images, *values): ...                            # numba; on a CPU instead of `apply`, in place
    def prepared(values: Values, parameters: Params) -> Values  # made of `values` on the host, for `apply` alone

both with values (N, ...). `apply` and `kernel` do the same up to rounding, and a view's bits may depend on nothing but
its own pixels and values. An augmentation of either kind that can be stronger or weaker says what the weakest is:

    IDENTITY = {"degrees": 0.0}     # parameters, numbers or lists of them, with which it changes nothing
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import hashes, uniform

FUNCTIONS = ("boxes", "apply")
"""A module has at least one of them: see `options.module`."""
Ints = npt.NDArray[np.int64]
Values = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Draws:
    """Random draws for V `views` of B `samples`, from number `first` on, under a `name`: a function of the seed, the
    epoch, the sample's index, the view's number and the name, so that no other augmentation, batch, thread or rank
    changes it."""

    name: str
    seed: int
    epoch: int
    samples: Ints
    """(B,), indices into the whole data set."""
    views: int
    first: int = 0

    def uniform(self, quantity: str = "", *shape: int) -> npt.NDArray[np.float64]:
        """(B, V, *shape) in [0, 1), another draw for each `quantity`."""
        return uniform(*self._counters(quantity, shape))

    def occurs(self, probability: float) -> npt.NDArray[np.bool_]:
        """(B, V): what happens to a view with this probability."""
        return self.uniform() < probability

    def keys(self) -> Ints:
        """(B, V), from which more can be drawn on a device: see `randomness.reaches`."""
        return hashes(*self._counters("", ())).view(np.int64)

    def _counters(self, quantity: str, shape: tuple[int, ...]) -> tuple[int | Ints, ...]:
        stream = hashlib.sha256(f"{self.name}.{quantity}".encode()).digest()
        numbers = np.arange(self.first, self.first + self.views)
        sample, view, *others = np.ix_(self.samples, numbers, *map(np.arange, shape))
        return self.seed, self.epoch, sample, view, int.from_bytes(stream[:7]), *others
