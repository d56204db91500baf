"""Networks in the safetensors format: their weights, and a description that tells how to build the network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from simclr.core import atomic, tensor_file
from simclr.core.errors import UserError

_DAMAGE = (
    SafetensorError, ArithmeticError, AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Errors of a file, and of networks that are built by what it says."""


def write(path: Path, key: str, description: object, network: nn.Module | None) -> None:
    """Write `path`: the weights of `network`, if there is one, and its `description`, which JSON can hold, under `key`.
    Equal weights give equal bytes."""
    weights = network.state_dict() if network is not None else {}
    # one metadata key: safetensors writes several in no fixed order
    metadata = {key: json.dumps(description)}
    atomic.write_bytes(path, save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, metadata))


def read(path: Path, key: str) -> tuple[Any, dict[str, Tensor]]:
    """The description and the weights, on the CPU, that `write` wrote; use it in a block of `reading`."""
    with tensor_file.opened(path, "pt") as file:
        return json.loads(file.metadata()[key]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def fill(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights` that `read` returned into `network`, whose types they must have: no value changes."""
    for name, tensor in network.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:
            raise TypeError(f"{name} is {weights[name].dtype}, not {tensor.dtype}")
    network.load_state_dict(weights)


@contextmanager
def reading(path: Path, network: str) -> Iterator[None]:
    """A block that reads `path` and builds its `network`, such as "an encoder".

    Raises:
        UserError: the file cannot be read, or the block failed.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the pretrain stage writes it") from error
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged, or not {network} that the pretrain stage wrote") from error
