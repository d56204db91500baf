import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.data import beton, loader
from simclr.data.beton import JPEG, RAW, Beton, StoredImage
from simclr.data.loader import Crops
from tests.helpers.betons import noise, read_pixels, stored

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZES = [(24, 40), (90, 33), (64, 64), (5, 7), (120, 161)]  # height, width


def smooth(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture that JPEG hardly changes, another one for each seed."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 17 + seed * 2), np.cos(columns / 13 + seed), np.sin((rows + columns) / 29 + seed)]
    return (127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def write(path: Path, images: list[StoredImage]) -> Beton:
    beton.write(path, images, np.zeros(len(images), np.int64), largest=max(len(image.data) for image in images))
    return beton.read(path)


def varied(path: Path, modes: list[int]) -> tuple[Beton, list[npt.NDArray[np.uint8]]]:
    """Images of all `SIZES`, stored in these modes; and their pixels, as Pillow decodes them."""
    images, pixels = [], []
    for seed, (mode, size) in enumerate(zip(modes, SIZES, strict=True)):
        picture = smooth(seed, *size)
        data = picture.tobytes() if mode == RAW else jpeg(picture)
        images.append(StoredImage(mode, *size, data))
        pixels.append(picture if mode == RAW else np.asarray(Image.open(io.BytesIO(data))))
    return write(path, images), pixels


def random_boxes(seed: int, sizes: list[tuple[int, int]], count: int) -> npt.NDArray[np.int64]:
    """Any boxes, from one pixel to the whole image: (B, `count`, 4)."""
    generator = np.random.default_rng(seed)
    boxes = np.empty((len(sizes), count, 4), np.int64)
    for image, (height, width) in enumerate(sizes):
        for box in boxes[image]:
            box[2:] = generator.integers(1, height + 1), generator.integers(1, width + 1)
            box[:2] = generator.integers(0, height - box[2] + 1), generator.integers(0, width - box[3] + 1)
    boxes[:, 0] = [(0, 0, *size) for size in sizes]
    return boxes


def expected(pixels: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint8]:
    """The boxes (V, 4) of one image by Pillow's antialiased bilinear resize: (V, size, size, 3)."""
    cut = [pixels[top : top + height, left : left + width] for top, left, height, width in boxes.tolist()]
    return np.stack([Image.fromarray(part).resize((size, size), Image.Resampling.BILINEAR) for part in cut])


@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize(
    "modes",
    [[RAW] * 5, [JPEG] * 5, [RAW, JPEG, JPEG, RAW, JPEG]],
    ids=["raw", "jpeg", "mixed"],
)
def test_boxes_of_images_of_any_size(tmp_path: Path, modes: list[int], size: int) -> None:
    file, images = varied(tmp_path / "x.beton", modes)
    samples = np.array([3, 0, 4, 4, 1, 2, 0])  # any order, some twice
    boxes = random_boxes(0, [SIZES[sample] for sample in samples], count=5)
    found = read_pixels(file, samples, boxes, size)
    assert found.dtype == torch.uint8
    assert found.shape == (7, 5, size, size, 3)
    for row, sample, own in zip(found.numpy().astype(int), samples, boxes, strict=True):
        difference = np.abs(row - expected(images[sample], own, size))
        # Pillow rounds between rows and columns; upstream asks libjpeg-turbo for its faster inverse DCT
        assert difference.max() <= (1 if modes[sample] == RAW else 9)
        assert difference.mean() <= (0.5 if modes[sample] == RAW else 2)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 60}])
def test_kinds_of_jpeg(tmp_path: Path, options: dict[str, int]) -> None:
    data = jpeg(smooth(0, 50, 70), **options)
    file = write(tmp_path / "x.beton", [StoredImage(JPEG, 50, 70, data)])
    whole = np.array([[[0, 0, 50, 70]]])
    found = read_pixels(file, np.array([0]), whole, 50)[0, 0].numpy().astype(int)
    reference = expected(np.asarray(Image.open(io.BytesIO(data))), whole[0], 50)[0]
    assert np.abs(found - reference).max() <= 8
    assert np.abs(found - reference).mean() <= 2
    assert loader.decodable(data, 50, 70)


