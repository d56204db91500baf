"""Small constants on a device, copied there once: every copy of one would make the host wait until a GPU is idle."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """`values` (N,) as float32 on `device`; the same tensor every time, not to be changed."""
    return torch.tensor(values, dtype=torch.float32, device=device)
