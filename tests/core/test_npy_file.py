import errno
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from simclr.core import npy_file

ROWS = np.arange(3000 * 4, dtype=np.float32).reshape(3000, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (2050, 3, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        ROWS[::-2],
        ROWS.T,
        np.asfortranarray(ROWS),
        IMAGES,
        IMAGES.transpose(0, 3, 1, 2),
        ROWS[:0],
        np.arange(1024),
    ],
)
def test_the_bytes_are_those_of_np_save(array: npt.NDArray[Any], tmp_path: Path) -> None:
    npy_file.write(tmp_path / "written.npy", array)
    np.save(tmp_path / "saved.npy", np.ascontiguousarray(array))
    assert (tmp_path / "written.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="No space left on device") as raised:
        npy_file.write(Path("/dev/full"), ROWS)
    assert raised.value.errno == errno.ENOSPC
