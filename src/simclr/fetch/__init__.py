"""Bring the raw images of an experiment into one folder, whatever their source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simclr import params, raw
from simclr.atomic import appearing
from simclr.fetch import archives, digits, folder


@dataclass(kw_only=True)
class FetchParams:
    """The section `fetch` of params.yaml."""

    source: str = params.choice("digits", *archives.SOURCES, "folder")
    # read by the source `folder` alone
    folder: str = params.path()
    max_megapixels: int = params.at_least(1)
    truncated: str = params.choice("refuse", "keep")


def fetch(parameters: FetchParams, output: Path, say: Callable[[str], None]) -> raw.Dataset:
    """Bring the images of `parameters.source` into the folder `output`, laid out as `raw` describes.

    `output` appears when it is complete, in place of what was there; after a failure it is as it was, and
    nothing half-made stays. `say` is told in a line what was left out.

    Raises:
        UserError: the source cannot be had or is damaged, or `output` cannot be made.
    """
    with appearing(output) as building:
        building.mkdir()
        match parameters.source:
            case "digits":
                dataset = digits.bring(building)
            case "folder":
                dataset = folder.bring(
                    Path(parameters.folder),
                    building,
                    say,
                    truncated=parameters.truncated == "keep",
                    megapixels=parameters.max_megapixels,
                )
            case name:
                dataset = archives.bring(name, building)
        raw.write_dataset(building, dataset)
    return dataset
