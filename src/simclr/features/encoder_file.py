"""The file of a pretrained encoder: its architecture, its weights and its eval transform."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from simclr.core import channels, options
from simclr.core.errors import UserError
from simclr.core.printable import one_line
from simclr.features import network_file
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform

_LARGEST = 1 << 14
"""Pixels of a side of the input."""


def save(path: Path, encoder: Encoder, transform: EvalTransform) -> None:
    """Write `path` in the safetensors format; equal weights give equal bytes."""
    description = {
        "model": option(encoder).partition(".")[2],
        "architecture": encoder.architecture,
        "transform": dataclasses.asdict(transform),
    }
    network_file.write(path, "encoder", description, encoder)


def load(path: Path, model: str | None = None) -> tuple[Encoder, EvalTransform]:
    """Load an encoder that `save` wrote: in eval mode and without gradients, on the CPU.

    Args:
        path: the file.
        model: `pretrain.model`; None allows any model.

    Raises:
        UserError: the file is missing, damaged, not an encoder of this project, or of another model.
    """
    with network_file.reading(path, "an encoder"):
        description, weights = network_file.read(path, "encoder")
        if model is not None and description["model"] != model:
            written = one_line(description["model"])
            raise UserError(
                f"{path}: its model is {written}, but pretrain.model is {one_line(model)}; "
                f"set that to {written}, or run the pretrain stage"
            )
        if description["model"] not in options.names("models"):
            written, there_are = one_line(description["model"]), ", ".join(options.names("models"))
            raise UserError(f"{path}: its model is {written}, which is not here; there are: {there_are}")
        encoder: Encoder = options.module("models", description["model"]).Encoder(**description["architecture"])
        network_file.fill(encoder, weights)
        transform = eval_transform(description)
    return freeze(encoder), transform


def eval_transform(description: Any) -> EvalTransform:
    """That of the `description` in an encoder's file; use it in a block of `network_file.reading`.

    Raises:
        TypeError, ValueError, KeyError: there is none, or no network of float32 can use it.
    """
    transform = EvalTransform(**description["transform"])
    if (
        type(transform.size) is not int
        or not 1 <= transform.size <= _LARGEST
        or not 0 < transform.crop_share <= 1
        or not channels.can_normalise(transform.mean, transform.std)
    ):
        raise ValueError(transform)
    return transform


def option(encoder: Encoder) -> str:
    """The option of `encoder`, such as "models.resnet"."""
    return type(encoder).__module__.removeprefix("simclr.")


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """The network of `encoder` with initial weights drawn by `seed`."""
    torch.manual_seed(seed)
    return type(encoder)(**encoder.architecture)


def freeze(encoder: Encoder) -> Encoder:
    """Put `encoder` into eval mode and its parameters out of autograd; return it."""
    encoder.eval().requires_grad_(False)
    return encoder
