"""The embedding map of a revision, which is in no commit: that of the workspace in data, others in DVC's cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from review import dvc_cache, images, results
from review.images import Images, NotShownError
from review.revision import Revision

EMBEDDING = "data/embedding.safetensors"


@dataclass(frozen=True)
class Embedding:
    """Where a map has some of the `images`."""

    md5: str
    """Of the file."""
    images: Images
    points: dict[int, tuple[float, float]]
    """By the row of test."""


def read(revision: Revision) -> Embedding:
    """The embedding of a revision, and the images that it is of.

    Raises:
        NotShownError: the file or the images are not here, or it is no map of them.
    """
    if revision.commit:
        md5 = results.locked(revision, "embed").get(EMBEDDING, "")
        data = images.data_of(revision, "embed", EMBEDDING, md5)
        path = dvc_cache.find(md5)
        if path is None:
            raise NotShownError(f"{EMBEDDING} is not in the cache of DVC here")
    else:
        path = Path(EMBEDDING)
        if not path.is_file():
            raise NotShownError(f"there is no {EMBEDDING} here")
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        data = images.data_of(revision, "embed", EMBEDDING, md5)
    found = images.open_images(data)
    return Embedding(md5, found, _points(path, found))


def _points(path: Path, found: Images) -> dict[int, tuple[float, float]]:
    import numpy as np  # simclr, which chooses the instructions that it uses, has opened the images

    from simclr.core import arrays
    from simclr.core.errors import UserError

    try:
        samples, points = arrays.load(path, ["samples", "points"], "embed").values()
    except UserError as error:
        raise NotShownError(str(error)) from error
    except (TypeError, AttributeError) as error:  # of a type that NumPy lacks
        raise NotShownError(f"{path}: no map of the test images; the embed stage writes it") from error
    whole = (
        samples.ndim == 1
        and points.shape == (len(samples), 2)
        and samples.dtype.kind == "i"
        and points.dtype.kind == "f"
        and len(samples)
    )
    if not whole or not np.isfinite(points).all() or samples.min() < 0 or samples.max() >= len(found.test):
        raise NotShownError(f"{path}: no map of the test images; the embed stage writes it")
    return dict(zip(samples.tolist(), map(tuple, points.tolist()), strict=True))
