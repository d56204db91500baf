"""How processes come about, and what they exchange."""

import os
import sys

import pytest
import torch
from ranks import on_ranks
from torch import Tensor

from simclr import distributed
from simclr.distributed import Session


def launched(monkeypatch: pytest.MonkeyPatch, devices: int, torchrun: bool = False) -> list[str] | None:
    """The command that a stage replaces itself by, on a machine with so many visible GPUs."""
    commands: list[list[str]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: torchrun)
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["stages/pretrain.py"])
    distributed.relaunch_on_every_gpu()
    return commands[0] if commands else None


def test_several_gpus_get_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(monkeypatch, devices=3) == [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "stages/pretrain.py",
    ]  # fmt: skip


def test_a_cpu_one_gpu_and_torchruns_own_processes_go_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(monkeypatch, devices=0) is None
    assert launched(monkeypatch, devices=1) is None
    assert launched(monkeypatch, devices=3, torchrun=True) is None


def test_a_process_alone_needs_no_group() -> None:
    rows = torch.arange(6.0).view(3, 2)
    with distributed.session() as session:
        assert session.leads
        assert session.world == 1
        assert torch.equal(session.gather_rows(rows), rows)
        assert torch.equal(session.mean(rows), rows)
    assert not torch.distributed.is_initialized()


def exchanged(session: Session) -> tuple[bool, Tensor, Tensor]:
    rows = torch.tensor([[session.rank, 0.0], [session.rank, 1.0]])
    return session.leads, session.gather_rows(rows), session.mean(torch.tensor([session.rank, 10.0 * session.rank]))


def test_rows_are_gathered_in_rank_order_and_means_are_shared() -> None:
    results = on_ranks(3, exchanged)
    assert [leads for leads, _, _ in results] == [True, False, False]
    for _, rows, mean in results:
        assert rows.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
        assert mean.tolist() == [1.0, 10.0]
