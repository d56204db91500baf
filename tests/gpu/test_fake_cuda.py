"""What making views asks of a GPU, counted where there is none: launches, memory traffic, and who waits for whom."""

from pathlib import Path

import numpy as np
import pytest
import torch

from simclr import presets
from simclr.augment import _jitter_batched
from simclr.data.beton import JPEG, StoredImage
from simclr.data.sampling import Indices
from simclr.features.eval_transform import EvalTransform
from simclr.training import recipe
from simclr.views.compose import Views
from simclr.views.stream import ViewStream
from tests.data.test_loader import SOUND, write
from tests.helpers import fake_cuda
from tests.helpers.betons import noise, stored
from tests.helpers.fake_cuda import Asked

SAMPLES = {"cifar10": 512, "imagenet": 256}


def view_maker(preset: str, folder: Path) -> tuple[ViewStream, EvalTransform, Indices]:
    """What makes views on a GPU, by a preset, and normalises them; and the samples of a batch."""
    chosen = recipe.checked(presets.compose(preset), preset)
    resolution = chosen.parameters.views.resolution
    if preset == "cifar10":
        file = stored(folder / "x.beton", noise(3, 32, seed=0), np.zeros(3, np.int64))
    else:
        file = write(folder / "x.beton", [StoredImage(JPEG, 48, 64, SOUND)] * 3)
    views = Views(chosen.augmentations, 2, resolution, seed=0)
    stream = ViewStream(file, (views,), device=torch.device("cuda"))
    transform = EvalTransform(resolution, 1.0, [0.5] * 3, [0.2] * 3)
    return stream, transform, np.arange(SAMPLES[preset]) % len(file)


def asked(preset: str, folder: Path) -> Asked:
    """In the second step: from pixels on the host to what the encoder is given, but for the cast to bfloat16."""
    stream, transform, samples = view_maker(preset, folder)
    with fake_cuda.present():
        for _ in range(2):
            loaded = stream.load(samples, 1)
            with fake_cuda.counted() as counts:
                images = transform.normalise_(stream.batch(loaded, len(samples)).images[0])
            assert images.shape == (2 * len(samples), 3, *[stream.views[0].resolution] * 2)
            assert images.is_contiguous(memory_format=torch.channels_last)
    return counts


@pytest.mark.parametrize(
    ("preset", "kernel", "operations", "gigabytes"),
    [
        ("imagenet", True, 11, 6.3),
        ("imagenet", False, 60, 30),
        ("cifar10", True, 26, 0.5),
        ("cifar10", False, 75, 1.4),
    ],
)
def test_the_views_of_a_step(
    preset: str, kernel: bool, operations: int, gigabytes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_jitter_batched, "_triton_works", lambda: kernel)
    counts = asked(preset, tmp_path)
    assert counts.operations <= operations
    assert counts.bytes <= gigabytes * 1e9
    assert counts.waits == []
    assert len(counts.copied) == 1


def test_what_is_counted() -> None:
    """Each kind once, so that numbers above mean something."""
    with fake_cuda.counted() as counts:
        images = torch.empty(4, 5, device="cuda")
        (images.T[:2].expand(3, 2, 4) + 1).sum()
        assert counts.names == {"aten.add.Tensor": 1, "aten.sum.default": 1}
        assert counts.bytes == 4 * (2 * 4 + 24 + 24 + 1)
        assert counts.waits == []
        torch.empty(6).to("cuda", non_blocking=True)
        images.copy_(torch.empty(4, 5), non_blocking=True)
        assert counts.copied == [24, 80]
        assert counts.waits == []
        torch.empty(6).to("cuda")
        images.copy_(torch.empty(4, 5))
        torch.tensor([1.0, 2.0], device="cuda")
        images.cpu()
        assert len(counts.waits) == 4
        assert counts.operations == 8
