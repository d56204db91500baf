"""Run a stage on every GPU of one machine: this process becomes torchrun's agent and starts one worker for each GPU.

On several nodes of a SLURM job it has srun start an agent on each: see `slurm`.

torchrun also reads its options from the environment, as PET_ and their name in capitals, and so does every stage:
`PET_NPROC_PER_NODE=2 dvc repro` runs two processes, which share a CPU, or the GPU if there is only one. See
`torchrun_options`.
"""

import io
import json
import logging
import os
import sys
import warnings
from argparse import Namespace
from contextlib import redirect_stderr
from errno import EDQUOT, ENOSPC
from pathlib import Path
from signal import SIGTERM, Signals

import torch
import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from simclr.core import exit_with_parent
from simclr.core.errors import Stopped, UserError
from simclr.core.signals import SIGNALS
from simclr.distributed import slurm, torchrun_options

_DEFAULTS = {
    # seconds for a run to write its checkpoint after a signal, as long as the sender of the signal waits
    "PET_SHUTDOWN_TIMEOUT": "600",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1",
}
_SAY_THE_SAME = ("torch.distributed.elastic.agent.server.api", "torch.distributed.elastic.multiprocessing.api")
"""Loggers that say in several lines which worker ended, before this process says why in one."""
_USER_ERROR = ": error: "
"""The mark of a UserError's line: see `entry`."""
_BEGINS_ANEW = "; the same command begins the stage anew"
_log = logging.getLogger(__name__)


@slurm.as_agent()
def on_every_gpu(batch_size: int = 0, *, piece_size: int | None = None, on_every_node: bool = False) -> None:
    """Return in a process that does the work: at once if one process is enough, or in a worker of torchrun.

    Otherwise start the workers, wait for them and exit as they did. With a global batch, the number of processes is
    the largest that divides `batch_size`, and `piece_size` if there is one, unless PET_NPROC_PER_NODE sets it. With
    `on_every_node` they are on all nodes of the SLURM job, if there is one and these sizes divide among its nodes, or
    on those that the user starts.

    Raises:
        UserError: PyTorch cannot use the GPUs; the environment describes no processes or nodes that work; the nodes do
            not meet; or a worker failed: names the first one and its error.
        Stopped: a signal arrived; the workers got it too, and have stopped.
    """
    devices = torch.cuda.device_count()
    if devices and (reason := _why_unusable()):
        raise UserError(
            f"this machine has {devices} GPU(s) that PyTorch {torch.__version__} cannot use: {reason}; install a "
            f"driver for CUDA {torch.version.cuda}, or ask for the CPU by CUDA_VISIBLE_DEVICES="
        )
    if dist.is_torchelastic_launched():
        return
    if not on_every_node:
        torchrun_options.forget_nodes()
    by_hand = None if slurm.is_agent() else torchrun_options.nodes()
    nodes = by_hand or (slurm.nodes() if on_every_node else 1)
    by_slurm = nodes > 1 and not by_hand  # on one node too if the batch asks for it: SLURM signals its steps alone
    is_configured = any(name.startswith("PET_") for name in os.environ)
    if devices <= 1 and not is_configured and nodes == 1:
        return
    # a piece is a divisor of the batch, so what divides it divides both
    key, size = ("piece_size", piece_size) if piece_size else ("batch_size", batch_size)
    nodes, processes = _shares(nodes, devices, key, size, all_nodes=by_hand is not None)
    if processes == nodes == 1 and not is_configured and not by_slurm:
        return
    torchrun_options.processes()
    for name, value in {"PET_NPROC_PER_NODE": str(processes), **_DEFAULTS}.items():
        os.environ.setdefault(name, value)
    again = slurm.GOES_ON if on_every_node else _BEGINS_ANEW  # pretraining alone keeps checkpoints
    if by_slurm:
        each = f"each of {nodes} nodes" if nodes > 1 else "the first node"
        _log.info(f"srun starts {os.environ['PET_NPROC_PER_NODE']} process(es) on {each}")
        slurm.run(nodes)
        sys.exit()
    if nodes > 1:
        node, *place = (os.environ[name] for name in torchrun_options.MEETING)
        _log.info(f"node {node} of {nodes}, counted from 0, waits for the others at {':'.join(place)}")
    _become_agent(again)
    sys.exit()


