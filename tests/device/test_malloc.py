"""What glibc does with freed memory, in processes of its own: it cannot be undone."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from simclr.device import malloc

{setting}
b"x" * (64 << 20)  # more than glibc keeps by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("setting", "least", "most"), [("", 32, 100_000), ("malloc.keep_freed_memory()", 0, 8)])
def test_freed_memory_is_used_again_without_page_faults(setting: str, least: int, most: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(setting=setting)]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert least <= faults <= most
