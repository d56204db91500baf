"""The folder of features that embed writes and linear_eval reads: <split>.safetensors with h and labels."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save as serialise

from simclr.core import fingerprint, tensor_file
from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.data.beton import Beton
from simclr.data.converted import DatasetInfo
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features, is_finite

_TYPES = {"h": "F32", "labels": "I64"}


def inputs(info: DatasetInfo, encoder: Path) -> dict[str, str]:
    """The digests of what features are made from: the converted images and the file of the encoder."""
    return {"data": fingerprint.of_values(info.digests), "encoder": fingerprint.of_file(encoder)}


def save(folder: Path, splits: Mapping[str, Features], inputs: Mapping[str, str]) -> None:
    """Write `folder`, which appears whole or not at all, with the whole features of the `splits`.

    Args:
        inputs: as of the function `inputs`.
    """
    with replacing(folder) as partial:
        partial.mkdir()
        for name, features in splits.items():
            # safetensors' save_file has exceptions and file modes of its own
            content = serialise({"h": features.h.contiguous(), "labels": features.labels}, _metadata(inputs, name))
            (partial / f"{name}.safetensors").write_bytes(content)


def load(folder: Path, name: str, split: Beton, inputs: Mapping[str, str], session: Session) -> Features:
    """Load this rank's share of the features of `split` that `save` wrote as `name`, on its device.

    Raises:
        UserError: the file is missing or damaged, was made from other `inputs`, or its features are not finite.
    """
    path, own = folder / f"{name}.safetensors", shares.own(len(split), session)
    try:
        with tensor_file.opened(path, "pt") as file:
            if file.metadata() != _metadata(inputs, name):
                raise UserError(f"{path}: not of these images and this encoder; run the embed stage")
            slices = [file.get_slice(key) for key in _TYPES]
            shapes = [rows.get_shape() for rows in slices]
            whole = [len(shape) for shape in shapes] == [2, 1] and {shape[0] for shape in shapes} == {len(split)}
            if not whole or [rows.get_dtype() for rows in slices] != [*_TYPES.values()]:
                raise KeyError
            h, labels = (rows[own].to(session.device) for rows in slices)
        if not np.array_equal(labels.cpu(), split.labels[own]):
            raise KeyError
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the embed stage writes it") from error
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: damaged; the embed stage writes it") from error
    if not is_finite(h):
        raise UserError(f"{path}: not finite, or too large for float32; run the embed stage")
    return Features(h, labels, len(split))


def _metadata(inputs: Mapping[str, str], split: str) -> dict[str, str]:
    """One key alone: safetensors writes several in no fixed order."""
    return {"inputs": json.dumps({**inputs, "split": split}, sort_keys=True)}
