"""Arguments that several subcommands have."""

import argparse
from pathlib import Path

from simclr.core.errors import UserError


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add what is needed to encode a folder of images."""
    parser.add_argument(
        "folder", type=folder, metavar="FOLDER", help="its images, at any depth; hidden files are left out"
    )
    add_encoder(parser)
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")


def folder(text: str) -> Path:
    """The path `text`. What an unset variable of a shell leaves empty is refused: pathlib takes it for the working
    directory."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a folder")
    return Path(text)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the encoder's file."""
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="FILE",
        default=Path("models/encoder.safetensors"),
        help="the encoder that pretraining wrote (default: %(default)s)",
    )


def check_count(name: str, value: int, most: int) -> None:
    """Refuse a `value` of the argument `name` outside of 1 to `most`.

    Raises:
        UserError: it is.
    """
    if not 1 <= value <= most:
        raise UserError(f"{name} {value} is not allowed; it takes an integer from 1 to {most}")


def check_suffix(name: str, path: Path, suffix: str) -> None:
    """Refuse a `path`, the argument `name`, of a file to be written that does not end in `suffix`, or is a folder.

    Raises:
        UserError: it does not.
    """
    if path.suffix != suffix or path.is_dir():
        raise UserError(f"{name} {path} is not allowed; it takes the name of a file that ends in {suffix}")
