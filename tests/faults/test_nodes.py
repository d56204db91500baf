"""Two nodes with one disk: it is full, with a stand-in of srun, which runs both on this machine; or they are started by
hand, and one of them ends.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.distributed.test_slurm import JOB, SCONTROL, SRUN
from tests.faults.test_disk import NOT_PERMITTED, small_disk
from tests.faults.test_ranks import ENCODER, PRETRAIN, ended, prepared, started
from tests.helpers.programs import ROOT, await_checkpoint, ready, run

pytestmark = pytest.mark.slow


@contextmanager
def two_nodes(commands: Path, kilobytes: int, folder: Path, copy: Path) -> Iterator[None]:
    os.environ.update(JOB | {"CALLS": os.devnull, "PATH": f"{commands}:{os.environ['PATH']}"})
    with small_disk(kilobytes, folder, copy):
        yield


DISKS = {  # in kilobytes: what cannot be written there
    24: "runs: cannot be written (No space left on device)",
    160: "checkpoints/",
}


@pytest.mark.parametrize("kilobytes", DISKS)
def test_a_full_disk_is_named_in_one_line(kilobytes: int, done: Path, tmp_path: Path) -> None:
    commands, folder, copy = tmp_path / "bin", tmp_path / "disk", tmp_path / "copy"
    for made in (commands, folder, copy):
        made.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    ready("pretrain", done, copy)
    ended = run("pretrain", folder, partial(two_nodes, commands, kilobytes, folder, copy))
    if ended.code == NOT_PERMITTED:
        pytest.skip("mounting a file system is not permitted here")
    begun, _, said = ended.stderr.partition("\n")
    assert begun == "pretrain: srun starts 1 process(es) on each of 2 nodes"
    error = ended._replace(stderr=said).error
    assert error.removeprefix(f"{folder}/").startswith(DISKS[kilobytes])
    assert error.endswith("cannot be written (No space left on device)")
    assert not list(copy.glob("runs/.nodes-*"))


def by_hand(folder: Path) -> list["subprocess.Popen[str]"]:
    """The agents of nodes 0 and 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    own = place | {"PYTHONPATH": str(ROOT / "src"), "CHECKPOINT_MINUTES": "0"}
    return [
        subprocess.Popen(
            [sys.executable, str(PRETRAIN)], cwd=folder, env=os.environ | own | {"PET_NODE_RANK": str(node)},
            start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for node in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nodes_that_are_started_by_hand_end_together_and_go_on_to_what_two_processes_learn(
    number: signal.Signals, node: int, done: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = prepared(done, tmp_path)
    agents = by_hand(folder)
    await_checkpoint(folder)
    agents[node].send_signal(number)
    for other, (code, last) in enumerate([ended(agent) for agent in agents]):
        if number == signal.SIGTERM or other != node:
            assert code == 128 + signal.SIGTERM  # the workers of a killed agent stop in good order too
            assert re.match("pretrain: stopped by SIGTERM.*; the same command goes on from", last)
    assert not (folder / ENCODER).exists()
    for agent in by_hand(folder):
        _, said = agent.communicate(timeout=300)
        assert agent.returncode == 0, said
    whole = prepared(done, tmp_path_factory.mktemp("whole"))
    _, said = (processes := started(whole)).communicate()
    assert processes.returncode == 0, said
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()
