"""The folder of features that embed writes and linear_eval reads: <split>.safetensors with h and labels."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features


def save(folder: Path, splits: Mapping[str, Features]) -> None:
    """Write `folder`, which appears whole or not at all, with the whole features of the `splits`."""
    with replacing(folder) as partial:
        partial.mkdir()
        for name, features in splits.items():
            # safetensors' save_file has exceptions and file modes of its own
            content = serialise({"h": features.h.contiguous(), "labels": features.labels})
            (partial / f"{name}.safetensors").write_bytes(content)


def load(folder: Path, split: str, shape: tuple[int, int], session: Session) -> Features:
    """Load this rank's share of the features of `split` that `save` wrote, on its device.

    Args:
        shape: the number of the split's images, and the dimension of the encoder.

    Raises:
        UserError: the file is missing or damaged, or its features have another shape or are not finite.
    """
    path = folder / f"{split}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            slices = [file.get_slice(name) for name in ("h", "labels")]
            shapes = [rows.get_shape() for rows in slices]
            if [len(shape) for shape in shapes] != [2, 1] or shapes[0][0] != shapes[1][0]:
                raise KeyError
            count = shapes[0][0]
            h, labels = (rows[shares.own(count, session)].to(session.device) for rows in slices)
            features = Features(h.to(torch.float32), labels, count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the embed stage writes it") from error
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: damaged; the embed stage writes it") from error
    if (count, h.shape[1]) != shape or not features.is_finite():
        raise UserError(f"{path}: not of these images and this encoder; run the embed stage")
    return features
