"""Two nodes with one disk, which is full; srun is a stand-in, which runs both on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.distributed.test_slurm import JOB, SCONTROL, SRUN
from tests.faults.test_disk import NOT_PERMITTED, small_disk
from tests.helpers.programs import ready, run


@contextmanager
def two_nodes(commands: Path, kilobytes: int, folder: Path, copy: Path) -> Iterator[None]:
    os.environ.update(JOB | {"CALLS": os.devnull, "PATH": f"{commands}:{os.environ['PATH']}"})
    with small_disk(kilobytes, folder, copy):
        yield


DISKS = {  # in kilobytes: what cannot be written there
    24: "runs: cannot be written (No space left on device)",
    160: "checkpoints/",
}


@pytest.mark.parametrize("kilobytes", DISKS)
def test_a_full_disk_is_named_in_one_line(kilobytes: int, done: Path, tmp_path: Path) -> None:
    commands, folder, copy = tmp_path / "bin", tmp_path / "disk", tmp_path / "copy"
    for made in (commands, folder, copy):
        made.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    ready("pretrain", done, copy)
    ended = run("pretrain", folder, partial(two_nodes, commands, kilobytes, folder, copy))
    if ended.code == NOT_PERMITTED:
        pytest.skip("mounting a file system is not permitted here")
    assert ended.error.removeprefix(f"{folder}/").startswith(DISKS[kilobytes])
    assert ended.error.endswith("cannot be written (No space left on device)")
    assert not list(copy.glob("runs/.nodes-*"))
