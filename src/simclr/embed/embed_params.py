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


def refusals(parameters: EmbedParams, train: int, test: int) -> Iterator[UserError]:
    """The values for which `train` or `test` has too few images."""
    if parameters.neighbors > train:
        yield params.refusal("embed.neighbors", parameters.neighbors, f"at most {train}, the images of train")
    points = min(parameters.map_points, test)
    if points < 2:
        yield UserError(f"the map of embed takes 2 test images or more; there is {points}")
    elif parameters.map_perplexity >= points:
        takes = f"a number < {points}, the points of the map"
        yield params.refusal("embed.map_perplexity", parameters.map_perplexity, takes)
