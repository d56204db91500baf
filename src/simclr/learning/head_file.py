"""The file of a pretrained projection head: its shape and its weights, or that the method has none; and its encoder."""

import dataclasses
from pathlib import Path

from simclr.core.errors import UserError
from simclr.features import network_file
from simclr.learning import projection_head
from simclr.learning.projection_head import Head, HeadParams


def save(path: Path, head: Head | None, encoder: str) -> None:
    """Write `path` in the safetensors format; equal weights give equal bytes.

    Args:
        encoder: the digest of the file of the encoder that was trained with it.
    """
    shape = None if head is None else {"shape": dataclasses.asdict(head.shape), "dimension": head.dimension}
    network_file.write(path, "head", {"head": shape, "encoder": encoder}, head)


def load(path: Path, encoder: str) -> Head | None:
    """Load what `save` wrote with the same `encoder`, on the CPU.

    Raises:
        UserError: the file is missing, damaged, or of another encoder.
    """
    with network_file.reading(path, "a head"):
        description, weights = network_file.read(path, "head")
        if description["encoder"] != encoder:
            raise UserError(f"{path}: not the head of this encoder; run the pretrain stage")
        if (shape := description["head"]) is None:
            return None
        head = projection_head.build(HeadParams(**shape["shape"]), shape["dimension"])
        network_file.fill(head, weights)
    return head
