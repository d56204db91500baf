"""No training: weights from elsewhere, which the later stages evaluate as if they were pretrained here.

The file holds tensors by torchvision's names (timm's are the same for ResNets) in the format of safetensors, such as an
encoder of this project, or of torch.save, as a state dict or with one under "state_dict" or "model". It is read without
running code in it.
"""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from simclr.core import params
from simclr.core.errors import UserError
from simclr.core.printable import join_names, one_line
from simclr.features import encoder_file, network_file
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet, as torchvision has them."""
_SMALLEST = 100
"""Bytes: a file of tensors is larger, and weights/none smaller."""
_SHOWN = 3
"""Names in a message, at most."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Params:
    """`methods.pretrained` of params.yaml."""

    file: str = params.path()
    prefix: str
    """Of the names in the file: it is cut off, and tensors without it are left out."""
    normalization: str = params.choice("imagenet", "data")


def load(parameters: Params, encoder: Encoder, transform: EvalTransform) -> EvalTransform:
    """Load the weights of `parameters.file` into `encoder`; return `transform` as these weights want it.

    An encoder of this project says how its images were normalised; `normalization` is for others: as ImageNet, or as
    `transform` is, by the data at hand.

    Raises:
        UserError: the file is missing, damaged, or of another architecture, or a weight is none: not a plain tensor of
            floating-point numbers, not finite in the encoder's type, or a negative variance.
    """
    path = Path(parameters.file)
    tensors, description = _read(path)
    prefix = parameters.prefix
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    _fill(encoder, weights, path, list(tensors))
    if description:
        with network_file.reading(path, "an encoder"):
            written = encoder_file.eval_transform(description)
        return replace(transform, mean=written.mean, std=written.std)
    return replace(transform, mean=_MEAN, std=_STD) if parameters.normalization == "imagenet" else transform


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the file by name, and what this project writes beside them, or nothing."""
    try:
        if path.stat().st_size < _SMALLEST:
            raise UserError(f"{path}: holds no weights; name a file of weights as methods.pretrained.file")
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                return tensors, json.loads((file.metadata() or {}).get("encoder", "{}"))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged bytes make unpickling raise almost anything
        raise UserError(
            f"{path}: damaged, or not what safetensors or torch.save writes of tensors alone (of a module, save its "
            "state_dict())"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not tensors by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}, {}


def _fill(encoder: Encoder, weights: dict[str, Tensor], path: Path, names: list[str]) -> None:
    """Load `weights`; `names` are those of the file."""
    own = encoder.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} of the {len(own)} tensors of the encoder ({_some(missing)}); those of the "
            f"file are {_some(names)}: compare pretrain.model, models and methods.pretrained.prefix"
        )
    for name, tensor in own.items():
        if name in weights and weights[name].shape != tensor.shape:
            actual, expected = (one_line(tuple(value.shape)) for value in (weights[name], tensor))
            raise UserError(f"{path}: {one_line(name)} is {actual}, but in the encoder {expected}: compare models")
    taken = {
        name: _as(own[name], tensor, f"{path}: {one_line(name)}") for name, tensor in weights.items() if name in own
    }
    others = [name for name in weights if name not in own]
    parts = {name.partition(".")[0] for name in own}
    if more := [name for name in others if name.partition(".")[0] in parts]:
        raise UserError(
            f"{path}: holds {len(more)} tensors that the encoder lacks in parts that it has ({_some(more)}), as of a "
            "deeper network or one with another norm: compare pretrain.model and models"
        )
    encoder.load_state_dict(taken, strict=False)
    if others:
        _log.info(f"{path}: left out {len(others)} tensors that the encoder has not: {_some(others)}")


def _as(own: Tensor, found: Tensor, where: str) -> Tensor:
    """What the file has in place of the tensor `own`, in its type."""
    is_plain = found.layout is torch.strided and not (found.is_quantized or found.is_nested or found.is_meta)
    if not is_plain or (own.is_floating_point() and not found.is_floating_point()):
        raise UserError(f"{where} is {found.dtype if is_plain else 'no plain tensor'}, not floating-point numbers")
    converted = found.to(own.dtype)
    if not converted.isfinite().all():
        raise UserError(f"{where} holds values that are not finite in {own.dtype}, as of a diverged run")
    if where.endswith("running_var") and (converted < 0).any():
        raise UserError(f"{where} holds negative values, which no variance has")
    return converted


def _some(names: list[str]) -> str:
    return join_names(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
