"""A stage on several nodes of a SLURM job: one step of `srun`, whose tasks are torchrun's agents, one on each node.

DVC runs the stage once, on the first node. That process starts the step and waits for it; each task runs the same
program, which becomes an agent as on one machine (see `launch`), leaves a report of its failure in a folder that all
nodes share, and says nothing itself: the first process has the last line. The rendezvous is static, because rank 0,
which writes the results, must be on the node where DVC looks for them: c10d sorts nodes by their names.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from simclr.core.errors import Stopped, UserError
from simclr.core.signals import SIGNALS
from simclr.distributed import node_reports

LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|DistBackendError|DistNetworkError", re.I)
"""Error messages of a process that lost its peer."""
GOES_ON = "; the same command goes on from the last checkpoint"
_REPORTS = "SIMCLR_NODE_REPORTS"
"""The variable of an agent that names the folder of reports."""
_IMMEDIATE = 60
"""Seconds that a step may wait for the resources of its own job."""
_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that the kernel sends to a child when its parent dies."""
_MISSING = 'for path; do [ -e "$path" ] || { echo "node $SLURMD_NODENAME lacks $path"; break; }; done'
"""Shell: a line on the first of the paths that a node lacks."""


def nodes() -> int:
    """The number of nodes of this SLURM job; 1 without a job, and in an agent or worker."""
    count = os.environ.get("SLURM_JOB_NUM_NODES", "")
    is_job = "SLURM_JOB_ID" in os.environ and count.isdecimal() and _REPORTS not in os.environ
    return max(1, int(count)) if is_job else 1


