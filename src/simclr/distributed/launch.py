"""Run a stage on every GPU of one machine: this process becomes torchrun's agent and starts one worker for each GPU.

On several nodes of a SLURM job it has srun start an agent on each: see `slurm`.

torchrun also reads its options from the environment, as PET_ and their name in capitals, and so does every stage:
`PET_NPROC_PER_NODE=2 dvc repro` runs two processes, which share a CPU, or the GPU if there is only one.
"""

import logging
import os
import sys
import warnings
from pathlib import Path
from signal import SIGTERM, Signals

import torch
import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from simclr.core.errors import Stopped, UserError
from simclr.core.signals import SIGNALS
from simclr.distributed import slurm

_DEFAULTS = {
    # seconds for a run to write its checkpoint after a signal, as long as the sender of the signal waits
    "PET_SHUTDOWN_TIMEOUT": "600",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1",
}
_KINDS = ("auto", "cpu", "gpu")
"""Values that torchrun accepts in place of a number of processes."""
_SAY_THE_SAME = ("torch.distributed.elastic.agent.server.api", "torch.distributed.elastic.multiprocessing.api")
"""Loggers that say in several lines which worker ended, before this process says why in one."""
_USER_ERROR = ": error: "
"""The mark of a UserError's line: see `entry`."""


@slurm.as_agent()
def on_every_gpu(batch_size: int = 0, *, on_every_node: bool = False) -> None:
    """Return in a process that does the work: at once if one process is enough, or in a worker of torchrun.

    Otherwise start the workers, wait for them and exit as they did. With a global batch, the number of processes is
    the largest that divides `batch_size`, unless PET_NPROC_PER_NODE sets it. With `on_every_node` they are on all
    nodes of the SLURM job, if there is one and `batch_size` divides among its nodes.

    Raises:
        UserError: PyTorch cannot use the GPUs; or a worker failed: names the first one and its error.
        Stopped: a signal arrived; the workers got it too, and have stopped.
    """
    devices = torch.cuda.device_count()
    if devices and (reason := _why_unusable()):
        raise UserError(
            f"this machine has {devices} GPU(s) that PyTorch {torch.__version__} cannot use: {reason}; install a "
            f"driver for CUDA {torch.version.cuda}, or ask for the CPU by CUDA_VISIBLE_DEVICES="
        )
    is_configured = any(name.startswith("PET_") for name in os.environ)
    nodes = slurm.nodes() if on_every_node and "PET_NNODES" not in os.environ else 1
    if dist.is_torchelastic_launched() or (devices <= 1 and not is_configured and nodes == 1):
        return
    nodes, processes = _shares(nodes, devices, batch_size)
    if processes == nodes == 1 and not is_configured:
        return
    if (not (asked := os.environ.get("PET_NPROC_PER_NODE", "1")).isdecimal() and asked not in _KINDS) or asked == "0":
        raise UserError(
            f"environment: PET_NPROC_PER_NODE = {asked} is not allowed; it takes an integer >= 1 or {', '.join(_KINDS)}"
        )
    for name, value in {"PET_NPROC_PER_NODE": str(processes), **_DEFAULTS}.items():
        os.environ.setdefault(name, value)
    if nodes > 1:
        slurm.run(nodes)
    else:
        _become_agent()
    sys.exit()


def _shares(nodes: int, devices: int, batch_size: int) -> tuple[int, int]:
    """The numbers of nodes and of processes on each that `batch_size` divides among; says so if these are not all.

    All nodes are used or the first one alone. The environment may set the number of processes.
    """
    most, is_set = max(devices, 1), "PET_NPROC_PER_NODE" in os.environ
    choices = [(count, each) for count in {1, nodes} for each in range(1, most + 1) if batch_size % (count * each) == 0]
    used, processes = max(choices, key=lambda choice: (choice[0] * choice[1], -choice[0]), default=(1, 1))
    if is_set:
        used = nodes
    elif used * processes < nodes * most:
        stage = Path(sys.argv[0]).stem
        kind = "GPUs" if devices else "nodes"
        print(  # noqa: T201
            f"{stage}: {used * processes} of the {nodes * most} {kind} are used; {stage}.batch_size = {batch_size} "
            "does not divide among more",
            file=sys.stderr,
        )
    return used, processes


def _become_agent() -> None:
    """Be torchrun's agent until its workers end.

    Raises:
        UserError, Stopped: as `on_every_gpu`.
    """
    for name in _SAY_THE_SAME:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(sys.argv))
    except SignalException as stop:
        raise Stopped(stop.sigval, "; the same command goes on from the last checkpoint") from None
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        if number := _stopped_by(failure):  # the workers got a signal, and this process did not
            raise Stopped(number, _message(failure).partition(number.name)[2]) from None
        message, callstack = _error_file(failure)
        if _USER_ERROR not in message and callstack:
            print(callstack, file=sys.stderr)  # noqa: T201 (a bug of ours)
        raise UserError(describe(rank, failure)) from None


def _stopped_by(failure: ProcessFailure) -> Signals | None:
    """The signal after which a worker stopped in good order; under SLURM, also that which ended it while it started."""
    numbers = {128 + number: number for number in SIGNALS}
    if slurm.is_agent():
        numbers |= {-number: number for number in SIGNALS}
    return numbers.get(failure.exitcode)


def _why_unusable() -> str:
    """The reason why PyTorch cannot use the driver's GPUs, such as a driver older than its CUDA; empty if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the same reason
        if torch.cuda.is_available():
            return ""
        try:
            torch.cuda.init()
        except (AssertionError, RuntimeError) as error:
            return str(error).strip().partition("\n")[0].rstrip(".")
    return "it does not say why"


def first_failure(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank that failed by itself, and its failure; the others lost their peer, or got SIGTERM."""

    def importance(item: tuple[int, ProcessFailure]) -> int:
        _, failure = item
        if _USER_ERROR in _message(failure):
            return 0
        return 2 if failure.exitcode in (-SIGTERM, 128 + SIGTERM) or slurm.LOST_PEER.search(_message(failure)) else 1

    return min(failures.items(), key=importance)  # among equals the one that torchrun saw first


def describe(rank: int, failure: ProcessFailure) -> str:
    """The failure of `rank` on one line."""
    message = _message(failure)
    if _USER_ERROR in message:
        return message.partition(_USER_ERROR)[2]
    if failure.exitcode < 0:
        name = Signals(-failure.exitcode).name
        message = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        message = f"failed: {message}"
    return f"rank {rank} {message}; the same command goes on from the last checkpoint"


def _message(failure: ProcessFailure) -> str:
    return _error_file(failure)[0]


def _error_file(failure: ProcessFailure) -> tuple[str, str]:
    """The message and the callstack in the error file of a process; empty without a file."""
    report = failure.error_file_data["message"]
    return (report["message"], report["extraInfo"]["py_callstack"]) if isinstance(report, dict) else ("", "")
