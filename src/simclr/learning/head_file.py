"""The file of a pretrained projection head: its shape and its weights, or that the method has none."""

import dataclasses
from pathlib import Path

from simclr.core.errors import UserError
from simclr.features import network_file
from simclr.learning import projection_head
from simclr.learning.projection_head import Head, HeadParams


def save(path: Path, head: Head | None) -> None:
    """Write `path` in the safetensors format; equal weights give equal bytes."""
    shape = None if head is None else {"shape": dataclasses.asdict(head.shape), "dimension": head.dimension}
    network_file.write(path, "head", shape, head)


def load(path: Path, dimension: int) -> Head | None:
    """Load what `save` wrote, on the CPU: the head of an encoder whose representations have this `dimension`.

    Raises:
        UserError: the file is missing, damaged, or of an encoder of another dimension.
    """
    with network_file.reading(path, "a head"):
        description, weights = network_file.read(path, "head")
        if description is None:
            return None
        head = projection_head.build(HeadParams(**description["shape"]), description["dimension"])
        network_file.fill(head, weights)
    if head.dimension != dimension:
        raise UserError(
            f"{path}: takes representations of {head.dimension} numbers, but the encoder's have {dimension}; "
            "run the pretrain stage"
        )
    return head