def _shares(nodes: int, devices: int, key: str, size: int, *, all_nodes: bool) -> tuple[int, int]:
    """The numbers of nodes and of processes on each that the `size` divides among; says so, with the `key` of the
    stage's section, if these are not all.

    All nodes are used or, unless `all_nodes`, the first one alone. The environment may set the number of processes.
    """
    most, is_set = max(devices, 1), "PET_NPROC_PER_NODE" in os.environ
    counts = {nodes} if all_nodes else {1, nodes}
    choices = [(count, each) for count in counts for each in range(1, most + 1) if size % (count * each) == 0]
    used, processes = max(choices, key=lambda choice: (choice[0] * choice[1], -choice[0]), default=(min(counts), 1))
    if is_set:
        used = nodes
    elif used * processes < nodes * most:
        stage = Path(sys.argv[0]).stem
        kind = "GPUs" if devices else "nodes"
        print(  # noqa: T201
            f"{stage}: {used * processes} of the {nodes * most} {kind} are used; {stage}.{key} = {size} "
            "does not divide among more",
            file=sys.stderr,
        )
    return used, processes


def _become_agent(again: str) -> None:
    """Be torchrun's agent until its workers end; `again` says what the same command does after a failure.

    Raises:
        UserError, Stopped: as `on_every_gpu`.
    """
    for name in _SAY_THE_SAME:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ[exit_with_parent.PARENT] = exit_with_parent.this_process()
    options = _options()
    try:
        run.run(options)
    except (ValueError, KeyError) as error:  # of torch alone; what a worker raises is in its report
        if isinstance(error, json.JSONDecodeError):  # of such a report
            raise
        raise _refusal(error) from None
    except dist.DistError as error:
        raise UserError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None
    except SignalException as stop:
        raise Stopped(stop.sigval, again) from None
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        if number := _stopped_by(failure):  # the workers got a signal, and this process did not
            raise Stopped(number, _message(failure).partition(number.name)[2]) from None
        message, callstack = _error_file(failure)
        if _USER_ERROR not in message and callstack:
            print(callstack, file=sys.stderr)  # noqa: T201 (a bug of ours)
        raise UserError(describe(rank, failure, again)) from None


def _options() -> Namespace:
    """torchrun's options by the environment.

    Raises:
        UserError: torchrun refuses one of them.
    """
    usage = io.StringIO()
    try:
        with redirect_stderr(usage):
            options: Namespace = run.parse_args(sys.argv)
        run.config_from_args(options)
    except SystemExit:
        raise _refusal(usage.getvalue().strip().rpartition("error: ")[2]) from None
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            raise
        raise _refusal(error) from None
    return options


def _refusal(reason: object) -> UserError:
    return UserError(f"torchrun refuses the PET_ variables of the environment: {reason}")


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


def describe(rank: int, failure: ProcessFailure, again: str) -> str:
    """The failure of `rank` on one line, and what the same command does `again`."""
    message = _message(failure)
    if _USER_ERROR in message:
        return message.partition(_USER_ERROR)[2]
    if failure.exitcode < 0:
        name = Signals(-failure.exitcode).name
        message = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        message = f"failed: {message}" if message else f"ended with exit code {failure.exitcode}"
    return f"rank {rank} {message}{again}"


def _message(failure: ProcessFailure) -> str:
    return _error_file(failure)[0]


def _error_file(failure: ProcessFailure) -> tuple[str, str]:
    """The message and the callstack in the error file of a process; empty without a file."""
    report = failure.error_file_data["message"]
    return (report["message"], report["extraInfo"]["py_callstack"]) if isinstance(report, dict) else ("", "")
