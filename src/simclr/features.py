"""Representations of whole splits, and the folder of them that embed writes and linear_eval reads:
<split>.safetensors with h and labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from simclr.atomic import appearing
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Preparation
from simclr.failure import UserError
from simclr.represent import representations


@dataclass(frozen=True)
class Features:
    """Representations `h` (N, D) float32 and `labels` (N,) int64, in the order of the split's .beton."""

    h: Tensor
    labels: Tensor


def encoded(
    encoder: nn.Module,
    splits: Mapping[str, Beton],
    preparation: Preparation,
    batch_size: int,
    session: Session,
    title: str = "",
) -> dict[str, Features]:
    """The features of all images of the `splits`; `title` stands before their names in the progress bars."""
    return {
        name: Features(
            representations(encoder, split, np.arange(len(split)), preparation, batch_size, session, f"{title}{name}"),
            torch.from_numpy(split.labels),
        )
        for name, split in splits.items()
    }


def save(folder: Path, splits: dict[str, Features]) -> None:
    """Write `folder`, which appears whole or not at all."""
    with appearing(folder) as partial:
        partial.mkdir()
        for name, features in splits.items():
            content = serialised({"h": features.h.contiguous(), "labels": features.labels})
            (partial / f"{name}.safetensors").write_bytes(content)


def load(folder: Path, split: str) -> Features:
    """The features of `split` that `save` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / f"{split}.safetensors"
    try:
        tensors = load_file(path)
        return Features(tensors["h"].to(torch.float32), tensors["labels"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the embed stage writes it") from error
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: damaged; the embed stage writes it") from error
