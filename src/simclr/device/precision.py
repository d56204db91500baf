"""bfloat16 where a GPU has it, and matrix products in full precision, for results that TF32 or bf16 would spoil."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether `device` is a GPU that computes in bfloat16; those before Ampere emulate it, slower than float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def full(device: torch.device) -> Iterator[None]:
    """Compute float32 matrix products on `device` in full precision: without autocast, and on a GPU without TF32.

    TF32 is off by default, but TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which some containers set, and
    torch.set_float32_matmul_precision turn it on for the whole process.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.fp32_precision = before
