"""Placement of a model on its device, with BatchNorm and gradients synchronised over the ranks."""

import warnings

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from simclr.distributed.batch_norm import convert_sync_batchnorm
from simclr.distributed.session import Session


def place_model(model: nn.Module, session: Session, compiled: bool, pieces: int = 1) -> nn.Module:
    """Move `model` to the device, synchronise BatchNorm and gradients over the ranks, and optionally compile it.

    Compiled for one GPU, the passes over a whole batch are CUDA graphs: the host launches each pass at once instead of
    kernel by kernel, which takes it longer than the GPU at 32 px. Each pass overwrites the outputs of the last one,
    which a batch in `pieces` still needs.
    """
    model = model.to(session.device).to(memory_format=torch.channels_last)
    model = convert_sync_batchnorm(model, session)
    if compiled:
        as_graphs = session.world_size == 1 and pieces == 1  # on a CPU without effect
        model.compile(mode="reduce-overhead" if as_graphs else None)
    if session.world_size > 1:
        with warnings.catch_warnings():
            # torch 2.14 renames broadcast_buffers to forward_sync_buffers; 2.11 has only the old name
            warnings.simplefilter("ignore", FutureWarning)
            model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    return model
