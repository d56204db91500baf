"""The finished views of an epoch, bit for bit: no batch, rank, thread, neighbour or interruption can change one.

They are compared with those of a whole epoch in one batch on one thread. Sizes are chosen for what tempts libraries to
round otherwise: tiny images, odd ones, and 192 px, from where on torch would split one image's sum over its threads.
"""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from simclr.augment import Draws
from simclr.core import prefetch, thread_pool
from simclr.data import beton, sampling
from simclr.data.beton import JPEG, RAW, Beton, StoredImage
from simclr.data.sampling import Indices
from simclr.device.transfer import Parcel
from simclr.learning.projection_head import HashedDropout
from simclr.views.compose import by_view
from simclr.views.stream import ViewStream
from tests.helpers.augmentations import CPU, views
from tests.helpers.betons import noise

COUNT = 13
SEED, EPOCH = 3, 2
Views = dict[tuple[int, int], Tensor]
"""(3, S, S) by sample and view."""


def image(sample: int, mode: int, height: int, width: int) -> StoredImage:
    pixels = noise(1, max(height, width), seed=sample)[0, :height, :width]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return StoredImage(mode, height, width, pixels.tobytes() if mode == RAW else buffer.getvalue())


ONE_SIZE = [(21, 26)] * COUNT
SIZES = [(20 + 3 * sample, 60 - 2 * sample) for sample in range(COUNT)]
KINDS = {"raw of one size": (RAW, ONE_SIZE), "raw of any size": (RAW, SIZES), "jpeg": (JPEG, SIZES)}


@pytest.fixture(scope="module", params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Beton:
    mode, sizes = KINDS[request.param]
    images = [image(sample, mode, *size) for sample, size in enumerate(sizes)]
    path = tmp_path_factory.mktemp("exact") / "x.beton"
    beton.write(path, images, np.zeros(COUNT, np.int64), largest=max(len(stored.data) for stored in images))
    return beton.read(path)


@pytest.fixture(scope="module", params=[8, 33, 192])
def size(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads(), thread_pool.THREADS
    yield
    torch.set_num_threads(before[0])
    thread_pool.THREADS = before[1]


def finished(
    file: Beton,
    size: int,
    parts: list[Indices],
    *,
    epoch: int = EPOCH,
    count: int = 2,
    threads: int = 2,
    prefetching: int = 1,
) -> Views:
    """The views of the samples of `parts`, made batch by batch as pretraining makes them."""
    made = views(size, count=count, seed=SEED, crop__scale=[0.1, 1.0])
    stream = ViewStream(file, (made,), CPU)
    torch.set_num_threads(threads)
    thread_pool.THREADS = threads

    def load(samples: Indices) -> tuple[Indices, Parcel]:
        return samples, stream.load(samples, epoch)

    found: Views = {}
    for samples, loaded in prefetch.prefetch(load, parts, prefetching):
        images = stream.batch(loaded, len(samples)).images[0].unflatten(0, (count, len(samples)))
        found |= {(sample, view): images[view, row] for row, sample in enumerate(samples) for view in range(count)}
    return found


def shuffled(batch_size: int, rank: int = 0, world: int = 1) -> list[Indices]:
    """This rank's part of the epoch's batches, the last, smaller one among them; no part is empty."""
    parts = sampling.shuffled_batches(COUNT, batch_size, SEED, EPOCH, rank, world, drop_last=False)
    return [part for part in parts if len(part)]


@pytest.fixture(scope="module")
def expected(file: Beton, size: int) -> Views:
    return finished(file, size, [np.arange(COUNT)], threads=1)


def assert_same(found: Views, expected: Views) -> None:
    assert found.keys() == expected.keys()
    different = [key for key, image in found.items() if not torch.equal(image, expected[key])]
    assert not different


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_any_batch_size(batch_size: int, file: Beton, size: int, expected: Views) -> None:
    assert_same(finished(file, size, shuffled(batch_size)), expected)


@pytest.mark.parametrize(("threads", "prefetching"), [(1, 3), (2, 1), (4, 3)])
def test_any_number_of_threads(threads: int, prefetching: int, file: Beton, size: int, expected: Views) -> None:
    for batch_size in (1, COUNT):
        found = finished(file, size, shuffled(batch_size), threads=threads, prefetching=prefetching)
        assert_same(found, expected)


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks(world: int, file: Beton, size: int, expected: Views) -> None:
    found: Views = {}
    for rank in range(world):
        own = finished(file, size, shuffled(8, rank, world))
        assert not own.keys() & found.keys()
        found |= own
    assert_same(found, expected)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_going_on_in_the_middle_of_an_epoch(world: int, file: Beton, size: int, expected: Views) -> None:
    done = [sample for part in shuffled(4)[:2] for sample in part.tolist()]
    found: Views = {}
    for rank in range(world):
        found |= finished(file, size, shuffled(4, rank, world)[2:])
    assert_same(found, {key: image for key, image in expected.items() if key[0] not in done})


def test_any_neighbours(file: Beton, size: int, expected: Views) -> None:
    for seed in range(3):
        chosen = np.random.default_rng(seed).permutation(COUNT)[: 2 * seed + 2]
        assert_same(finished(file, size, [chosen]), {key: expected[key] for key in expected if key[0] in chosen})


def test_any_number_of_views(file: Beton, size: int, expected: Views) -> None:
    for count in (1, 3):
        found = finished(file, size, [np.arange(COUNT)], count=count)
        assert_same({key: found[key] for key in found.keys() & expected.keys()}, {
            key: expected[key] for key in expected if key[1] < count
        })  # fmt: skip


def test_every_sample_view_and_epoch_has_its_own(file: Beton, size: int, expected: Views) -> None:
    """So that equality above says something."""
    every = [*expected.values(), *finished(file, size, [np.arange(COUNT)], epoch=EPOCH + 1).values()]
    assert len({image.numpy().tobytes() for image in every}) == 4 * COUNT


def masks(parts: list[Indices], count: int = 2) -> Views:
    """What dropout leaves of 50 units."""
    module, found = HashedDropout(0.5), {}
    for samples in parts:
        keys = by_view(Draws("dropout", SEED, EPOCH, samples, count).keys())
        rows = module(torch.ones(count * len(samples), 50), torch.from_numpy(keys))
        rows = rows.unflatten(0, (count, len(samples)))
        found |= {(sample, view): rows[view, row] for row, sample in enumerate(samples) for view in range(count)}
    return found


def test_masks_of_dropout_belong_to_sample_and_view() -> None:
    expected = masks([np.arange(COUNT)])
    assert len({mask.numpy().tobytes() for mask in expected.values()}) == 2 * COUNT
    for batch_size in (1, 2, 7):
        assert_same(masks(shuffled(batch_size)), expected)
    for world in (2, 4):
        assert_same(masks([part for rank in range(world) for part in shuffled(8, rank, world)]), expected)
    assert_same(masks([np.arange(COUNT)], count=1), {key: expected[key] for key in expected if key[1] == 0})
