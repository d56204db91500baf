import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from simclr.core.errors import UserError
from simclr.data import beton, crop, loader
from simclr.data.beton import JPEG, MIN_PAGE, RAW, Beton, StoredImage
from simclr.data.upstream import ALLOC_TABLE_TYPE, CURRENT_VERSION, FieldDescType, HeaderType, Reader
from tests.helpers.betons import described

DESCRIPTORS = HeaderType.itemsize
TABLE = DESCRIPTORS + 2 * FieldDescType.itemsize


def noise(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def raw(pixels: npt.NDArray[np.uint8]) -> StoredImage:
    return StoredImage(RAW, *pixels.shape[:2], pixels.tobytes())


def jpeg(pixels: npt.NDArray[np.uint8], folder: Path) -> StoredImage:
    path = folder / "one.jpg"
    Image.fromarray(pixels).save(path, quality=90, subsampling=0)  # decoders agree where no colour is interpolated
    data = path.read_bytes()
    path.unlink()
    return StoredImage(JPEG, *pixels.shape[:2], data)


def write(path: Path, images: list[StoredImage], labels: list[int] | None = None) -> Beton:
    chosen = list(range(len(images))) if labels is None else labels
    beton.write(path, iter(images), np.array(chosen), largest=max(len(image.data) for image in images))
    return beton.read(path)


def stored(file: Beton, sample: int) -> StoredImage:
    start, size = file.starts[sample], file.sizes[sample]
    data = file.data[start : start + size].tobytes()
    return StoredImage(int(file.modes[sample]), int(file.heights[sample]), int(file.widths[sample]), data)


@pytest.fixture
def mixed(tmp_path: Path) -> list[StoredImage]:
    """Raw images and JPEGs of many sizes."""
    sizes = [(5, 7), (40, 33), (1, 1), (64, 64), (17, 90), (200, 3)]
    images = []
    for seed, (height, width) in enumerate(sizes):
        pixels = noise(seed, height, width)
        images.append(raw(pixels) if seed % 2 else jpeg(pixels, tmp_path))
    return images


def test_what_is_written_comes_back(tmp_path: Path, mixed: list[StoredImage]) -> None:
    labels = [3, -1, 0, 2**40, 7, 0]
    file = write(tmp_path / "x.beton", mixed, labels)
    assert len(file) == 6
    assert file.labels.tolist() == labels
    assert [stored(file, sample) for sample in range(6)] == mixed
    assert not file.uniform


def test_uniform_means_raw_and_one_size(tmp_path: Path) -> None:
    alike = [raw(noise(seed, 4, 6)) for seed in range(3)]
    assert write(tmp_path / "x.beton", alike).uniform
    assert not write(tmp_path / "x.beton", [*alike, raw(noise(0, 6, 4))]).uniform
    assert not write(tmp_path / "x.beton", [*alike, jpeg(noise(0, 4, 6), tmp_path)]).uniform


def test_two_writings_are_the_same_bytes(tmp_path: Path, mixed: list[StoredImage]) -> None:
    write(tmp_path / "a.beton", mixed)
    write(tmp_path / "b.beton", mixed)
    assert (tmp_path / "a.beton").read_bytes() == (tmp_path / "b.beton").read_bytes()


def test_no_image_crosses_a_page_and_every_page_is_filled(tmp_path: Path) -> None:
    images = [raw(noise(seed, 300, 300)) for seed in range(16)]  # seven leave 207,152 bytes of a page of 2 MiB
    images.insert(7, StoredImage(JPEG, 9, 9, bytes([1]) * 207_152))
    file = write(tmp_path / "x.beton", images)
    first, last = file.starts // MIN_PAGE, (file.starts + file.sizes - 1) // MIN_PAGE
    assert (first == last).all()
    assert first.tolist() == [1] * 8 + [2] * 7 + [3] * 2
    assert [stored(file, sample) for sample in range(len(images))] == images


def test_the_largest_image_decides_the_page(tmp_path: Path) -> None:
    for size, page in [(MIN_PAGE, MIN_PAGE), (MIN_PAGE + 1, 2 * MIN_PAGE), (3 * MIN_PAGE, 4 * MIN_PAGE)]:
        path = tmp_path / "x.beton"
        images = [StoredImage(JPEG, 9, 9, bytes([fill]) * size) for fill in (1, 2)]
        file = write(path, images)
        assert Reader(str(path)).page_size == page
        assert [stored(file, sample) for sample in (0, 1)] == images
        assert (file.starts % page + file.sizes <= page).all()


def test_an_image_larger_than_a_page_is_refused(tmp_path: Path) -> None:
    images = [StoredImage(JPEG, 9, 9, bytes(size)) for size in (100, MIN_PAGE + 1)]
    with pytest.raises(
        UserError, match=rf"x\.beton: image 1 takes {MIN_PAGE + 1} bytes, more than a page's {MIN_PAGE}"
    ):
        beton.write(tmp_path / "x.beton", images, np.zeros(2, np.int64), largest=100)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", [None, b"an earlier file"])
def test_nothing_is_left_behind_when_an_image_fails(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "x.beton"
    if before:
        path.write_bytes(before)

    def images():  # type: ignore[no-untyped-def]
        yield raw(noise(0, 4, 4))
        raise UserError("cat.png: has changed since fetch")

    with pytest.raises(UserError, match=r"^cat\.png"):
        beton.write(path, images(), np.zeros(2, np.int64), largest=48)
    assert os.listdir(tmp_path) == (["x.beton"] if before else [])
    assert not before or path.read_bytes() == before


# upstream ffcv, in processes of its own: after an error its loader and its writer wait for ever


def upstream(program: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)


READ = """
import sys
import numpy as np
from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption

def read(path, decoder, os_cache):
    batches = Loader(
        path, batch_size=4, num_workers=1, os_cache=os_cache, order=OrderOption.SEQUENTIAL, drop_last=False,
        pipelines={"image": [decoder], "label": [IntDecoder()]},
    )
    images, labels = zip(*[(images.copy(), labels.copy()) for images, labels in batches])
    np.savez(f"{path}.{os_cache}.npz", images=np.concatenate(images), labels=np.concatenate(labels)[:, 0])

for os_cache in (True, False):
    read(sys.argv[1], SimpleRGBImageDecoder(), os_cache)
    read(sys.argv[2], CenterCropRGBImageDecoder((16, 16), 1.0), os_cache)
"""


def test_upstreams_loader_reads_what_is_written(tmp_path: Path, mixed: list[StoredImage]) -> None:
    alike = write(tmp_path / "alike.beton", [raw(noise(seed, 290, 270)) for seed in range(17)], [-1, *range(16)])
    varied = write(tmp_path / "varied.beton", mixed, [5, 4, 3, 2, 1, 0])
    assert alike.starts.max() >= 3 * MIN_PAGE
    upstream(READ, alike.path, varied.path)
    for file in (alike, varied):
        boxes = crop.central_boxes(file.heights, file.widths, share=1.0)
        expected = [described(file, sample) for sample in range(len(file))]
        if not file.uniform:
            expected = [square(image, *box) for image, box in zip(expected, boxes, strict=True)]
        for os_cache in (True, False):  # the whole file mapped, or its pages read one by one
            theirs = np.load(f"{file.path}.{os_cache}.npz")
            assert theirs["labels"].tolist() == file.labels.tolist()
            assert (theirs["images"] == expected).all()


def square(pixels: npt.NDArray[np.uint8], top: int, left: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Cut and resized as upstream does it."""
    cut = pixels[top : top + height, left : left + width]
    return np.asarray(cv2.resize(cut, (16, 16), interpolation=cv2.INTER_AREA))


WRITE = """
import multiprocessing
import sys
multiprocessing.set_start_method("fork")  # its workers get objects of this program
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

class Noise:
    def __init__(self, mode):
        self.mode = mode

    def __len__(self):
        return 60

    def __getitem__(self, index):
        side = 8 if self.mode == "raw" else 150 + index
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8), int(index) % 7

for mode in ("raw", "jpg"):
    for workers in (1, 2):
        fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
        writer = DatasetWriter(f"{sys.argv[1]}/{mode}{workers}", fields, page_size=1 << 21, num_workers=workers)
        writer.from_indexed_dataset(Noise(mode), chunksize=5)
"""


def test_files_of_upstreams_writer_are_read(tmp_path: Path) -> None:
    upstream(WRITE, tmp_path)
    for workers in (1, 2):
        file = beton.read(tmp_path / f"raw{workers}")
        assert file.uniform
        assert file.labels.tolist() == [index % 7 for index in range(60)]
        assert [stored(file, index) for index in range(60)] == [raw(noise(index, 8, 8)) for index in range(60)]

        file = beton.read(tmp_path / f"jpg{workers}")
        assert not file.uniform
        assert file.labels.tolist() == [index % 7 for index in range(60)]
        assert file.heights.tolist() == file.widths.tolist() == list(range(150, 210))
        for index, side in enumerate(range(150, 210)):
            assert loader.decodable(stored(file, index).data, side, side)


# damage


def refused(path: Path) -> bool:
    """Whether `path` is refused, in one line that names it; else it is whole."""
    try:
        file = beton.read(path)
    except UserError as error:
        if re.fullmatch(rf"{re.escape(str(path))}: [^\n]+", str(error)):
            return True
        raise
    assert (file.starts >= 0).all()
    assert (file.sizes > 0).all()
    assert (file.starts + file.sizes <= path.stat().st_size).all()
    assert all(len(column) == len(file) for column in (file.modes, file.heights, file.widths, file.starts, file.sizes))
    return False


def overwrite(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.beton: cannot be read \(No such file or directory\)"):
        beton.read(tmp_path / "x.beton")
    with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path))}: cannot be read \(Is a directory\)"):
        beton.read(tmp_path)


def test_no_beton_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    for content, reason in [
        (b"", "0 bytes are no .beton file"),
        (bytes(range(10)), "10 bytes are no .beton file"),
        (bytes(1000), f"not a .beton file of version {CURRENT_VERSION}"),
        (np.random.default_rng(0).bytes(5000), f"not a .beton file of version {CURRENT_VERSION}"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"x\.beton: {reason}$"):
            beton.read(path)


def test_a_file_of_another_version(tmp_path: Path) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(0, 4, 4))]).path
    overwrite(path, 0, bytes([CURRENT_VERSION + 1]))
    with pytest.raises(UserError, match=r"x\.beton: not a \.beton file of version 2"):
        beton.read(path)


@pytest.mark.parametrize("change", ["name", "type", "unknown type", "order"])
def test_a_file_of_other_fields_is_refused(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(0, 4, 4))]).path
    fields = np.fromfile(path, FieldDescType, 2, offset=DESCRIPTORS)
    match change:
        case "name":
            fields["name"][0, 0] = ord("x")
        case "type":
            fields["type_id"][1] = 0  # floating-point numbers
        case "unknown type":
            fields["type_id"][1] = 99
        case "order":
            fields = fields[::-1]
    overwrite(path, DESCRIPTORS, fields.tobytes())
    assert refused(path)


def test_a_file_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="empty"):
        beton.write(tmp_path / "x.beton", [], np.zeros(0, np.int64), largest=1)
    assert os.listdir(tmp_path) == []


def test_a_truncated_file_is_refused(tmp_path: Path, mixed: list[StoredImage]) -> None:
    path = write(tmp_path / "x.beton", mixed).path
    length = path.stat().st_size
    table = int(np.fromfile(path, HeaderType, 1)[0]["alloc_table_ptr"])
    generator = np.random.default_rng(0)
    cuts = {*range(table, length), *generator.integers(0, length, 150), *generator.integers(0, TABLE + 200, 50)}
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        assert refused(path), f"cut to {cut} of {length} bytes"


@pytest.mark.parametrize("field", ["num_samples", "alloc_table_ptr", "num_fields"])
@pytest.mark.parametrize("value", [0, 1, 3, 5, 7, 2**15, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1])
def test_a_wrong_count_or_pointer_is_refused(tmp_path: Path, field: str, value: int) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(seed, 4, 4)) for seed in range(4)]).path
    header = np.fromfile(path, HeaderType, 1)
    header[0][field] = value % (1 << 8 * HeaderType[field].itemsize)
    overwrite(path, 0, header.tobytes())
    assert refused(path)


@pytest.mark.parametrize("field", ["sample_id", "ptr", "size"])
def test_an_allocation_that_is_not_the_images_is_refused(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(seed, 4, 4)) for seed in range(4)]).path
    header = np.fromfile(path, HeaderType, 1)[0]
    allocations = np.fromfile(path, ALLOC_TABLE_TYPE, offset=int(header["alloc_table_ptr"]))
    for value in (0, 1, 49, 2**63, 2**64 - 1):
        wrong = allocations.copy()
        wrong[2][field] = value
        overwrite(path, int(header["alloc_table_ptr"]), wrong.tobytes())
        assert refused(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", 2),
        ("mode", 255),
        ("height", 0),
        ("width", 0),
        ("data_ptr", 0),
        ("data_ptr", 2**63),
        ("data_ptr", 2**40),
    ],
)
def test_a_row_with_an_impossible_value_is_refused(tmp_path: Path, field: str, value: int) -> None:
    path = write(tmp_path / "x.beton", [jpeg(noise(seed, 8, 8), tmp_path) for seed in range(4)]).path
    reader = Reader(str(path))
    table, allocations = reader.metadata.copy(), reader.alloc_table.copy()
    table["f0"][field][2] = value
    allocations["ptr"] = table["f0"]["data_ptr"]
    overwrite(path, TABLE, table.tobytes())
    overwrite(path, int(reader.header["alloc_table_ptr"]), allocations.tobytes())
    assert refused(path)


def test_a_header_that_counts_no_images_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(0, 4, 4))]).path
    header = np.fromfile(path, HeaderType, 1)
    header[0]["num_samples"], header[0]["alloc_table_ptr"] = 0, path.stat().st_size
    overwrite(path, 0, header.tobytes())
    assert refused(path)


def test_tables_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.beton", [raw(noise(0, 4, 4))]).path
    header, allocations = np.fromfile(path, HeaderType, 1), np.zeros(1000, ALLOC_TABLE_TYPE)
    allocations["sample_id"] = np.arange(1000)
    start = TABLE - 1000  # where the last field's descriptor has unused bytes
    header[0]["num_samples"], header[0]["alloc_table_ptr"] = 1000, start
    os.truncate(path, start)
    overwrite(path, start, allocations.tobytes())
    overwrite(path, 0, header.tobytes())
    assert refused(path)
