"""How processes come about, and what they exchange."""

import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simclr.core.errors import UserError
from simclr.distributed.session import Session, open_session
from tests import conftest
from tests.helpers.ranks import on_ranks


def test_a_process_alone_needs_no_group() -> None:
    rows = torch.arange(6.0).view(3, 2)
    with open_session() as session:
        assert session.is_main
        assert session.world_size == 1
        assert torch.equal(session.gather_rows(rows), rows)
        assert torch.equal(session.mean(rows), rows)
        assert session.max_async([3, 0])() == [3, 0]
        assert session.broadcast(rows) is rows
    assert not torch.distributed.is_initialized()


def exchanged(session: Session) -> tuple[bool, Tensor, Tensor]:
    rows = torch.tensor([[session.rank, 0.0], [session.rank, 1.0]])
    return session.is_main, session.gather_rows(rows), session.mean(torch.tensor([session.rank, 10.0 * session.rank]))


def test_rows_are_gathered_in_rank_order_and_means_are_shared() -> None:
    results = on_ranks(3, exchanged)
    assert [leads for leads, _, _ in results] == [True, False, False]
    for _, rows, mean in results:
        assert rows.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
        assert mean.tolist() == [1.0, 10.0]


def agreed(session: Session) -> tuple[list[int], object]:
    own = [session.rank, 10 - session.rank, 0]
    return session.max_async(own)(), session.broadcast({"weights": torch.ones(2), "from": session.rank})


def test_ranks_agree_on_the_largest_and_on_what_the_leader_has() -> None:
    for largest, value in on_ranks(3, agreed):
        assert largest == [2, 10, 0]
        assert value["from"] == 0
        assert torch.equal(value["weights"], torch.ones(2))


def test_a_world_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"^environment: WORLD_SIZE = 2 without MASTER_ADDR; "), open_session():
        pass


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "y"), ("WORLD_SIZE", ""), ("WORLD_SIZE", "0"), ("RANK", "-1"), ("RANK", "1")]
)
def test_variables_of_torchrun_that_are_impossible_are_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^environment: {name} = {value} is not allowed"), open_session():
        pass


CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the allocated memory ..."
)


@pytest.mark.parametrize(
    ("hint", "kind", "said", "line"),
    [
        ("set a smaller a.b", torch.OutOfMemoryError, CUDA_SAYS, "set a smaller a.b, or end other programs there "
         "(Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is free)"),
        ("", RuntimeError, "CUDA error: out of memory\nCUDA kernel errors", "run the stage without it "
         "(CUDA_VISIBLE_DEVICES=), or end other programs there (CUDA error: out of memory)"),
        ("set b", RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "set b, "
         "or end other programs there (CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`)"),
    ],
)  # fmt: skip
def test_a_gpu_without_memory_is_told_in_one_line(hint: str, kind: type[RuntimeError], said: str, line: str) -> None:
    told = f"the GPU's memory does not suffice: {line}"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"), open_session(memory_hint=hint):
        raise kind(said)


@pytest.mark.parametrize(
    ("allocate", "said"),
    [
        (lambda: torch.empty(1 << 50), "you tried to allocate 4503599627370496 bytes"),
        (lambda: np.empty(1 << 50, np.float32), r"Unable to allocate 4.00 PiB for an array .*"),
    ],
)
@pytest.mark.parametrize(("hint", "way_out"), [("set b", "set b"), ("", "take a smaller model or less data")])
def test_a_machine_without_memory_is_told_in_one_line(
    hint: str, way_out: str, allocate: Callable[[], object], said: str
) -> None:
    told = rf"^this machine's memory does not suffice: {way_out} \({said}\)$"
    with pytest.raises(UserError, match=told), open_session(memory_hint=hint):
        allocate()


def test_other_errors_within_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"), open_session():
        raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(("given", "threads"), [(None, 1), ("2", 2)])
def test_threads_are_one_or_what_the_environment_says(
    given: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMCLR_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as clusters do, for every job
    if given is not None:
        monkeypatch.setenv("SIMCLR_THREADS", given)
    with open_session():
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


@pytest.mark.parametrize("benchmark", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_algorithms_that_repeat_themselves_are_held_to_while_the_session_lasts(
    deterministic: bool, benchmark: bool
) -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with open_session(deterministic=deterministic, benchmark=benchmark):
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.deterministic is not benchmark
        assert torch.backends.cudnn.benchmark is benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == before


def test_products_are_exact_whatever_the_process_had_set() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with open_session():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


GPUS = {  # on a machine, processes on it, this one: its GPU, and the backend
    "alone": (1, 1, 0, 0, None),
    "a GPU each": (4, 4, 3, 3, "nccl"),
    "fewer than GPUs": (4, 2, 1, 1, "nccl"),
    "two share one": (1, 2, 1, 0, "gloo"),
    "five share two": (2, 5, 4, 0, "gloo"),
}


@pytest.mark.parametrize("case", GPUS)
def test_processes_take_a_gpu_each_or_share_them(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, processes, number, gpu, backend = GPUS[case]
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **_: chosen.append(name))
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: backend)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, value in {
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "RANK": number,
        "LOCAL_RANK": number,
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, str(value))
    with open_session() as session:
        assert session.device == torch.device("cuda", gpu)
        assert session.world_size == processes
        assert session.cpu_group == (backend and "gloo")
    assert chosen == [session.device, *([backend] if backend else [])]


def test_gpus_are_hidden_from_all_tests_but_those_that_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, visible in {"": "", "not slow and not gpu": "", "gpu": "3"}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
        conftest.pytest_configure(SimpleNamespace(getoption={"markexpr": chosen}.get))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def gpus(_: Session) -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="by `pytest -m gpu`")
def test_ranks_see_no_gpu_either() -> None:
    assert on_ranks(2, gpus) == ["", ""]
