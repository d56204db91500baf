import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from simclr.conversion import channel_statistics
from simclr.conversion.convert import ConvertParams, convert, encode
from simclr.conversion.splits import long_tailed, stratified
from simclr.core import params, thread_pool
from simclr.core.errors import UserError
from simclr.data import converted, loader
from simclr.data.beton import JPEG, RAW, Beton
from simclr.images import decode_image, source_images
from tests.helpers.betons import noise, read_pixels

DEFAULTS = {
    "seed": 0,
    "long_tail": 1.0,
    "val_fraction": 0.2,
    "storage": "auto",
    "max_resolution": 512,
    "jpeg_quality": 90,
}


def parameters(**changed: Any) -> ConvertParams:
    return params.check({**DEFAULTS, **changed}, ConvertParams, "convert", "params.yaml")


# the validation split


@pytest.mark.parametrize(
    ("fraction", "sizes"),
    [
        (0.2, {1: 0, 2: 1, 3: 1, 5: 1, 7: 1, 8: 2, 10: 2, 101: 20}),
        (0.001, {1: 0, 2: 1, 100: 1, 1500: 2, 3000: 3}),
        (0.9, {1: 0, 2: 1, 3: 2, 4: 3, 10: 9, 100: 90}),
    ],
)
def test_a_fraction_of_each_class_is_taken(fraction: float, sizes: dict[int, int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), list(sizes)))
    rest, part = stratified(labels, fraction, seed=0)
    assert [int((labels[part] == label).sum()) for label in range(len(sizes))] == list(sizes.values())
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert (np.diff(part) > 0).all()
    assert (np.diff(rest) > 0).all()


def test_the_seed_draws_the_part() -> None:
    labels = np.arange(200) % 4
    drawn = [stratified(labels, 0.25, seed)[1].tolist() for seed in (0, 1, 2, 0)]
    assert drawn[0] == drawn[3]
    assert len({tuple(part) for part in drawn}) == 3
    within = {tuple(sample // 4 for sample in drawn[0] if sample % 4 == label) for label in range(4)}
    assert len(within) == 4  # each class draws for itself
    taken = np.bincount(np.concatenate([stratified(labels, 0.25, seed)[1] for seed in range(300)]), minlength=200)
    assert 40 < taken.min() < taken.max() < 115  # 75 each, standard deviation 7.5


def test_classes_of_one_image_stay_whole() -> None:
    rest, part = stratified(np.arange(5), 0.5, seed=0)
    assert rest.tolist() == [0, 1, 2, 3, 4]
    assert part.tolist() == []


# a long tail


def test_classes_shrink_by_one_factor() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], 100))
    kept = long_tailed(labels, 10, seed=0)
    assert np.bincount(labels[kept]).tolist() == [100, 32, 10]  # 100 / sqrt(10) = 31.6
    assert (np.diff(kept) > 0).all()
    assert long_tailed(labels, 10, seed=0).tolist() == kept.tolist()
    assert long_tailed(labels, 10, seed=1).tolist() != kept.tolist()
    assert long_tailed(labels, 1, seed=0).tolist() == list(range(300))
    assert np.bincount(labels[long_tailed(labels, 1e6, seed=0)]).tolist() == [100, 1, 1]
    assert long_tailed(np.zeros(4, np.int64), 10, seed=0).tolist() == [0, 1, 2, 3]


# how one image is stored


