"""The images of test, which are in no commit: those of data/beton, where it holds the data that a revision is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from review import dvc_cache, results
from review.revision import Revision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simclr.data.beton import Beton

BETON = Path("data/beton")


class NotShownError(Exception):
    """There are no pictures; says why."""


@dataclass(frozen=True)
class Images:
    """The split `test` of a data set."""

    test: Beton
    classes: list[str]
    """The names of the labels 0, 1, ...; empty for images without labels."""

    @property
    def names(self) -> list[str]:
        """The class of each image; empty texts without labels."""
        return [self.classes[label] if self.classes else "" for label in self.test.labels]

    def cells(self, samples: Sequence[int], side: int) -> list[NDArray[np.uint8]]:
        """The images of the rows `samples`, each (side, side, 3).

        Raises:
            NotShownError: one of them is damaged.
        """
        import numpy as np  # simclr, which chooses the instructions that it uses, has opened `test`

        from simclr.core.errors import UserError
        from simclr.data import loader
        from simclr.thumbnails import cells

        try:
            images = loader.thumbnails(self.test, np.array(samples), side)
        except UserError as error:
            raise NotShownError(str(error)) from error
        return [cells.fit(image, side) for image in images]


def data_of(revision: Revision, stage: str, out: str, md5: str) -> str:
    """The digest of the data that a `stage` of the `revision` made the file `out` of, which has that `md5`.

    dvc.lock knows what the stage read, and the run.json of convert its digest, or the cache of DVC where that is of
    another result: DVC brings results back from its run cache without run.json.

    Raises:
        NotShownError: they are about another file, or other data.
    """
    locked = results.locked(revision, stage)
    beton = locked.get(str(BETON), "")
    record = results.flat(results.record(revision, "convert"))
    by_record = record.get("fingerprints.data") if beton == record.get(f"outs.{BETON}") else None
    data = by_record or _in_cache(beton)
    if locked.get(out) != md5 or not data:
        raise NotShownError(f"neither run.json nor the cache of DVC here says which data {revision.name} is about")
    return str(data)


def _in_cache(beton: str) -> str:
    """The digest of the data in the folder data/beton with that MD5; nothing if the cache lacks it."""
    try:
        from simclr.core import fingerprint

        files = {item["relpath"]: item["md5"] for item in _json(beton)}
        return fingerprint.of_values(_json(files["dataset.json"])["digests"])
    except (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def _json(md5: str) -> Any:
    path = dvc_cache.find(md5)
    return json.loads(path.read_bytes()) if path else {}


def open_images(data: str) -> Images:
    """Those of the data with that digest.

    Raises:
        NotShownError: data/beton is missing, damaged or of other data, or the environment cannot read it.
    """
    if not BETON.is_dir():
        raise NotShownError(f"there is no {BETON} here")
    try:
        from simclr.core import fingerprint
        from simclr.core.errors import UserError
        from simclr.data import converted
    except ImportError as error:
        raise NotShownError(f"reading {BETON} needs the environment on the PATH ({error})") from error
    try:
        info = converted.load_info(BETON)
        test = converted.open_split(BETON, "test")
    except UserError as error:
        raise NotShownError(str(error)) from error
    if fingerprint.of_values(info.digests) != data:
        raise other_data()
    return Images(test, info.classes)


def other_data() -> NotShownError:
    return NotShownError(f"{BETON} holds other data here; `dvc checkout` may bring back those of a commit")
