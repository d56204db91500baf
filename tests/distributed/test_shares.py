"""Shares of rows: together they are the whole, once."""

import pytest
import torch
from benchmarks.fake_memory import CUDA, GIB, counted
from torch import Tensor

from simclr.distributed import shares
from simclr.distributed.session import Session
from tests.helpers.ranks import on_ranks

WHOLES = [torch.arange(3.0 * count).view(count, 3) for count in (1, 3, 4, 11)] + [torch.arange(7)]


def on_rank(session: Session, block_bytes: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    shares._BLOCK_BYTES = block_bytes
    found = []
    for whole in WHOLES:
        own = whole[shares.own(len(whole), session)]
        assert len(own) <= shares.size(len(whole), session)
        count = len(whole)
        found.append((own, shares.all_gather(own, count, session), shares.gather_to_main(own, count, session)))
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("block_bytes", [1, 64, 1 << 28])
def test_ranks_have_a_share_each_and_together_the_whole(world: int, block_bytes: int) -> None:
    by_rank = on_ranks(world, on_rank, block_bytes)
    for number, whole in enumerate(WHOLES):
        assert torch.equal(torch.cat([found[number][0] for found in by_rank]), whole)
        for rank, found in enumerate(by_rank):
            assert torch.equal(found[number][1], whole)
            assert torch.equal(found[number][2], whole if rank == 0 else whole[:0])


def test_the_whole_is_on_the_leaders_host_once_and_on_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of ImageNet's training images, 10.5 GB, from eight GPUs."""
    session = Session(rank=0, world_size=8, device=CUDA)
    monkeypatch.setattr(Session, "gather_rows", lambda _, rows: torch.cat([rows] * 8))
    with counted() as peak:
        share = torch.empty(160_146, 2048, device=CUDA)
        whole = shares.gather_to_main(share, 1_281_167, session)
    assert whole.shape == (1_281_167, 2048)
    assert peak.gpu < share.nbytes + 1 * GIB
    assert peak.host < whole.nbytes + 1 * GIB