def test_images_of_one_size_are_copied_whole(tmp_path: Path) -> None:
    images = noise(6, 9, seed=0)
    file = stored(tmp_path / "x.beton", images, np.zeros(6, np.int64))
    samples = np.array([5, 0, 0, 3])
    found = read_pixels(file, samples, random_boxes(0, [(9, 9)] * 4, 2), size=4)
    assert found.dtype == torch.uint8
    assert (found.numpy() == images[samples]).all()


def test_crops_of_images_of_one_size(tmp_path: Path) -> None:
    images = noise(3, 20, seed=0)
    file = stored(tmp_path / "x.beton", images, np.zeros(3, np.int64))
    boxes = random_boxes(0, [(20, 20)] * 3, count=4)
    found = loader.crops(loader.load(file, np.arange(3), [Crops(boxes, 8)], CPU), 0, 8)
    assert found.dtype == torch.float32
    assert found.shape == (12, 3, 8, 8)
    for view in range(4):  # all first boxes come before all second ones
        for image in range(3):
            pixels = torch.from_numpy(images[image]).permute(2, 0, 1).float() / 255
            reference = tv.resized_crop(pixels, *boxes[image, view].tolist(), [8, 8], antialias=True)
            torch.testing.assert_close(found[view * 3 + image], reference, atol=2e-6, rtol=0)


def test_crops_of_images_of_any_size(tmp_path: Path) -> None:
    file, _ = varied(tmp_path / "x.beton", [RAW, JPEG, RAW, JPEG, RAW])
    boxes = random_boxes(0, SIZES, count=3)
    loaded = loader.load(file, np.arange(5), [Crops(boxes, 8)], CPU)
    pixels, found = loaded["pixels.0"], loader.crops(loaded, 0, 8)
    assert found.dtype == torch.float32
    assert found.shape == (15, 3, 8, 8)
    for view in range(3):
        for image in range(5):
            reference = pixels[image, view].permute(2, 0, 1) / 255
            torch.testing.assert_close(found[view * 5 + image], reference, atol=0, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["of one size", "of any size"])
def test_crops_on_a_gpu_are_those_on_the_cpu(tmp_path: Path, kind: str) -> None:
    if kind == "of one size":
        file = stored(tmp_path / "x.beton", noise(5, 20, seed=0), np.zeros(5, np.int64))
    else:
        file, _ = varied(tmp_path / "x.beton", [RAW, JPEG, RAW, JPEG, RAW])
    boxes = random_boxes(0, list(zip(file.heights, file.widths, strict=True)), count=2)
    found = loader.crops(loader.load(file, np.arange(5), [Crops(boxes, 8)], GPU).to(GPU), 0, 8)
    assert found.device.type == "cuda"
    expected = loader.crops(loader.load(file, np.arange(5), [Crops(boxes, 8)], CPU), 0, 8)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads(), thread_pool.THREADS
    yield
    torch.set_num_threads(before[0])
    thread_pool.THREADS = before[1]


@pytest.mark.usefixtures("_threads")
def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    one_size = stored(tmp_path / "one.beton", noise(5, 40, seed=0), np.zeros(5, np.int64))
    mixed, _ = varied(tmp_path / "mixed.beton", [RAW, JPEG, JPEG, RAW, JPEG])
    samples = np.arange(5).repeat(20)
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        thread_pool.THREADS = count
        for file, sizes in ((one_size, [(40, 40)] * 100), (mixed, [SIZES[sample] for sample in samples])):
            boxes = random_boxes(1, sizes, count=2)
            found.append(loader.crops(loader.load(file, samples, [Crops(boxes, 16)], CPU), 0, 16))
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


