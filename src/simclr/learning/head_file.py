"""The file of a pretrained projection head: its shape and its weights, or that the method has none."""

import dataclasses
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save as serialise

from simclr.core import atomic
from simclr.core.errors import UserError
from simclr.features.encoder_file import DAMAGE
from simclr.learning import projection_head
from simclr.learning.projection_head import Head, HeadParams


def save(path: Path, head: Head | None) -> None:
    """Write `path` in the safetensors format; equal weights give equal bytes."""
    description, weights = None, {}
    if head is not None:
        description = {"shape": dataclasses.asdict(head.shape), "dimension": head.dimension}
        weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    atomic.write_bytes(path, serialise(weights, metadata={"head": json.dumps(description)}))


def load(path: Path, dimension: int) -> Head | None:
    """Load what `save` wrote, on the CPU: the head of an encoder whose representations have this `dimension`.

    Raises:
        UserError: the file is missing, damaged, or of an encoder of another dimension.
    """
    try:
        with safe_open(path, "pt") as file:
            description = json.loads(file.metadata()["head"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if description is None:
            return None
        head = projection_head.build(HeadParams(**description["shape"]), description["dimension"])
        head.load_state_dict(weights)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the pretrain stage writes it") from error
    except DAMAGE as error:
        raise UserError(f"{path}: damaged, or not a head that the pretrain stage wrote") from error
    if head.dimension != dimension:
        raise UserError(
            f"{path}: takes representations of {head.dimension} numbers, but the encoder's have {dimension}; "
            "run the pretrain stage"
        )
    return head
