"""The same bytes on every processor: all stages, made small, on this one and on others that QEMU emulates.

QEMU computes approximate reciprocals and square roots exactly, which no processor does, so that code which uses them
gives other bytes there than here. What it hides is all that depends on the C library or on Linux.
"""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from simclr.core import processor
from tests.helpers.programs import ROOT, TINY, change, made

pytestmark = pytest.mark.slow

EMULATED = ("Haswell", "EPYC-Rome", "max")
"""The oldest of Intel's with AVX2, one of AMD's, and one of no known model."""
Made = dict[str, bytes]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """What the stages make on this processor ("") and on each of the others, two of which are at work at a time."""
    if shutil.which("qemu-x86_64") is None:
        pytest.fail("needs qemu-x86_64, of Debian's package qemu-user")
    if processor.mode() != "held":
        pytest.fail("needs a processor with AVX2 and FMA, and SIMCLR_CPU unset")
    folders = {name: tmp_path_factory.mktemp(name or "native") for name in ("", *EMULATED)}
    native = all_stages("", folders[""])  # first, since the others find what it compiles in numba's cache
    with ThreadPoolExecutor(2) as pool:
        emulated = pool.map(all_stages, EMULATED, [folders[name] for name in EMULATED])
        return {"": native, **dict(zip(EMULATED, emulated, strict=True))}


def all_stages(name: str, folder: Path) -> Made:
    """What all stages make in `folder` on the processor `name`."""
    change(folder, **TINY)
    emulator = ["qemu-x86_64", "-cpu", name] if name else []
    command = [*emulator, sys.executable, str(Path(__file__).with_name("all_stages.py"))]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "DVC_ROOT": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment)
    if name and done.returncode == -signal.SIGSEGV:  # QEMU crashed so in one of seven runs, where the others did not
        done = subprocess.run(command, cwd=folder, env=environment)
    assert done.returncode == 0
    return made(folder)


@pytest.mark.parametrize("name", EMULATED)
def test_another_processor_makes_the_same_bytes(name: str, results: dict[str, Made]) -> None:
    here, there = results[""], results[name]
    assert len(here) > 20
    assert there.keys() == here.keys()
    assert [path for path, content in here.items() if there[path] != content] == []
