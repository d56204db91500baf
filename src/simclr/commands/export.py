"""`simclr export`: the encoder as a file of ONNX, with the preparation of images inside."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from simclr.commands import arguments
from simclr.core.errors import UserError

PACKAGES = ("onnx", "onnxscript")
"""What torch's exporter needs."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr export",
        description="Write the encoder, with the preparation of images inside, as a file of ONNX: it takes `images`, "
        "(N, 3, H, W) uint8 in RGB, of any number and size, and gives `h`, (N, D) float32.",
    )
    parser.add_argument("output", type=Path, metavar="FILE.onnx", help="the file to write")
    arguments.add_encoder(parser)
    options = parser.parse_args()
    arguments.check_suffix("FILE.onnx", options.output, ".onnx")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"needs packages that are not installed: pip install {' '.join(missing)}")
    # not at the top: they import torch, which takes seconds
    from simclr.commands.image_encoder import ImageEncoder
    from simclr.commands.onnx_file import onnx_bytes
    from simclr.core import atomic
    from simclr.features import encoder_file

    encoder, transform = encoder_file.load(options.encoder)
    atomic.write_bytes(options.output, onnx_bytes(ImageEncoder(encoder, transform)))
    print(f"export: {options.output}: images (N, 3, H, W) uint8 to h (N, {encoder.dimension}) float32")
