"""The folder of features that embed writes and linear_eval reads: <split>.safetensors with h and labels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.data.beton import Beton
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.encode import Features, is_finite


def save(folder: Path, splits: Mapping[str, Features]) -> None:
    """Write `folder`, which appears whole or not at all, with the whole features of the `splits`."""
    with replacing(folder) as partial:
        partial.mkdir()
        for name, features in splits.items():
            # safetensors' save_file has exceptions and file modes of its own
            content = serialise({"h": features.h.contiguous(), "labels": features.labels})
            (partial / f"{name}.safetensors").write_bytes(content)


def load(folder: Path, name: str, split: Beton, dimension: int, session: Session) -> Features:
    """Load this rank's share of the features of `split` that `save` wrote as `name`, on its device.

    Raises:
        UserError: the file is missing or damaged, its features are not finite or not of `dimension`, or its labels are
            not those of `split`.
    """
    path = folder / f"{name}.safetensors"
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
    own = split.labels[shares.own(len(split), session)]
    if (count, h.shape[1]) != (len(split), dimension) or not np.array_equal(labels.cpu(), own):
        raise UserError(f"{path}: not of these images and this encoder; run the embed stage")
    if not is_finite(features.h):
        raise UserError(f"{path}: not finite, or too large for float32; run the embed stage")
    return features
