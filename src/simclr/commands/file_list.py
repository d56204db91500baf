"""`simclr list`: the image files of a folder with their digests, as a file that `fetch.folder` takes."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr list",
        description="List the image files of FOLDER with their digests. With the list as fetch.folder, DVC looks at "
        "one file instead of at all images, which of a million takes minutes; make it anew when images change.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with train/<class>/* and test/<class>/* (or val/)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: the folder's name and .b2sum, in the working directory"
    )
    given = parser.parse_args()
    root = given.folder.resolve()
    output = given.output or Path(f"{root.name}.b2sum")
    from simclr.commands import image_folder  # not at the top: these import torch, which takes seconds
    from simclr.core import thread_pool
    from simclr.core.errors import UserError
    from simclr.core.prefetch import prefetch
    from simclr.images import file_list
    from simclr.images.names import escape
    from simclr.images.source_images import digest
    from simclr.tracking import progress

    def digest_of(name: str) -> str:
        try:
            return digest((root / name).read_bytes())
        except OSError as error:
            raise UserError(f"{escape(str(root / name))}: cannot be read ({error.strerror})") from error

    names = image_folder.find(root).names
    for name in names:
        if not name.isprintable():
            raise UserError(f"{escape(str(root / name))}: the name has a line break or is not UTF-8; rename it")
    with progress.bar(len(names), "file", "list") as bar:
        digests = []
        for name, found in zip(names, prefetch(digest_of, names, thread_pool.THREADS), strict=True):
            digests.append((name, found))
            bar.update()
    file_list.write(output, root, digests)
    print(f"list: {output}: {len(names)} images of {root}; use it by fetch.folder={output}")
