"""`simclr search`: the images of a folder that are most similar to an image."""

import argparse
import sys
from pathlib import Path

from simclr.commands import arguments

MOST_SHOWN = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr search",
        description="Find the images of FOLDER whose representations are nearest to that of IMAGE by cosine "
        "similarity; list them, and draw them.",
    )
    arguments.add_encoding(parser)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="what to look for")
    parser.add_argument("--count", type=int, default=12, metavar="K", help="images to find (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.png", default=Path("search.png"), help="default: %(default)s"
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE.npy", help="what `simclr embed FOLDER` wrote, instead of encoding anew"
    )
    options = parser.parse_args()
    arguments.check_suffix("--output", options.output, ".png")
    arguments.check_count("--count", options.count, MOST_SHOWN)
    from simclr.commands import nearest_images  # not at the top: it imports torch, which takes seconds

    neighbors = nearest_images.search(
        options.folder,
        options.image,
        options.count,
        options.encoder,
        options.output,
        options.features,
        options.skip_unreadable,
    )
    for similarity, name in neighbors:
        print(f"{similarity:.4f}  {name}")
    print(f"search: {options.output} shows them", file=sys.stderr)