def check_alone() -> None:
    """Raise a UserError if srun has started dvc several times on the nodes of this job.

    DVC's own lock refuses that on one node only.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if nodes() > 1 and tasks != "1" and "PET_NNODES" not in os.environ:
        raise UserError(
            f"srun has started this command {tasks} times; give it once, without srun or with `srun --nodes=1 "
            "--ntasks=1`: pretrain takes all nodes of the job by itself"
        )


def is_agent() -> bool:
    """Whether this process is a task of the step that `run` started, and not a worker of such a task."""
    return _REPORTS in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def srun(count: int, environment: Mapping[str, str]) -> list[str]:
    """The command that runs what follows it once on each of the `count` nodes of the job, with all that the job has
    there.

    srun takes the number of GPUs from the job, but neither CPUs (since SLURM 22.05) nor, with `--export=NONE` in the
    job, the environment.
    """
    options = {
        "nodes": count,
        "relative": 0,
        "ntasks": count,
        "ntasks-per-node": 1,
        "cpus-per-task": _cpus(count, environment),
        "export": "ALL",
        "mpi": "none",
        "immediate": _IMMEDIATE,
        "kill-on-bad-exit": 1,
    }
    if gpus := environment.get("SLURM_GPUS_ON_NODE"):  # srun would take the number of a task of the job
        options["gpus-per-node"] = gpus
    command = ["srun", *(f"--{name}={value}" for name, value in options.items())]
    return [*command, "--overlap"] if "SLURM_STEP_ID" in environment else command


def _cpus(count: int, environment: Mapping[str, str]) -> int:
    """The CPUs of the job on each node: those of its tasks, or all if it does not say how many a task has."""
    if of_task := environment.get("SLURM_CPUS_PER_TASK"):
        of_job = int(environment.get("SLURM_JOB_NUM_NODES", count))
        tasks = environment.get("SLURM_NTASKS_PER_NODE") or int(environment.get("SLURM_NTASKS", of_job)) // of_job
        return int(of_task) * max(1, int(tasks))
    # such as 64(x2),32
    return min(int(part.partition("(")[0]) for part in environment.get("SLURM_JOB_CPUS_PER_NODE", "1").split(","))


def run(count: int) -> None:
    """Run this program on `count` nodes, as torchrun's agent on each.

    Raises:
        UserError: there is no srun, or it fails; the disk is full; a node lacks this folder or this Python; or an agent
            failed: its error, of the first that failed by itself.
        Stopped: all agents stopped after a signal.
    """
    address = _address()
    with node_reports.open_folder(count) as folder:
        own = {
            _REPORTS: str(folder),
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # its warnings of a lost peer are thirty lines
            "PET_NNODES": str(count),
            "PET_MASTER_ADDR": address,
            "PET_MASTER_PORT": str(_free_port()),
        }
        # a step's variables bind its own steps to its CPUs, and a job's GPUs of a task are not those of an agent
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_CPU_BIND", "SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"))
        }
        launcher = srun(count, os.environ)
        _check_nodes(launcher, inherited, [own[_REPORTS], sys.executable])
        code, received = _wait([*launcher, sys.executable, *sys.argv], inherited | own)
        _raise_reported(node_reports.read(folder, count), count, code, received)


def _address() -> str:
    """The address by which SLURM reaches the first node of the job.

    Raises:
        UserError: SLURM does not say it.
    """
    first = _output("scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")).split("\n")[0]
    match = re.search(r"\bNodeAddr=(\S+)", _output("scontrol", "--oneliner", "show", "node", first))
    return match[1] if match else first


def _output(*command: str) -> str:
    done = _run(list(command), os.environ)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())  # scontrol says it on stdout
        raise UserError(f"`{' '.join(command)}` failed: {said or done.returncode}")
    return done.stdout


def _run(command: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        name, job = command[0], os.environ["SLURM_JOB_ID"]
        raise UserError(f"{name}: {error.strerror}, which starts the nodes of SLURM's job {job}") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _check_nodes(launcher: list[str], environment: dict[str, str], paths: list[str]) -> None:
    """Raise a UserError if a node does not start, or lacks one of the `paths`."""
    done = _run([*launcher, "sh", "-c", _MISSING, "sh", *paths], environment)
    if done.returncode:
        raise UserError(f"the job's nodes cannot be used together: {' '.join(done.stderr.split()) or 'srun failed'}")
    if done.stdout:
        raise UserError(f"{done.stdout.splitlines()[0]}: all nodes of a job need the same folder, as of a shared disk")


def _wait(command: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Run a step to its end, passing signals on; return its exit code and the first signal, 0 without one.

    All signals are passed on as SIGUSR1, since srun kills its tasks at once on SIGTERM. It gets that if this process is
    killed.
    """
    received = 0
    prctl = ctypes.CDLL(None).prctl  # loaded here: a child of a process with threads must not load anything
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )  # fmt: skip

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal received
        received = received or number
        process.send_signal(signal.SIGUSR1)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        return process.wait(), received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_reported(reports: dict[int, tuple[int, str]], count: int, code: int, received: int) -> None:
    """Raise what the agents reported, if they did or the step failed."""
    errors = [message for number, message in reports.values() if not number]
    stops = [(number, message) for number, message in reports.values() if number]
    silent = [node for node in range(count) if node not in reports]
    own = [message for message in errors if not LOST_PEER.search(message)]
    if own:
        raise UserError(own[0])
    if received or (len(stops) == count):
        number, message = stops[0] if stops else (received, GOES_ON)
        raise Stopped(received or number, message)
    if silent and (code or reports):
        raise UserError(
            f"node {silent[0]} of the step's {count}, counted from 0, ended without a word (killed, down or out of "
            f"memory?), and srun with exit code {code}{GOES_ON}"
        )
    if errors:
        raise UserError(errors[0])
    if code:
        raise UserError(f"srun ended with exit code {code}{GOES_ON}")


@contextmanager
def as_agent() -> Iterator[None]:
    """In a task of the step: leave a report of the error or the stop with which the context ends, and exit.

    SLURM sends a signal to all processes of a step. So the agent need not pass it on, and waits for its workers. After
    a stop it exits with code 0: the step goes on until the slowest node has written its checkpoint, while any other
    code would end it. A second signal would interrupt torchrun's own handler, which is not in use here.
    """
    if not is_agent():
        yield
        return
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # unlike SIG_IGN, not inherited by the workers
    node, folder = int(os.environ["SLURM_PROCID"]), Path(os.environ[_REPORTS])
    os.environ["PET_NODE_RANK"], os.environ["PET_SIGNALS_TO_HANDLE"] = str(node), "SIGQUIT"
    try:
        yield
    except Stopped as stop:
        name = signal.Signals(stop.number).name
        node_reports.write(folder, node, stop.number, str(stop).partition(name)[2])
        sys.exit()
    except (UserError, OSError, RuntimeError) as error:  # of torch, as of a node that it does not reach
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        node_reports.write(folder, node, 0, message)
        sys.exit(1)
