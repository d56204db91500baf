"""Small constants on a device, copied there once, because every copy makes the host wait for an idle GPU."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`values` (N,) as float32 on `device`; cached, so do not modify it."""
    return torch.tensor(values, dtype=torch.float32, device=device)
