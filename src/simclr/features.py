"""Representations of whole splits, and the folder of them that embed writes and linear_eval reads:
<split>.safetensors with h and labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from simclr import shares
from simclr.atomic import appearing
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Preparation
from simclr.failure import UserError
from simclr.represent import representations


@dataclass(frozen=True)
class Features:
    """This rank's share (see `shares`) of a split's representations, `h` (n, D) float32, and `labels` (n,) int64, in
    the order of its .beton.
    """

    h: Tensor
    labels: Tensor
    count: int
    """Images of the split, over all ranks."""


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
            torch.from_numpy(split.labels[shares.own(len(split), session)]).to(session.device),
            len(split),
        )
        for name, split in splits.items()
    }


def collected(splits: Mapping[str, Features], session: Session) -> dict[str, Features]:
    """The whole features of the `splits` in the memory of the leading rank's host; the others get empty ones."""
    return {
        name: Features(
            shares.collected(split.h, split.count, session),
            shares.collected(split.labels, split.count, session),
            split.count,
        )
        for name, split in splits.items()
    }


def save(folder: Path, splits: Mapping[str, Features]) -> None:
    """Write `folder`, which appears whole or not at all, with the whole features of the `splits`."""
    with appearing(folder) as partial:
        partial.mkdir()
        for name, features in splits.items():
            # not by save_file, which has errors and file modes of its own
            content = serialised({"h": features.h.contiguous(), "labels": features.labels})
            (partial / f"{name}.safetensors").write_bytes(content)


def load(folder: Path, split: str, session: Session) -> Features:
    """This rank's share of the features of `split` that `save` wrote, on its device.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / f"{split}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            slices = [file.get_slice(name) for name in ("h", "labels")]
            count = slices[0].get_shape()[0]
            h, labels = (rows[shares.own(count, session)].to(session.device) for rows in slices)
            return Features(h.to(torch.float32), labels, count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the embed stage writes it") from error
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: damaged; the embed stage writes it") from error