def picture(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture that JPEG hardly changes."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 23 + seed), np.cos(columns / 19 - seed), np.sin((rows + columns) / 31 + 2 * seed)]
    return (127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def source(data: bytes) -> source_images.Jpeg:
    size = decode_image.plain_jpeg(data)
    assert size
    return source_images.Jpeg(data, *size)


@pytest.mark.parametrize(
    ("storage", "max_resolution", "size", "mode"),
    [
        ("auto", 512, (64, 30), RAW),
        ("auto", 512, (30, 65), JPEG),
        ("auto", 64, (100, 80), RAW),  # it is shrunk to 64 pixels first
        ("auto", 65, (100, 80), JPEG),
        ("raw", 512, (100, 80), RAW),
        ("jpeg", 512, (5, 3), JPEG),
    ],
)
@pytest.mark.parametrize("given", ["pixels", "jpeg"])
def test_storage(storage: str, max_resolution: int, size: tuple[int, int], mode: int, given: str) -> None:
    pixels = picture(0, *size)
    image = source(jpeg(pixels)) if given == "jpeg" else pixels
    found = encode(image, parameters(storage=storage, max_resolution=max_resolution))
    assert found.mode == mode
    assert max(found.height, found.width) == min(max_resolution, max(size))
    if mode == RAW:
        assert len(found.data) == found.height * found.width * 3
    else:
        assert loader.decodable(found.data, found.height, found.width)


def test_raw_storage_keeps_every_pixel() -> None:
    pixels = noise(1, 20, seed=0)[0]
    assert encode(pixels, parameters()).data == pixels.tobytes()
    data = jpeg(picture(0, 20, 30))
    assert encode(source(data), parameters()).data == decode_image.decode(data, "x").tobytes()


def test_a_jpeg_that_breaks_off_is_stored_as_far_as_it_goes() -> None:
    """fetch takes it where fetch.truncated says so."""
    data = jpeg(picture(0, 90, 120))
    data = data[: len(data) // 2]
    found = encode(source(data), parameters(storage="jpeg"))
    assert loader.decodable(found.data, 90, 120)
    assert not loader.decodable(data, 90, 120)
    difference = decode_image.decode(found.data, "x").astype(int) - picture(0, 90, 120)
    assert np.abs(difference[:30]).mean() < 4
    assert encode(source(data), parameters(storage="raw")).data == decode_image.decode(data, "x").tobytes()


FITTING = {
    "4:4:4": jpeg(picture(0, 90, 120), subsampling=0),
    "4:2:0": jpeg(picture(0, 90, 120), subsampling=2),
    "poor": jpeg(picture(0, 90, 120), quality=5),
    "progressive": jpeg(picture(0, 90, 120), progressive=True),
    "optimised": jpeg(picture(0, 90, 120), optimize=True),
    "upright by its EXIF": jpeg(picture(0, 90, 120), exif=Image.Exif()),
    "longer than its pixels, for a comment": jpeg(picture(0, 90, 120), comment=b"x" * 60_000),
}


@pytest.mark.parametrize("kind", FITTING)
def test_a_jpeg_that_fits_is_kept_byte_for_byte(kind: str) -> None:
    found = encode(source(FITTING[kind]), parameters(max_resolution=120))
    assert (found.mode, found.height, found.width) == (JPEG, 90, 120)
    assert found.data == FITTING[kind]


def test_a_jpeg_that_ffcv_would_warn_of_is_encoded_anew() -> None:
    data = jpeg(picture(0, 90, 120))
    data = data[:-2] + bytes(20) + data[-2:]  # extraneous bytes, over which Pillow says nothing
    assert not loader.decodable(data, 90, 120)
    found = encode(source(data), parameters())
    assert loader.decodable(found.data, 90, 120)
    difference = decode_image.decode(found.data, "x").astype(int) - picture(0, 90, 120)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [((90, 121), (89, 120)), ((400, 200), (120, 60)), ((200, 301), (80, 120)), ((1, 400), (1, 120)), ((50, 120), None)],
)
@pytest.mark.parametrize("given", ["pixels", "jpeg"])
@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_larger_images_are_shrunk(
    size: tuple[int, int], expected: tuple[int, int] | None, given: str, storage: str
) -> None:
    pixels = picture(0, *size)
    image = source(jpeg(pixels)) if given == "jpeg" else pixels
    found = encode(image, parameters(storage=storage, max_resolution=120))
    height, width = expected or size
    assert (found.height, found.width) == (height, width)
    if storage == "raw":
        shown = np.frombuffer(found.data, np.uint8).reshape(height, width, 3)
    else:
        shown = decode_image.decode(found.data, "x")
    reference = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    assert np.abs(shown.astype(int) - reference).mean() < 4


def test_the_quality_is_that_of_images_encoded_anew() -> None:
    pixels = picture(0, 90, 120)
    sizes = [len(encode(pixels, parameters(jpeg_quality=quality)).data) for quality in (10, 50, 90)]
    assert sizes == sorted(set(sizes))
    kept = encode(source(FITTING["4:2:0"]), parameters(jpeg_quality=10))
    assert kept.data == FITTING["4:2:0"]


@pytest.mark.parametrize("size", [0, 16385])
def test_max_resolution_is_bounded_by_what_a_page_can_hold(size: int) -> None:
    with pytest.raises(UserError, match=rf"convert\.max_resolution = {size} .* an integer from 1 to 16384"):
        parameters(max_resolution=size)


# whole data sets


def arrays(count: int, size: int, classes: int, seed: int) -> source_images.ArraySplit:
    return source_images.ArraySplit(noise(count, size, seed), np.arange(count) % classes)


def plain(**more: source_images.Split) -> source_images.Dataset:
    splits = {"train": arrays(30, 8, 3, seed=0), "test": arrays(9, 8, 3, seed=1), **more}
    return source_images.Dataset("made up", ["a", "b", "c"], splits)


def files(folder: Path, contents: dict[str, bytes], labels: list[int]) -> source_images.FileSplit:
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return source_images.FileSplit(
        folder, list(contents), [source_images.digest(data) for data in contents.values()], np.array(labels)
    )


def of_all_kinds(folder: Path) -> source_images.Dataset:
    """Images that are kept, encoded anew, shrunk and stored raw."""
    contents = {
        f"{index}{name}.jpg": data
        for index in range(3)
        for name, data in [
            ("small", jpeg(picture(index, 20, 30))),
            ("fits", jpeg(picture(index, 100, 90), progressive=True)),
            ("large", jpeg(picture(index, 300, 200))),
            ("grey", jpeg(picture(index, 80, 70), mode="L")),
        ]
    }
    split = files(folder, contents, [index % 2 for index in range(12)])
    return source_images.Dataset("folder", ["a", "b"], {"train": split, "test": split})


def test_the_names_of_images_are_kept_where_they_are_files(tmp_path: Path) -> None:
    source = of_all_kinds(tmp_path / "images")
    convert(parameters(), source, tmp_path / "files")
    split = source.splits["train"]
    assert isinstance(split, source_images.FileSplit)
    both = []
    for name in ("train", "val"):
        names, file = converted.load_names(tmp_path / "files", name), converted.open_split(tmp_path / "files", name)
        assert [split.labels[split.paths.index(path)] for path in names] == file.labels.tolist()
        both += names
    assert sorted(both) == sorted(split.paths)
    convert(parameters(), plain(), tmp_path / "arrays")
    with pytest.raises(
        UserError, match=r"train\.names\.jsonl is missing; the convert stage writes it for fetch\.source: "
    ):
        converted.load_names(tmp_path / "arrays", "train")


@pytest.mark.parametrize("text", ["", "[", '"a"\n', "1\n" * 10, "[" * 100_000])
def test_damaged_names_are_one_line(text: str, tmp_path: Path) -> None:
    convert(parameters(), of_all_kinds(tmp_path / "images"), tmp_path / "files")
    (tmp_path / "files/train.names.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"train\.names\.jsonl: damaged; the convert stage writes it$"):
        converted.load_names(tmp_path / "files", "train")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(file: Beton) -> Counter[tuple[int, bytes]]:
    """How often each pair of label and stored bytes occurs."""
    places = zip(file.labels.tolist(), file.starts, file.sizes, strict=True)
    return Counter((label, file.data[start : start + size].tobytes()) for label, start, size in places)


def given_rows(split: source_images.ArraySplit) -> Counter[tuple[int, bytes]]:
    return Counter((label, image.tobytes()) for label, image in zip(split.labels.tolist(), split.images, strict=True))


def test_the_splits_of_a_data_set(tmp_path: Path) -> None:
    given = plain()
    report = convert(parameters(), given, tmp_path / "beton")
    assert sorted(content(tmp_path / "beton")) == ["dataset.json", "test.beton", "train.beton", "val.beton"]
    train, val, test = (converted.open_split(tmp_path / "beton", name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (24, 6, 9)
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    assert rows(train) + rows(val) == given_rows(given.splits["train"])
    assert rows(test) == given_rows(given.splits["test"])
    for name, file in (("train", train), ("val", val), ("test", test)):
        size = (tmp_path / "beton" / f"{name}.beton").stat().st_size
        assert report[name] == {"images": len(file), "raw": len(file), "jpeg": 0, "bytes": size}


def test_samples_keep_their_order(tmp_path: Path) -> None:
    given = plain()
    convert(parameters(seed=5), given, tmp_path / "beton")
    rest, part = stratified(given.splits["train"].labels, 0.2, seed=5)
    for name, samples in (("train", rest), ("val", part)):
        file = converted.open_split(tmp_path / "beton", name)
        whole = read_pixels(file, np.arange(len(file)), np.zeros((len(file), 1, 4), np.int64), 8).numpy()
        assert (whole == given.splits["train"].images[samples]).all()
        assert (file.labels == given.splits["train"].labels[samples]).all()


def test_a_validation_split_of_the_source_is_taken_as_it_is(tmp_path: Path) -> None:
    given = plain(val=arrays(4, 8, 2, seed=2))
    convert(parameters(), given, tmp_path / "beton")
    for name, split in given.splits.items():
        assert rows(converted.open_split(tmp_path / "beton", name)) == given_rows(split)


def test_images_without_labels_are_parted_into_train_val_and_test(tmp_path: Path) -> None:
    split = source_images.ArraySplit(noise(30, 8, seed=3), np.full(30, source_images.UNLABELLED))
    report = convert(parameters(), source_images.Dataset("folder", [], {"train": split}), tmp_path / "beton")
    assert [report[name]["images"] for name in ("train", "val", "test")] == [19, 6, 5]
    files = [converted.open_split(tmp_path / "beton", name) for name in ("train", "val", "test")]
    assert sum(map(rows, files), Counter()) == given_rows(split)
    assert not converted.load_info(tmp_path / "beton").labelled


def without_labels(count: int) -> source_images.Dataset:
    split = source_images.ArraySplit(noise(count, 8, seed=3), np.full(count, source_images.UNLABELLED))
    return source_images.Dataset("folder", [], {"train": split})


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [
        (1, 0.2, "the training split has no class with two images: no validation split can be taken"),
        (2, 0.2, "2 images without labels are too few: train and test take 2, and val 1, so 5"),
        (4, 0.2, "4 images without labels are too few: train and test take 2, and val 1, so 5"),
        (
            10,
            0.9,
            "of 10 images without labels convert.val_fraction = 0.9 leaves 1 for train and 0 for test, which take 2",
        ),
    ],
)
def test_too_few_images_without_labels(count: int, fraction: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        convert(parameters(val_fraction=fraction), without_labels(count), tmp_path / "beton")
    assert message in str(refused.value)


def test_five_images_without_labels_suffice(tmp_path: Path) -> None:
    report = convert(parameters(), without_labels(5), tmp_path / "beton")
    assert [report[name]["images"] for name in ("train", "val", "test")] == [2, 1, 2]


def test_a_long_tail_is_that_of_train(tmp_path: Path) -> None:
    given = plain()
    report = convert(parameters(long_tail=4.0), given, tmp_path / "beton")
    whole = convert(parameters(), given, tmp_path / "whole")
    assert report["test"] == whole["test"]
    counts = [
        np.bincount(converted.open_split(tmp_path / folder, "train").labels).tolist() for folder in ("beton", "whole")
    ]
    assert counts[0][0] == counts[1][0]
    assert counts[0][-1] == pytest.approx(counts[1][-1] / 4, abs=1)
    with pytest.raises(
        UserError, match=r"long_tail = 4\.0 is not allowed; it takes 1, since these images have no labels"
    ):
        convert(parameters(long_tail=4.0), without_labels(30), tmp_path / "beton")


def test_an_unlabelled_split(tmp_path: Path) -> None:
    unlabelled = source_images.ArraySplit(noise(5, 8, seed=3), np.full(5, source_images.UNLABELLED))
    report = convert(parameters(), plain(unlabelled=unlabelled), tmp_path / "beton")
    file = converted.open_split(tmp_path / "beton", "unlabelled")
    assert rows(file) == given_rows(unlabelled)
    assert (file.labels == -1).all()
    assert report["unlabelled"]["images"] == 5


def test_nothing_to_validate_on(tmp_path: Path) -> None:
    alone = source_images.ArraySplit(noise(3, 8, seed=0), np.arange(3))
    with pytest.raises(UserError, match=r"^the training split has no class with two images: no validation split"):
        convert(
            parameters(),
            source_images.Dataset("made up", ["a", "b", "c"], {"train": alone, "test": alone}),
            tmp_path / "x",
        )
    assert os.listdir(tmp_path) == []


def test_all_kinds_of_images(tmp_path: Path) -> None:
    report = convert(parameters(max_resolution=150), of_all_kinds(tmp_path / "images"), tmp_path / "beton")
    test = converted.open_split(tmp_path / "beton", "test")
    assert (report["test"]["raw"], report["test"]["jpeg"]) == (3, 9)
    assert test.modes.tolist() == [RAW, JPEG, JPEG, JPEG] * 3
    assert test.heights.tolist() == [20, 100, 150, 80] * 3
    assert test.widths.tolist() == [30, 90, 100, 70] * 3
    boxes = np.stack([np.zeros(12), np.zeros(12), test.heights, test.widths], axis=1).astype(np.int64)[:, None]
    found = read_pixels(test, np.arange(12), boxes, size=20)[:, 0].numpy().astype(int)
    for index in range(12):
        expected = picture(index // 4, *[(20, 30), (100, 90), (300, 200), (80, 70)][index % 4])
        if index % 4 == 3:
            expected = np.asarray(Image.fromarray(expected).convert("L").convert("RGB"))
        reference = np.asarray(Image.fromarray(expected).resize((20, 20), Image.Resampling.BOX))
        assert np.abs(found[index] - reference).mean() < 4


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_jpegs_that_cannot_be_kept_are_converted_first(tmp_path: Path, storage: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    contents = {
        "turned.jpg": jpeg(picture(0, 90, 120), exif=exif),
        "grey.jpg": jpeg(picture(1, 90, 120), mode="L"),
        "cmyk.jpg": jpeg(picture(2, 90, 120), mode="CMYK"),
    }
    split = files(tmp_path / "images", contents, [0, 0, 0])
    given = source_images.Dataset("folder", ["a"], {"train": split, "val": split, "test": split})
    convert(parameters(storage=storage), given, tmp_path / "beton")
    file = converted.open_split(tmp_path / "beton", "train")
    assert file.heights.tolist() == [120, 90, 90]
    assert file.widths.tolist() == [90, 120, 120]
    for sample, (name, data) in enumerate(contents.items()):
        stored = file.data[file.starts[sample] :][: file.sizes[sample]]
        expected = decode_image.decode(data, name)
        if storage == "raw":
            assert stored.tobytes() == expected.tobytes()
        else:
            assert loader.decodable(stored.tobytes(), *expected.shape[:2])
            difference = decode_image.decode(stored.tobytes(), name).astype(int) - expected
            assert np.abs(difference).mean() < 3


def test_the_bytes_depend_on_images_and_parameters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = of_all_kinds(tmp_path / "images")
    runs = []
    for run, threads in enumerate((1, 1, 2, 8)):
        monkeypatch.setattr(thread_pool, "THREADS", threads)
        report = convert(parameters(max_resolution=150), given, tmp_path / f"beton{run}")
        runs.append((content(tmp_path / f"beton{run}"), report))
    assert runs[0] == runs[1] == runs[2] == runs[3]
    convert(parameters(max_resolution=150, seed=1), given, tmp_path / "other")
    assert content(tmp_path / "other") != runs[0][0]


@pytest.mark.parametrize("before", [False, True])
def test_nothing_half_made_stays_when_an_image_has_changed(tmp_path: Path, before: bool) -> None:
    given = of_all_kinds(tmp_path / "images")
    if before:
        convert(parameters(), given, tmp_path / "beton")
    left = content(tmp_path / "beton") if before else {}
    (tmp_path / "images" / "1large.jpg").write_bytes(b"another one")
    with pytest.raises(UserError, match=r"1large\.jpg: has changed since fetch"):
        convert(parameters(seed=1), given, tmp_path / "beton")
    assert sorted(os.listdir(tmp_path)) == (["beton", "images"] if before else ["images"])
    assert not before or content(tmp_path / "beton") == left


# mean and standard deviation


def test_statistics_are_those_of_all_training_pixels(tmp_path: Path) -> None:
    tinted = noise(30, 8, seed=0) // np.array([1, 2, 5], np.uint8)
    given = source_images.Dataset(
        "made up",
        ["a", "b"],
        {"train": source_images.ArraySplit(tinted, np.arange(30) % 2), "test": arrays(4, 8, 2, seed=1)},
    )
    report = convert(parameters(), given, tmp_path / "beton")
    rest, _ = stratified(given.splits["train"].labels, 0.2, seed=0)
    pixels = tinted[rest].reshape(-1, 3) / 255
    assert list(report["mean"]) == list(report["std"]) == ["red", "green", "blue"]
    np.testing.assert_allclose(list(report["mean"].values()), pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(list(report["std"].values()), pixels.std(axis=0), rtol=1e-12)
    found = converted.load_info(tmp_path / "beton")
    assert found.classes == ["a", "b"]
    assert found.mean == list(report["mean"].values())
    assert found.std == list(report["std"].values())


def test_statistics_are_of_the_pixels_that_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_statistics, "_BATCH", 3)
    given = of_all_kinds(tmp_path / "images")
    given.splits["val"] = given.splits["test"]
    report = convert(parameters(max_resolution=128), given, tmp_path / "beton")
    stored = converted.open_split(tmp_path / "beton", "train")
    assert {RAW, JPEG} == set(stored.modes)
    images = []
    for sample in range(len(stored)):
        data = stored.data[stored.starts[sample] : stored.starts[sample] + stored.sizes[sample]]
        images.append(data if stored.modes[sample] == RAW else decode_image.decode(data.tobytes(), "x"))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(list(report["mean"].values()), pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(list(report["std"].values()), pixels.std(axis=0), rtol=1e-12)


def test_a_channel_of_one_value_can_still_be_divided_by_its_deviation(tmp_path: Path) -> None:
    flat = np.full((4, 8, 8, 3), (0, 51, 255), np.uint8)
    split = source_images.ArraySplit(flat, np.zeros(4, np.int64))
    report = convert(
        parameters(), source_images.Dataset("made up", ["a"], {"train": split, "test": split}), tmp_path / "beton"
    )
    assert list(report["mean"].values()) == [0, 0.2, 1]
    assert list(report["std"].values()) == [1, 1, 1]


def test_of_many_images_a_part_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_statistics, "_MEASURED", 1)
    given = plain()
    reds = {image[..., 0].mean() / 255 for image in given.splits["train"].images}
    found = [convert(parameters(seed=seed), given, tmp_path / "beton")["mean"]["red"] for seed in range(8)]
    assert all(np.isclose(value, list(reds)).sum() == 1 for value in found)
    assert len(set(found)) > 1
