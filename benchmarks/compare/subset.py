"""Some images of a folder, as links to them in a folder of their own."""

import os
from pathlib import Path

from benchmarks.images import class_folders, first
from simclr.core.atomic import replacing


def linked(images: Path, per_class: int, folder: Path) -> None:
    """Have `folder` hold links to the first `per_class` images of every class of train in `images`, and to all of test
    and val, as far as they are there.

    Raises:
        UserError: no class is in train, or one has too few images.
    """
    listed = [path for name in class_folders(images / "train") for path in first(name, per_class)]
    for split in ("test", "val"):
        listed += sorted(path for path in (images / split).rglob("*") if path.is_file())
    with replacing(folder) as building:
        for path in listed:
            link = building / path.relative_to(images)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path.resolve(), link)
