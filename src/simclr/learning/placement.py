"""A model on its device, its BatchNorm and gradients shared by all ranks."""

import warnings

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from simclr.distributed.batch_norm import synchronised
from simclr.distributed.session import Session


def placed(model: nn.Module, session: Session, compiled: bool) -> nn.Module:
    """`model` on the device, its BatchNorm and gradients shared by all ranks, compiled if asked for."""
    model = model.to(session.device).to(memory_format=torch.channels_last)
    model = synchronised(model, session)
    if compiled:
        model.compile()
    if session.world_size > 1:
        with warnings.catch_warnings():
            # torch 2.14 calls it forward_sync_buffers, 2.11 does not
            warnings.simplefilter("ignore", FutureWarning)
            model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    return model
