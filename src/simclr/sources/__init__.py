"""Sources of images. A source is a module of this package, by its name:

    def fetch(parameters: FetchParams, output: Path, downloads: Path) -> Dataset

writes the splits train and test, and any others, to the folder `output` by `source_images`. Its downloads go to the
folder `downloads`, which is removed afterwards. It raises a UserError if the source is unavailable or damaged.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from simclr.core import options, params
from simclr.core.atomic import replacing
from simclr.images import source_images

FUNCTIONS = ("fetch",)
"""A module has at least one of them: see `options.module`."""


@dataclass(kw_only=True)
class FetchParams:
    """The section `fetch` of params.yaml."""

    source: str = params.choice(*options.names("sources"))
    # read by the source `folder` alone
    folder: str = params.path()
    max_megapixels: int = params.at_least(1)
    truncated: str = params.choice("refuse", "keep")


def fetch(parameters: FetchParams, output: Path) -> source_images.Dataset:
    """Fetch the images of `parameters.source` into the folder `output`, in the layout of `source_images`.

    `output` is replaced once it is complete; after a failure it is unchanged.

    Raises:
        UserError: the source is unavailable or damaged, or `output` cannot be written; names the source.
    """
    source = options.module("sources", parameters.source)
    with replacing(output) as building:
        downloads = building / "downloads"
        building.mkdir()
        dataset: source_images.Dataset = source.fetch(parameters, building, downloads)
        shutil.rmtree(downloads, ignore_errors=True)
        source_images.write_dataset(building, dataset)
    return dataset
