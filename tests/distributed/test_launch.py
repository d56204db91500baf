"""Who starts whom; and which of several failures is the one to report."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from simclr.core.errors import Stopped, UserError
from simclr.distributed import launch
from tests.helpers.programs import ROOT

LOST = "RuntimeError: [pair.cc:561] Connection closed by peer [127.0.0.1]:5033."


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of every torchrun that is started from here, which does nothing."""
    options: list[Any] = []
    monkeypatch.setattr(launch.run, "run", options.append)
    monkeypatch.setattr("sys.argv", ["stages/pretrain.py"])
    for name in ("PET_NPROC_PER_NODE", "PET_SHUTDOWN_TIMEOUT", "PET_SIGNALS_TO_HANDLE", "SIMCLR_PARENT"):
        monkeypatch.setenv(name, "")  # so that it is removed again afterwards
        monkeypatch.delenv(name)
    return options


def on_machine(monkeypatch: pytest.MonkeyPatch, devices: int, torchrun: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: torchrun)


def test_several_gpus_get_a_process_each(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, devices=3)
    with pytest.raises(SystemExit) as end:
        launch.on_every_gpu()
    assert end.value.code is None
    assert (started[0].nproc_per_node, started[0].nnodes) == ("3", "1:1")
    assert started[0].training_script == "stages/pretrain.py"
    assert os.environ["SIMCLR_PARENT"] == f"{os.readlink('/proc/self/ns/pid')}:{os.getpid()}"


@pytest.mark.parametrize("processes", ["abc", "0", "-1", "", "gpu", "1025", "999999999"])
def test_a_number_of_processes_that_is_none_is_refused(
    processes: str, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, devices=0)
    monkeypatch.setenv("PET_NPROC_PER_NODE", processes)
    with pytest.raises(UserError) as raised:
        launch.on_every_gpu()
    assert str(raised.value) == (
        f"environment: PET_NPROC_PER_NODE = {processes} is not allowed; it takes an integer from 1 to 1024 or "
        "auto, cpu, as this machine has no GPU"
    )
    assert started == []


SHARES = {  # GPUs, global batch: processes
    (8, 4096): 8, (3, 256): 2, (5, 256): 4, (6, 256): 4, (7, 256): 4, (6, 96): 6, (2, 255): 1, (1, 256): 1,
}  # fmt: skip


