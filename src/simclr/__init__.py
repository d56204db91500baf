"""Declarative SimCLR experiments: the library behind the stages of dvc.yaml, and the encoders that they make:

    encoder, prepare = simclr.load_encoder("models/encoder.safetensors")
    h = encoder(prepare(PIL.Image.open("cat.jpg"))[None])

Importing it holds a CPU's libraries to one instruction set: see `core.processor`.
"""

from typing import TYPE_CHECKING

from simclr.core import processor

if TYPE_CHECKING:
    from os import PathLike

    from simclr.features.encoder import Encoder
    from simclr.features.eval_transform import EvalTransform

processor.hold()


def load_encoder(path: "str | PathLike[str]") -> "tuple[Encoder, EvalTransform]":
    """Load an encoder that pretraining wrote, and what prepares an image for it.

    The encoder maps (N, 3, S, S) to representations (N, D); it is in eval mode, without gradients, on the CPU. The
    transform maps a PIL image of any mode, which it takes as `fetch` does, to (3, S, S). Neither DVC nor FFCV is
    imported.

    Raises:
        UserError: the file is missing or damaged, or holds no encoder.
    """
    from pathlib import Path

    from simclr.features import encoder_file

    return encoder_file.load(Path(path))
