"""The section `embed` of params.yaml."""

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


def check(parameters: EmbedParams, train: int, test: int) -> None:
    """Compare `parameters` with the numbers of images in `train` and `test`.

    Raises:
        UserError: there are fewer images than neighbors, or too few test images for the map.
    """
    if parameters.neighbors > train:
        raise params.refusal("embed.neighbors", parameters.neighbors, f"at most {train}, the images of train")
    points = min(parameters.map_points, test)
    if points < 2:
        raise UserError(f"the map of embed takes 2 test images or more; there is {points}")
    if parameters.map_perplexity >= points:
        takes = f"a number < {points}, the points of the map"
        raise params.refusal("embed.map_perplexity", parameters.map_perplexity, takes)
