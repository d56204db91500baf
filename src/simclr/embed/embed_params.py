"""The section `embed` of params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass

from simclr.core import params
from simclr.core.errors import UserError


@dataclass(kw_only=True)
class EmbedParams:
    """`embed` of params.yaml."""

    batch_size: int = params.at_least(1)
    neighbors: int = params.at_least(1)
    temperature: float = params.above(0)
    map_points: int = params.at_least(10)
    map_perplexity: float = params.at_least(1)
    seed: int = params.seed()


def refusals(test: int) -> Iterator[UserError]:
    """What cannot be done because `test` has too few images."""
    if test < 2:
        yield UserError(f"the map of embed takes 2 test images or more; there is {test}")
