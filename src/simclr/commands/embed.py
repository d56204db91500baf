"""`simclr embed`: the representations of all images of a folder."""

import argparse
from pathlib import Path

from simclr.commands import arguments

MOST_IMAGES = 65536
"""In a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr embed",
        description="Encode every image of FOLDER. The representations become a file of NumPy, (N, D) float32, and the "
        "names of the images, in the same order, a table beside it: FILE.npy and FILE.names.csv.",
    )
    arguments.add_encoding(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE.npy", help="default: the folder's name, in the working directory"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images that are encoded at a time (default: 1 on a CPU, where more change the last bits; 256 on a GPU)",
    )
    options = parser.parse_args()
    output = options.output or Path(f"{options.folder.resolve().name}.npy")
    arguments.check_suffix("--output", output, ".npy")
    if options.batch_size is not None:
        arguments.check_count("--batch-size", options.batch_size, MOST_IMAGES)
    # not at the top: they import torch, which takes seconds
    from simclr.commands import feature_table, image_folder
    from simclr.commands.folder_encoder import FolderEncoder
    from simclr.distributed.session import open_session

    with open_session() as session:
        encoder = FolderEncoder(options.encoder, session)
        images = image_folder.find(options.folder)
        with feature_table.writing(output) as write:
            table = encoder.encode(images, skip_unreadable=options.skip_unreadable, batch_size=options.batch_size)
            write(table)
    count, dimension = table.h.shape
    print(f"embed: {output}: {count} images, {dimension} numbers each; {feature_table.names_path(output)}: their names")
