"""Two files as one, against their images in a row."""

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from simclr.core.errors import UserError
from simclr.data import beton, loader
from simclr.data.beton import JPEG, RAW, StoredImage
from simclr.data.joined import join
from simclr.data.loader import Crops
from tests.data.test_loader import SOUND
from tests.helpers.betons import noise, read_pixels, stored

WHOLE = np.array([[0, 0, 8, 8]])


def test_the_samples_of_both_in_a_row(tmp_path: Path) -> None:
    images, labels = noise(13, 8, seed=0), np.arange(13) % 3
    first = stored(tmp_path / "train.beton", images[:9], labels[:9])
    second = stored(tmp_path / "val.beton", images[9:], labels[9:])
    assert first.path.stat().st_size % mmap.PAGESIZE  # so that the second starts after a gap
    both = join(first, second)
    samples = np.random.default_rng(0).permutation(13)
    assert len(both) == 13
    assert both.uniform
    assert both.labels.tolist() == labels.tolist()
    boxes = np.repeat(WHOLE, 13, axis=0)[:, None]
    np.testing.assert_array_equal(read_pixels(both, samples, boxes, 8).numpy(), images[samples])
    with pytest.raises(ValueError, match="read-only"):
        both.data[0] = 1


def test_jpegs_and_raw_images_mix(tmp_path: Path) -> None:
    files = []
    for name, kinds in (("train", "JRJ"), ("val", "RJ")):
        images = [
            StoredImage(JPEG, 48, 64, SOUND) if kind == "J" else StoredImage(RAW, 8, 8, noise(1, 8, 5).tobytes())
            for kind in kinds
        ]
        beton.write(tmp_path / name, images, np.zeros(len(images), np.int64), largest=1 << 16)
        files.append(beton.read(tmp_path / name))
    both = join(*files)
    assert not both.uniform
    boxes = np.stack([both.heights * 0, both.heights * 0, both.heights, both.widths], axis=1)[:, None]
    loaded = loader.load(both, np.arange(5), [Crops(boxes, 6)], torch.device("cpu"))["pixels.0"]
    for (file, sample), crops in zip([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], loaded, strict=True):
        alone = loader.load(
            files[file], np.array([sample]), [Crops(boxes[[sample + 3 * file]], 6)], torch.device("cpu")
        )
        assert torch.equal(crops, alone["pixels.0"][0])


def test_the_files_may_be_closed_and_gone(tmp_path: Path) -> None:
    images = noise(4, 8, seed=1)
    parts = [
        stored(tmp_path / name, images[part], np.arange(2)) for name, part in (("a", slice(2)), ("b", slice(2, 4)))
    ]
    both = join(*parts)
    for part in parts:
        part.path.unlink()
    boxes = np.repeat(WHOLE, 4, axis=0)[:, None]
    np.testing.assert_array_equal(read_pixels(both, np.arange(4), boxes, 8).numpy(), images)
    with pytest.raises(UserError, match=r"a: cannot be read \(No such file"):
        join(*parts)
