"""`simclr list`: the image files of a folder with their digests, as a file that `fetch.folder` takes."""

import argparse
from pathlib import Path

from simclr.commands import arguments


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr list",
        description="List the image files of FOLDER with their digests. With the list as fetch.folder, DVC looks at "
        "one file instead of at all images, which of a million takes minutes. Make it anew when images are added, "
        "removed or changed.",
    )
    parser.add_argument(
        "folder", type=arguments.folder, metavar="FOLDER", help="with train/<class>/* and test/<class>/* (or val/)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: the folder's name and .b2sum, in the working directory"
    )
    options = parser.parse_args()
    root = options.folder.resolve()
    output = options.output or Path(f"{root.name}.b2sum")
    from simclr.commands.folder_digests import check_output, folder_digests  # not at the top: it imports torch
    from simclr.images import file_list

    check_output(output)
    digests = folder_digests(root)
    file_list.write(output, root, digests)
    print(f"list: {output}: {len(digests)} images of {root}; use it by fetch.folder={output}")
