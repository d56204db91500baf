"""The options of torchrun that a user sets in the environment, each as PET_ and its name in capitals.

They may describe several nodes, on each of which the user starts the stage. The nodes meet at the address of node 0,
which is the one of dvc and has rank 0, because rank 0 writes the results: with torchrun's other ways of meeting, rank 0
may be on any node.
"""

import os
import re
import socket

import torch

from simclr.core.errors import UserError

_OF_NODES = ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_", "PET_RDZV_")
MEETING = ("PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
"""What each of several nodes needs."""
_MOST_PROCESSES = 1024
_OTHER_MEETING = ("PET_RDZV_BACKEND", "PET_RDZV_ENDPOINT", "PET_STANDALONE")


def forget_nodes() -> None:
    """Run on this node alone, whatever the environment says of others."""
    for name in [name for name in os.environ if name.startswith(_OF_NODES)]:
        del os.environ[name]


def processes() -> int | None:
    """The number of processes on each node; None where the environment leaves it to the machine.

    Raises:
        UserError: PET_NPROC_PER_NODE is neither a number nor a word that stands for one here.
    """
    words = ["auto", "cpu", *["gpu"] * torch.cuda.is_available()]
    asked = os.environ.get("PET_NPROC_PER_NODE")
    if asked is None or asked in words:
        return None
    if not is_within(asked, 1, _MOST_PROCESSES):
        without = "" if "gpu" in words else ", as this machine has no GPU"
        raise _refusal("PET_NPROC_PER_NODE", f"an integer from 1 to {_MOST_PROCESSES} or {', '.join(words)}{without}")
    return int(asked)


def nodes() -> int | None:
    """The number of nodes that the user starts; None where the environment does not say it.

    Raises:
        UserError: it is none, or they cannot meet, or this is dvc on another node than the first.
    """
    if "PET_NNODES" not in os.environ:
        return None
    if not is_within(os.environ["PET_NNODES"], 1):
        raise _refusal("PET_NNODES", "an integer >= 1")
    count = int(os.environ["PET_NNODES"])
    if count > 1:
        _check_meeting(count)
    return count


def _check_meeting(count: int) -> None:
    several = f"environment: PET_NNODES = {count}"
    if missing := [name for name in MEETING if name not in os.environ]:
        raise UserError(f"{several} without {', '.join(missing)}; several nodes take {', '.join(MEETING)}")
    if other := [name for name in _OTHER_MEETING if name in os.environ]:
        raise UserError(f"{several} does not go with {', '.join(other)}; several nodes take {', '.join(MEETING)}")
    if not is_within(os.environ["PET_NODE_RANK"], 0, count - 1):
        raise _refusal("PET_NODE_RANK", f"an integer from 0 to {count - 1}")
    if not re.fullmatch(r"[\w.:-]+", os.environ["PET_MASTER_ADDR"], re.ASCII):
        raise _refusal("PET_MASTER_ADDR", "the name or address of node 0")
    try:
        socket.getaddrinfo(os.environ["PET_MASTER_ADDR"], None)
    except OSError as error:
        raise _refusal("PET_MASTER_ADDR", f"the name or address of node 0 ({error.strerror})") from error
    if not is_within(os.environ["PET_MASTER_PORT"], 1, 65535):
        raise _refusal("PET_MASTER_PORT", "an integer from 1 to 65535")
    if int(os.environ["PET_NODE_RANK"]) and "DVC_STAGE" in os.environ:
        raise UserError(
            f"environment: PET_NODE_RANK = {os.environ['PET_NODE_RANK']} under dvc, which runs on node 0 alone; on the "
            f"others give `scripts/stage {os.environ['DVC_STAGE']}`"
        )


def is_within(text: str, lowest: int, highest: int | None = None) -> bool:
    """Whether `text` is an integer from `lowest` to `highest`, or of nine digits at most."""
    is_integer = re.fullmatch("[0-9]{1,9}", text)
    return bool(is_integer) and lowest <= int(text) and (highest is None or int(text) <= highest)


def _refusal(name: str, allowed: str) -> UserError:
    return UserError(f"environment: {name} = {os.environ[name]} is not allowed; it takes {allowed}")
