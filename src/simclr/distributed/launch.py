"""A stage on every GPU of one machine: itself as torchrun's agent, once for each as a worker.

torchrun takes its options from the environment as well, under PET_ and their name in capitals, and so does every
stage: `PET_NPROC_PER_NODE=2 dvc repro` runs two processes, which share a CPU, or the GPU if there is only one.
"""

import os
import re
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

_DEFAULTS = {
    # so long a run may take to come to its checkpoint, where whoever sent the signal waits for it
    "PET_SHUTDOWN_TIMEOUT": "600",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1",
}
_KINDS = ("auto", "cpu", "gpu")
"""What torchrun takes in place of a number of processes."""
_KNOWN = ": error: "
"""In the line of a UserError: see `entry`."""
_CONSEQUENCE = re.compile(r"gloo|nccl|connection (closed|reset|refused)|DistBackendError|DistNetworkError", re.I)
"""What processes say whose counterpart is gone."""


def on_every_gpu(batch_size: int = 0) -> None:
    """Return in a process that does the work: at once where one is enough or torchrun is here already.

    Otherwise start the workers, wait for them and end this process as they ended. Where the processes share a global
    batch, they are as many as divide its `batch_size`, unless PET_NPROC_PER_NODE says how many.

    Raises:
        UserError: there are GPUs that PyTorch cannot use; or a worker failed: says which was the first, and of what.
        Stopped: a signal asked for it; the workers got it too, and have stopped.
    """
    devices = torch.cuda.device_count()
    if devices and (reason := _unusable()):
        raise UserError(
            f"this machine has {devices} GPU(s) that PyTorch {torch.__version__} cannot use: {reason}; install a "
            f"driver for CUDA {torch.version.cuda}, or ask for the CPU by CUDA_VISIBLE_DEVICES="
        )
    asked_for = any(name.startswith("PET_") for name in os.environ)
    if dist.is_torchelastic_launched() or (devices <= 1 and not asked_for):
        return
    processes = max((count for count in range(1, devices + 1) if batch_size % count == 0), default=1)
    if processes < devices and "PET_NPROC_PER_NODE" not in os.environ:
        stage = Path(sys.argv[0]).stem
        print(  # noqa: T201
            f"{stage}: {processes} of the {devices} GPUs are used; {stage}.batch_size = {batch_size} does not divide "
            "among more",
            file=sys.stderr,
        )
        if processes == 1 and not asked_for:
            return
    if (not (asked := os.environ.get("PET_NPROC_PER_NODE", "1")).isdecimal() and asked not in _KINDS) or asked == "0":
        raise UserError(
            f"environment: PET_NPROC_PER_NODE = {asked} is not allowed; it takes an integer >= 1 or {', '.join(_KINDS)}"
        )
    for name, value in {"PET_NPROC_PER_NODE": str(processes), **_DEFAULTS}.items():
        os.environ.setdefault(name, value)
    try:
        run.run(run.parse_args(sys.argv))
    except SignalException as stop:
        raise Stopped(stop.sigval, "; the same command goes on from the last checkpoint") from None
    except ChildFailedError as error:
        rank, failure = first(error.failures)
        if failure.exitcode - 128 in SIGNALS:  # each worker got it, and this process did not
            number = Signals(failure.exitcode - 128)
            raise Stopped(number, _said(failure).partition(number.name)[2]) from None
        said, callstack = _left(failure)
        if _KNOWN not in said and callstack:
            print(callstack, file=sys.stderr)  # noqa: T201 (a bug of ours)
        raise UserError(in_words(rank, failure)) from None
    sys.exit()


def _unusable() -> str:
    """Why PyTorch can use none of the GPUs that the driver lists, such as a driver older than its CUDA; or nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of the same
        if torch.cuda.is_available():
            return ""
        try:
            torch.cuda.init()
        except (AssertionError, RuntimeError) as error:
            return str(error).strip().partition("\n")[0].rstrip(".")
    return "it does not say why"


def first(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank that failed by itself, and how; the others lost their connection to it, or were told to stop."""

    def importance(item: tuple[int, ProcessFailure]) -> int:
        _, failure = item
        if _KNOWN in _said(failure):
            return 0
        return 2 if failure.exitcode in (-SIGTERM, 128 + SIGTERM) or _CONSEQUENCE.search(_said(failure)) else 1

    return min(failures.items(), key=importance)  # of equals the first that was seen


def in_words(rank: int, failure: ProcessFailure) -> str:
    """Why that rank failed, on one line."""
    said = _said(failure)
    if _KNOWN in said:
        return said.partition(_KNOWN)[2]
    if failure.exitcode < 0:
        killed = Signals(-failure.exitcode).name
        said = f"was killed by {killed}" + (" (out of memory?)" if killed == "SIGKILL" else "")
    else:
        said = f"failed: {said}"
    return f"rank {rank} {said}; the same command goes on from the last checkpoint"


def _said(failure: ProcessFailure) -> str:
    return _left(failure)[0]


def _left(failure: ProcessFailure) -> tuple[str, str]:
    """The message and the callstack that the process left; empty if it left none."""
    report = failure.error_file_data["message"]
    return (report["message"], report["extraInfo"]["py_callstack"]) if isinstance(report, dict) else ("", "")