def with_size(data: bytes, height: int, width: int) -> bytes:
    """The baseline JPEG `data` with another size in its frame header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def segments(data: bytes) -> list[bytes]:
    """The JPEG `data` in parts: its start, each segment before its first scan, and the rest."""
    parts, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


def without(data: bytes, marker: int, number: int) -> bytes:
    """`data` without one of its segments with that marker."""
    parts = segments(data)
    del parts[[at for at, part in enumerate(parts) if part[1] == marker][number]]
    return b"".join(parts)


SOUND = jpeg(smooth(9, 48, 64))
DAMAGED = {
    "truncated": SOUND[: len(SOUND) // 2],
    "without its end": SOUND[:-2],
    "cut within the header": SOUND[:100],
    "two bytes": SOUND[:2],
    "end overwritten": SOUND[:-300] + bytes(300),
    "middle overwritten": SOUND[:400] + b"\xff" * 300 + SOUND[700:],
    "zeros": bytes(len(SOUND)),
    "noise": np.random.default_rng(0).bytes(len(SOUND)),
    "no JPEG": b"\x89PNG\r\n\x1a\n" + SOUND,
    "smaller": jpeg(smooth(9, 24, 32)),
    "larger": jpeg(smooth(9, 96, 128)),
    "turned": jpeg(smooth(9, 64, 48)),
    "one row less in its header": with_size(SOUND, 47, 64),
    "one row more in its header": with_size(SOUND, 49, 64),
    "four components": jpeg(smooth(9, 48, 64), mode="CMYK"),
    **{f"without quantization table {table}": without(SOUND, 0xDB, table) for table in range(2)},
    **{f"without Huffman table {table}": without(SOUND, 0xC4, table) for table in range(4)},
}
"""What may stand where a sound JPEG of 48 x 64 should."""


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_jpeg_is_named_and_not_the_image_before_it(tmp_path: Path, damage: str) -> None:
    images = [StoredImage(JPEG, 48, 64, SOUND) for _ in range(6)]
    images[4] = StoredImage(JPEG, 48, 64, DAMAGED[damage])
    file = write(tmp_path / "x.beton", images)
    whole = np.tile([0, 0, 48, 64], (6, 1, 1))
    with pytest.raises(UserError, match=r"x\.beton: the JPEG of sample 4 is damaged; run convert again"):
        read_pixels(file, np.array([0, 5, 4, 1]), whole[:4], 16)
    sound = read_pixels(file, np.array([0, 1, 2, 3, 5]), whole[:5], 16)
    assert (sound == sound[0]).all()
    assert not loader.decodable(DAMAGED[damage], 48, 64)


def test_the_first_damaged_sample_of_a_batch_is_named(tmp_path: Path) -> None:
    images = [StoredImage(JPEG, 48, 64, SOUND if sample % 2 else SOUND[:500]) for sample in range(6)]
    file = write(tmp_path / "x.beton", images)
    with pytest.raises(UserError, match="sample 2 is damaged"):
        read_pixels(file, np.array([1, 3, 2, 0, 4]), np.tile([0, 0, 48, 64], (5, 1, 1)), 16)


def test_a_sound_jpeg_is_decodable_at_its_own_size_only() -> None:
    assert loader.decodable(SOUND, 48, 64)
    assert loader.decodable(with_size(SOUND, 48, 64), 48, 64)
    for height, width in [(64, 48), (24, 32), (96, 128), (48, 63), (47, 64)]:
        assert not loader.decodable(SOUND, height, width)
    assert not loader.decodable(b"", 48, 64)


FORMS: dict[str, dict[str, object]] = {
    "as it is": {}, "gray": {"mode": "L"}, "its own Huffman tables": {"optimize": True},
    "all colors": {"subsampling": 0}, "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2}, "large tables": {"qtables": [[300] * 64, [7] * 64]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_jpeg_of_any_form_needs_each_of_its_tables(form: str) -> None:
    data = jpeg(smooth(9, 48, 64), **FORMS[form])
    assert loader.decodable(data, 48, 64)
    parts = segments(data)
    assert loader.decodable(b"".join([parts[0], *(b"\xff" + part for part in parts[1:])]), 48, 64)  # with fill bytes
    for at, part in enumerate(parts):
        if part[1] in (0xDB, 0xC4):
            assert loader.decodable(data, 48, 64)  # whose tables the decompressor keeps
            assert not loader.decodable(b"".join(parts[:at] + parts[at + 1 :]), 48, 64)


def test_a_later_scan_needs_its_tables() -> None:
    data = jpeg(smooth(9, 48, 64), progressive=True)
    first = data.index(b"\xff\xda")
    at = data.index(b"\xff\xc4", first)
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    assert loader.decodable(data, 48, 64)
    assert not loader.decodable(data[:at] + data[end:], 48, 64)


def test_thumbnails_of_images_of_one_size_are_the_images(tmp_path: Path) -> None:
    images = noise(4, 7, seed=0)
    file = stored(tmp_path / "x.beton", images, np.zeros(4, np.int64))
    assert (loader.thumbnails(file, np.array([2, 0]), size=3) == images[[2, 0]]).all()


def test_thumbnails_of_images_of_any_size_are_their_central_squares(tmp_path: Path) -> None:
    file, images = varied(tmp_path / "x.beton", [RAW] * 5)
    found = loader.thumbnails(file, np.arange(5), size=20)
    assert (found.dtype, found.shape) == (np.uint8, (5, 20, 20, 3))
    boxes = [(0, 8, 24, 24), (28, 0, 33, 33), (0, 0, 64, 64), (0, 1, 5, 5), (0, 20, 120, 120)]
    for thumbnail, image, box in zip(found, images, boxes, strict=True):
        assert np.abs(thumbnail.astype(int) - expected(image, np.array([box]), 20)[0]).max() <= 1


def test_what_no_device_is_sent_makes_no_context_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU could be used, but another process has it to itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for file in (
        stored(tmp_path / "x.beton", noise(4, 7, seed=0), np.zeros(4, np.int64)),
        varied(tmp_path / "y.beton", [RAW] * 5)[0],
    ):
        loader.thumbnails(file, np.arange(4), size=3)
        boxes = np.tile([0, 0, 5, 5], (4, 1, 1))
        loader.crops(loader.load(file, np.arange(4), [Crops(boxes, 3)], CPU), 0, 3)


@pytest.mark.parametrize(("least", "expected"), [(9 * 9 * 3, [5] * 8), (9 * 9 * 3 * 20, [20] * 2), (10**6, [40])])
def test_images_of_one_size_are_read_by_several_threads(
    least: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as have `least` bytes each to copy."""
    images, copy, parts = noise(40, 9, seed=0), loader._copy, []

    def noted(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        parts.append((threading.current_thread().name.partition("_")[0], len(starts)))
        copy(data, starts, out)

    monkeypatch.setattr(loader, "_copy", noted)
    monkeypatch.setattr(loader, "_BLOCK_BYTES", least)
    monkeypatch.setattr(thread_pool, "THREADS", 4)
    file = stored(tmp_path / "x.beton", images, np.zeros(40, np.int64))
    found = read_pixels(file, np.arange(40), np.zeros((40, 1, 4), np.int64), 4)
    assert (found.numpy() == images).all()
    assert parts == [("decode", count) for count in expected]


def test_copying_does_not_take_the_interpreter_from_other_threads(tmp_path: Path) -> None:
    """On a GPU the training thread launches kernels meanwhile."""
    file = stored(tmp_path / "x.beton", noise(512, 32, seed=0), np.zeros(512, np.int64))
    out = np.empty((512, 32 * 32 * 3), np.uint8)
    assert loader._copy.targetoptions["nogil"]
    loader._copy(file.data, file.starts, out)
    assert (out == np.stack([file.data[start : start + out.shape[1]] for start in file.starts])).all()
