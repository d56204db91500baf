"""Kernels in Triton where there is no GPU: interpreted, and compiled for some."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

CAPABILITIES = [80, 90]
"""Of the GPUs that kernels are compiled for."""


def interpreted(code: str, given: Any, folder: Path) -> Any:
    """The `found` that `code` makes of `given`, in a process whose kernels are interpreted."""
    whole = f"import sys, torch\ngiven = torch.load(sys.argv[1])\n{code}\ntorch.save(found, sys.argv[2])\n"
    torch.save(given, folder / "given")
    subprocess.run(
        [sys.executable, "-c", whole, str(folder / "given"), str(folder / "found")],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    return torch.load(folder / "found")


def assembly(
    kernel: Any, signature: Mapping[str, str], constants: Mapping[str, Any], capability: int, folder: Path
) -> str:
    """The PTX of `kernel`, kept in `folder`; `signature` has the types of the arguments that are not in `constants`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(kernel, {**signature, **dict.fromkeys(constants, "constexpr")}, dict(constants))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        text: str = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
    return text