@pytest.mark.parametrize(("devices", "batch_size"), SHARES)
def test_as_many_gpus_as_divide_the_batch_are_used(
    devices: int,
    batch_size: int,
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    processes = SHARES[devices, batch_size]
    on_machine(monkeypatch, devices)
    if processes == 1:
        launch.on_every_gpu(batch_size)
        assert not started
    else:
        with pytest.raises(SystemExit):
            launch.on_every_gpu(batch_size)
        assert started[0].nproc_per_node == str(processes)
    said = f"pretrain: {processes} of the {devices} GPUs are used; pretrain.batch_size = {batch_size} does not divide "
    assert capsys.readouterr().err == (f"{said}among more\n" if processes < devices else "")


def test_as_many_gpus_as_divide_a_piece_of_the_batch_are_used(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_machine(monkeypatch, devices=3)
    with pytest.raises(SystemExit):
        launch.on_every_gpu(96, piece_size=16)
    assert started[0].nproc_per_node == "2"
    said = "pretrain: 2 of the 3 GPUs are used; pretrain.piece_size = 16 does not divide among more\n"
    assert capsys.readouterr().err == said


def test_the_environment_may_ask_for_more_processes_than_gpus(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_machine(monkeypatch, devices=3)
    monkeypatch.setenv("PET_NPROC_PER_NODE", "4")
    with pytest.raises(SystemExit):
        launch.on_every_gpu(256)
    assert started[0].nproc_per_node == "4"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("torchrun", [False, True])
@pytest.mark.parametrize("raised", [RuntimeError, AssertionError])
def test_gpus_that_torch_cannot_use_are_an_error_with_its_cure(
    raised: type[Exception], torchrun: bool, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise raised("The NVIDIA driver on your system is too old (found version 12020).\nMore.")

    on_machine(monkeypatch, 8, torchrun)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(UserError) as error:
        launch.on_every_gpu()
    assert str(error.value) == (
        f"this machine has 8 GPU(s) that PyTorch {torch.__version__} cannot use: The NVIDIA driver on your system is "
        f"too old (found version 12020); install a driver for CUDA {torch.version.cuda}, or ask for the CPU by "
        "CUDA_VISIBLE_DEVICES="
    )
    assert not started


@pytest.mark.parametrize("nodes", [None, "1"])
def test_the_environment_chooses_on_a_cpu_too(
    nodes: str | None, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, devices=0)
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    if nodes:
        monkeypatch.setenv("PET_NNODES", nodes)
    with pytest.raises(SystemExit):
        launch.on_every_gpu(256, on_every_node=True)
    assert started[0].nproc_per_node == "2"


@pytest.mark.parametrize(("devices", "torchrun"), [(0, False), (1, False), (3, True)])
def test_where_one_process_is_enough_or_torchrun_is_here_it_goes_on(
    devices: int, torchrun: bool, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, devices, torchrun)
    launch.on_every_gpu()
    assert not started


def failed(folder: Path, rank: int, code: int, said: str = "") -> ProcessFailure:
    """How a process ended, with the message that it left for the agent."""
    file = folder / f"{rank}.json"
    if said:
        details = {"py_callstack": "Traceback of " + said, "timestamp": "0"}
        file.write_text(json.dumps({"message": {"message": said, "extraInfo": details}}))
    return ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file=str(file))


FAILURES = {
    "killed": ({0: (1, LOST), 1: (-9, ""), 2: (-15, "")}, "rank 1 was killed by SIGKILL (out of memory?); the same"),
    "without a word": ({0: (1, ""), 1: (143, "")}, "rank 0 ended with exit code 1; the same command begins the stage"),
    "killed, lost later": ({2: (-9, ""), 0: (1, LOST)}, "rank 2 was killed by SIGKILL"),
    "told to stop": ({0: (143, ""), 1: (-11, "")}, "rank 1 was killed by SIGSEGV; the same"),
    "exception": ({0: (1, LOST), 1: (1, "ValueError: odd")}, "rank 1 failed: ValueError: odd; the same command begins"),
    "first of two": ({3: (1, "ValueError: a"), 1: (1, "ValueError: b")}, "rank 3 failed: ValueError: a"),
    "user's": ({0: (-9, ""), 1: (1, "pretrain: error: params.yaml: no")}, "params.yaml: no"),
    "lost alone": ({0: (1, LOST)}, "rank 0 failed: RuntimeError: [pair.cc:561] Connection closed"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_failure_that_the_others_follow_from_is_reported(
    name: str, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, message = FAILURES[name]
    failures = {rank: failed(tmp_path, rank, code, said) for rank, (code, said) in found.items()}

    def run(_: Any) -> None:
        raise ChildFailedError("stages/pretrain.py", failures)

    on_machine(monkeypatch, devices=2)
    monkeypatch.setattr(launch.run, "run", run)
    with pytest.raises(UserError) as error:
        launch.on_every_gpu()
    assert str(error.value).startswith(message)
    printed = capsys.readouterr().err
    assert printed.count("Traceback of") == ("ValueError" in message or "RuntimeError" in message)


def test_a_signal_to_the_agent_or_to_every_worker_stops_in_good_order(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "pretrain: stopped by SIGUSR1 at step 8 of 60; the same command goes on from there"
    failures = {rank: failed(tmp_path, rank, 128 + 10, said) for rank in (0, 1)}
    on_machine(monkeypatch, devices=2)
    for error, message in (
        (SignalException("", launch.Signals.SIGTERM), "stopped by SIGTERM; the same command begins the stage anew"),
        (ChildFailedError("stages/pretrain.py", failures), said.partition("pretrain: ")[2]),
    ):

        def run(_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(launch.run, "run", run)
        with pytest.raises(Stopped) as stop:
            launch.on_every_gpu()
        assert str(stop.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PET_RDZV_CONF", "x", "x"),
        ("PET_TEE", "x", "x"),
        ("PET_LOG_DIR", "/proc/x", "/proc/x"),
        ("PET_MAX_RESTARTS", "x", "argument --max-restarts/--max_restarts: invalid int value: 'x'\n"),
        ("PET_MONITOR_INTERVAL", "nan", "NaN"),
        ("PET_EVENT_LOG_HANDLER", "x", "'x'"),
        ("PET_VIRTUAL_LOCAL_RANK", "1", "exceeds available GPUs"),
    ],
)
def test_options_that_torchrun_refuses_are_one_line(name: str, value: str, said: str, tmp_path: Path) -> None:
    program = tmp_path / "stage.py"
    program.write_text(
        "from simclr.core import entry\nfrom simclr.distributed import launch\n"
        "entry.run('stage', lambda: launch.on_every_gpu(on_every_node=True))\n"
    )
    own = {"PYTHONPATH": str(ROOT / "src"), "PET_NPROC_PER_NODE": "2", name: value}
    ended = subprocess.run(
        [sys.executable, str(program)], env=os.environ | own, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("stage: error: torchrun refuses the PET_ variables of the environment: ")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_failing_worker_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "stage.py"
    program.write_text(
        "from simclr.core import entry\nfrom simclr.core.errors import UserError\n"
        "from simclr.distributed import launch\n"
        "def main():\n    launch.on_every_gpu()\n    raise UserError('no such thing')\n"
        "entry.run('stage', main)\n"
    )
    own = {"PYTHONPATH": str(ROOT / "src"), "PET_NPROC_PER_NODE": "2"}
    ended = subprocess.run(
        [sys.executable, str(program)], env=os.environ | own, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "stage: error: no such thing\n")
