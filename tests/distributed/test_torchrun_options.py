"""What the environment may say of processes and nodes, and which of it cannot work."""

import logging
import os
import socket
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist

from simclr.core.errors import UserError
from simclr.distributed import launch
from tests.distributed.test_launch import on_machine

NODE = {
    "PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "29777",
}  # fmt: skip
SEVERAL = "several nodes take PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT"


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of every torchrun that is started from here, which does nothing; on a machine without GPUs."""
    options: list[Any] = []
    on_machine(monkeypatch, devices=0)
    monkeypatch.setattr(launch.run, "run", options.append)
    monkeypatch.setattr("sys.argv", ["stages/pretrain.py"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "SLURM_", "DVC_"))}
    monkeypatch.setattr(os, "environ", environment)
    return options


REFUSED = {
    "no number": ({"PET_NNODES": "abc"}, "PET_NNODES = abc is not allowed; it takes an integer >= 1"),
    "none": ({"PET_NNODES": "0"}, "PET_NNODES = 0 is not allowed; it takes an integer >= 1"),
    "a range": (NODE | {"PET_NNODES": "1:2"}, "PET_NNODES = 1:2 is not allowed; it takes an integer >= 1"),
    "alone": (
        {"PET_NNODES": "2"},
        f"PET_NNODES = 2 without PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT; {SEVERAL}",
    ),
    "meeting at a rendezvous": (
        {"PET_NNODES": "2", "PET_RDZV_ENDPOINT": "127.0.0.1:29778", "PET_RDZV_BACKEND": "c10d"},
        f"PET_NNODES = 2 without PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT; {SEVERAL}",
    ),
    "meeting twice": (
        NODE | {"PET_RDZV_BACKEND": "c10d"},
        f"PET_NNODES = 2 does not go with PET_RDZV_BACKEND; {SEVERAL}",
    ),
    "no such node": (
        NODE | {"PET_NODE_RANK": "2"}, "PET_NODE_RANK = 2 is not allowed; it takes an integer from 0 to 1",
    ),
    "no port": (
        NODE | {"PET_MASTER_PORT": "http"},
        "PET_MASTER_PORT = http is not allowed; it takes an integer from 1 to 65535",
    ),
    "dvc": (
        NODE | {"DVC_STAGE": "pretrain"},
        "PET_NODE_RANK = 1 under dvc, which runs on node 0 alone; on the others give `scripts/stage pretrain`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_nodes_that_cannot_meet_are_refused(case: str, agents: list[Any]) -> None:
    environment, message = REFUSED[case]
    os.environ.update(environment)
    with pytest.raises(UserError) as refused:
        launch.on_every_gpu(256, on_every_node=True)
    assert str(refused.value) == f"environment: {message}"
    assert agents == []


def test_a_first_node_without_an_address_is_refused(agents: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", mock.Mock(side_effect=socket.gaierror(-2, "Name or service not known")))
    os.environ.update(NODE | {"PET_MASTER_ADDR": "n0"})
    with pytest.raises(UserError, match=r"PET_MASTER_ADDR = n0 is not allowed; .* \(Name or service not known\)$"):
        launch.on_every_gpu(256, on_every_node=True)
    assert agents == []


def test_a_node_becomes_an_agent_and_says_for_whom_it_waits(
    agents: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    os.environ.update(NODE)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as end:
        launch.on_every_gpu(256, on_every_node=True)
    assert end.value.code is None
    assert [(agent.nnodes, agent.node_rank, agent.nproc_per_node) for agent in agents] == [("2", 1, "1")]
    assert caplog.messages == ["node 1 of 2, counted from 0, waits for the others at 127.0.0.1:29777"]


def test_dvc_runs_on_node_0(agents: list[Any]) -> None:
    os.environ.update(NODE | {"PET_NODE_RANK": "0", "DVC_STAGE": "pretrain"})
    with pytest.raises(SystemExit):
        launch.on_every_gpu(256, on_every_node=True)
    assert len(agents) == 1


@pytest.mark.parametrize(("batch_size", "processes"), [(4096, "8"), (96, "8"), (12, "6"), (14, "7")])
def test_the_processes_of_a_node_divide_its_part_of_the_batch(
    batch_size: int, processes: str, agents: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, devices=8)
    os.environ.update(NODE)
    with pytest.raises(SystemExit):
        launch.on_every_gpu(batch_size, on_every_node=True)
    assert agents[0].nproc_per_node == processes


@pytest.mark.parametrize("environment", [NODE, {"PET_NNODES": "abc"}, {"PET_RDZV_ENDPOINT": "127.0.0.1:29778"}])
def test_other_stages_than_pretraining_stay_on_their_node(environment: dict[str, str], agents: list[Any]) -> None:
    os.environ.update(environment)
    launch.on_every_gpu(256)
    assert agents == []
    os.environ.update(environment | {"PET_NPROC_PER_NODE": "3"})
    with pytest.raises(SystemExit):
        launch.on_every_gpu(256)
    assert [(agent.nnodes, agent.nproc_per_node) for agent in agents] == [("1:1", "3")]


def test_nodes_that_do_not_meet_in_time_are_an_error(agents: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Any) -> None:
        raise dist.DistStoreError("Timed out after 601 seconds waiting for clients. 1/2 clients joined.\nframe #0")

    os.environ.update(NODE)
    monkeypatch.setattr(launch.run, "run", run)
    with pytest.raises(UserError) as error:
        launch.on_every_gpu(256, on_every_node=True)
    assert str(error.value) == ("DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.")
