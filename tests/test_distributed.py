"""How processes come about, and what they exchange."""

import pytest
import torch
from ranks import on_ranks
from torch import Tensor

from simclr import distributed
from simclr.distributed import Session


def test_a_process_alone_needs_no_group() -> None:
    rows = torch.arange(6.0).view(3, 2)
    with distributed.session() as session:
        assert session.leads
        assert session.world == 1
        assert torch.equal(session.gather_rows(rows), rows)
        assert torch.equal(session.mean(rows), rows)
        assert session.largest([3, 0]) == [3, 0]
        assert session.from_leader(rows) is rows
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


def agreed(session: Session) -> tuple[list[int], object]:
    own = [session.rank, 10 - session.rank, 0]
    return session.largest(own), session.from_leader({"weights": torch.ones(2), "from": session.rank})


def test_ranks_agree_on_the_largest_and_on_what_the_leader_has() -> None:
    for largest, value in on_ranks(3, agreed):
        assert largest == [2, 10, 0]
        assert value["from"] == 0
        assert torch.equal(value["weights"], torch.ones(2))


@pytest.mark.parametrize(("given", "threads"), [(None, 1), ("2", 2)])
def test_threads_are_one_or_what_the_environment_says(
    given: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMCLR_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as clusters do, for every job
    if given is not None:
        monkeypatch.setenv("SIMCLR_THREADS", given)
    with distributed.session():
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


def test_deterministic_holds_torch_to_it_while_the_session_lasts() -> None:
    for wanted in (True, False):
        with distributed.session(deterministic=wanted):
            assert torch.are_deterministic_algorithms_enabled() is wanted
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
