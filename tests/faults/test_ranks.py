"""One of several processes fails: all end soon, the last line says why, and the next start goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT, TINY, await_checkpoint, change, ready

PRETRAIN = ROOT / "stages" / "pretrain.py"
WITHIN = 30
"""Seconds."""
ENCODER = "models/encoder.safetensors"


def prepared(done: Path, folder: Path, epochs: int = 12) -> Path:
    ready("pretrain", done, folder)
    change(folder, **TINY | {"pretrain__epochs": epochs})
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return prepared(done, tmp_path)


def started(folder: Path, program: Path = PRETRAIN) -> "subprocess.Popen[str]":
    own = {"PYTHONPATH": str(ROOT / "src"), "CHECKPOINT_MINUTES": "0", "PET_NPROC_PER_NODE": "2"}
    return subprocess.Popen(
        [sys.executable, str(program)], cwd=folder, env=os.environ | own, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def workers(agent: "subprocess.Popen[str]") -> list[int]:
    """Its children, by rank."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    rank = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank[int(next(item for item in environment if item.startswith(b"RANK=")).partition(b"=")[2])] = int(child)
    return [rank[number] for number in sorted(rank)]


def alive(processes: list[int]) -> Iterator[int]:
    for process in processes:
        status = Path(f"/proc/{process}/status")
        if status.exists() and "zombie" not in status.read_text():
            yield process


def ended(agent: "subprocess.Popen[str]", seconds: float = WITHIN) -> tuple[int, str]:
    """Its exit code and last line, which must come in so many seconds."""
    _, said = agent.communicate(timeout=seconds)
    return agent.returncode, said.strip().splitlines()[-1]


def test_a_rank_that_is_killed_ends_all_and_the_next_start_goes_on(done: Path, tmp_path: Path) -> None:
    folder = prepared(done, tmp_path, epochs=4)
    agent = started(folder)
    await_checkpoint(folder)
    processes = workers(agent)
    assert len(processes) == 2
    os.kill(processes[1], signal.SIGKILL)
    code, last = ended(agent)
    assert code == 1
    assert last.startswith("pretrain: error: rank 1 was killed by SIGKILL (out of memory?); the same command goes on")
    assert not list(alive(processes))
    assert not (folder / "models").exists()
    again = started(folder)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "pretrain: goes on from step " in said


BROKEN = """
import os, resource
from simclr.losses import nt_xent

calls = []
whole = nt_xent.loss

def broken(*arguments):
    calls.append(1)
    if os.environ.get("RANK") == "1" and len(calls) == 5:
        {fault}
    return whole(*arguments)

nt_xent.loss = broken
exec(open({program!r}).read())  # runpy would have the agent start the stage itself
"""
AGAIN = "; the same command goes on from the last checkpoint"
FAULTS = {
    "exception": ("raise ValueError('of rank 1')", f"rank 1 failed: ValueError: of rank 1{AGAIN}"),
    "memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); import torch; torch.zeros(1 << 34)",
        "this machine's memory does not suffice: set a smaller pretrain.piece_size or pretrain.batch_size "
        f"(you tried to allocate {1 << 36} bytes)",
    ),
    "crash": ("os.abort()", f"rank 1 was killed by SIGABRT{AGAIN}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_rank_ends_all_with_its_cause_as_the_last_line(fault: str, folder: Path, tmp_path: Path) -> None:
    code, message = FAULTS[fault]
    program = tmp_path / "pretrain.py"
    program.write_text(BROKEN.format(fault=code, program=str(PRETRAIN)))
    agent = started(folder, program)
    await_checkpoint(folder)
    began, processes = time.monotonic(), workers(agent)
    exit_code, last = ended(agent)
    assert exit_code == 1
    assert last == f"pretrain: error: {message}"
    assert time.monotonic() - began < WITHIN
    assert not list(alive(processes))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("to", ["agent", "all"])
def test_a_signal_stops_all_ranks_in_good_order(number: signal.Signals, to: str, folder: Path) -> None:
    agent = started(folder)
    await_checkpoint(folder)
    processes = workers(agent)
    for process in [agent.pid, *(processes if to == "all" else [])]:
        os.kill(process, number)
    code, last = ended(agent)
    assert code == 128 + number
    assert last.startswith(f"pretrain: stopped by {number.name}")
    assert "the same command goes on from" in last
    assert not list(alive(processes))


@pytest.mark.slow
def test_workers_end_with_their_agent(folder: Path) -> None:
    agent = started(folder)
    await_checkpoint(folder)
    processes = workers(agent)
    agent.kill()
    agent.communicate()
    deadline = time.monotonic() + WITHIN
    while list(alive(processes)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_two_ranks_killed_and_going_on_end_with_the_encoder_of_an_undisturbed_run(
    done: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = prepared(done, tmp_path_factory.mktemp("whole"))
    _, said = (undisturbed := started(whole)).communicate()
    assert undisturbed.returncode == 0, said
    agent = started(folder)
    await_checkpoint(folder)
    os.killpg(agent.pid, signal.SIGKILL)
    agent.communicate()
    for process in workers_of_session(agent.pid):
        os.kill(process, signal.SIGKILL)
    _, said = (again := started(folder)).communicate()
    assert again.returncode == 0, said
    assert "goes on from step " in said
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def workers_of_session(session: int) -> list[int]:
    """Torchrun gives each worker a session of its own or not; whatever of `session` is left."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(status.parent.name))
    return found
