import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from simclr.core import npy_file
from simclr.core.errors import UserError
from simclr.images import source_images


def picture(seed, height=6, width=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, **options)
    return source_images.digest(path.read_bytes())


def arrays(folder, name, count=3):
    images = np.stack([picture(seed) for seed in range(count)])
    return source_images.write_arrays(folder, name, images, [seed % 2 for seed in range(count)])


@pytest.fixture
def array_folder(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    splits = {name: arrays(folder, name) for name in ("train", "test")}
    source_images.write_dataset(folder, source_images.Dataset("made up", ["a", "b"], splits))
    return folder


@pytest.fixture
def file_folder(tmp_path):
    images, folder = tmp_path / "images", tmp_path / "raw"
    folder.mkdir()
    paths = ["train/ä/1.png", "train/ä/2.jpg", 'train/b/"3\n".png']
    digests = [save(images / path, seed) for seed, path in enumerate(paths)]
    splits = {}
    for name in ("train", "test"):
        files = source_images.FileSplit(images, paths, digests, np.array([0, 0, 1]))
        splits[name] = source_images.write_files(folder, name, files)
    source_images.write_dataset(folder, source_images.Dataset("folder", ["ä", "b"], splits))
    return folder


def test_arrays_come_back(array_folder):
    dataset = source_images.open_dataset(array_folder)
    assert (dataset.source, dataset.classes, list(dataset.splits)) == (
        "made up",
        ["a", "b"],
        ["train", "test"],
    )
    split = dataset.splits["train"]
    assert len(split) == 3
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == [0, 1, 0]
    for index in range(3):
        image = split.read(index)
        assert (image.dtype, image.shape) == (np.uint8, (6, 5, 3))
        assert (image == picture(index)).all()
    assert isinstance(split.images, np.memmap)


def test_any_memory_layout_is_written_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(npy_file, "_ROWS", 4)  # more than one, and a short last one
    images = np.stack([picture(seed) for seed in range(10)])
    layouts = {
        "plain": images,
        "fortran": np.asfortranarray(images),
        "planes": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    }
    for name, layout in layouts.items():
        source_images.write_arrays(tmp_path, name, layout, np.zeros(10))
        assert (np.load(tmp_path / f"{name}.images.npy") == images).all()
    assert len({(tmp_path / f"{name}.images.npy").read_bytes() for name in layouts}) == 1
    grey = np.broadcast_to(images[:, :, :, :1], images.shape)
    assert (source_images.write_arrays(tmp_path, "grey", grey, np.zeros(10)).images == grey).all()


def test_files_come_back(file_folder):
    split = source_images.open_dataset(file_folder).splits["train"]
    assert len(split) == 3
    assert split.labels.tolist() == [0, 0, 1]
    assert (split.read(0) == picture(0)).all()
    assert (split.read(2) == picture(2)).all()
    jpeg = split.read(1)
    assert isinstance(jpeg, source_images.Jpeg)
    assert jpeg.data == (split.root / "train/ä/2.jpg").read_bytes()
    assert (jpeg.height, jpeg.width) == (6, 5)


def test_grey_jpeg_is_decoded(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (4, 2), 99).save(buffer, "JPEG")
    (tmp_path / "grey.jpg").write_bytes(buffer.getvalue())
    split = source_images.FileSplit(tmp_path, ["grey.jpg"], [source_images.digest(buffer.getvalue())], np.array([0]))
    assert (split.read(0) == np.full((2, 4, 3), 99)).all()


def test_threads_read_what_one_reads(file_folder):
    split = source_images.open_dataset(file_folder).splits["train"]
    with ThreadPoolExecutor(8) as pool:
        for index, pixels in zip([0, 2] * 50, pool.map(split.read, [0, 2] * 50), strict=True):
            assert (pixels == picture(index)).all()


def test_file_that_changed_or_went_is_named(file_folder):
    split = source_images.open_dataset(file_folder).splits["train"]
    path = split.root / split.paths[0]
    save(path, 99)
    again = r"run `dvc repro` again \(where fetch.folder is a list, after `simclr list`, which makes it anew\)$"
    with pytest.raises(UserError, match=rf"ä/1\.png: has changed since fetch; {again}"):
        split.read(0)
    path.unlink()
    with pytest.raises(UserError, match=rf"ä/1\.png: is gone since fetch; {again}"):
        split.read(0)
    path.mkdir()
    with pytest.raises(UserError, match=r"ä/1\.png: cannot be read \(Is a directory\)$"):
        split.read(0)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: missing or damaged .*dataset\.json.*`dvc repro fetch`"):
        source_images.open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("storage", ["array_folder", "file_folder"])
def test_any_missing_emptied_or_shortened_file_is_noticed(storage, request, tmp_path):
    folder = request.getfixturevalue(storage)
    source_images.open_dataset(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    for name in names:
        for damage in ("missing", "empty", "short"):
            copy = tmp_path / "copy"
            shutil.copytree(folder, copy)
            content = (copy / name).read_bytes()
            (copy / name).unlink()
            if damage != "missing":
                (copy / name).write_bytes(b"" if damage == "empty" else content[:-9])
            with pytest.raises(UserError, match="copy: missing or damaged"):
                source_images.open_dataset(copy)
            shutil.rmtree(copy)


@pytest.mark.parametrize("change", [{"splits": None}, {"splits": []}, {"classes": None}, {"classes": [0, 1]}])
def test_another_type_is_noticed(change, array_folder):
    path = array_folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="missing or damaged"):
        source_images.open_dataset(array_folder)


def test_nesting_without_an_end_is_noticed(array_folder):
    (array_folder / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="missing or damaged"):
        source_images.open_dataset(array_folder)


@pytest.mark.parametrize(
    ("classes", "names"), [(["a", "b"], ["test"]), (["a", "b"], []), ([], ["test"]), ([], ["more"])]
)
def test_a_split_that_is_missing_or_unknown_is_noticed(classes, names, array_folder):
    path = array_folder / "dataset.json"
    content = json.loads(path.read_text())
    splits = dict.fromkeys(names, content["splits"]["test"])
    path.write_text(json.dumps(content | {"classes": classes, "splits": splits}))
    with pytest.raises(
        UserError, match=rf"missing or damaged \(its splits are {names[0] if names else 'none'}\); `dvc"
    ):
        source_images.open_dataset(array_folder)


def test_wrong_count_is_noticed(array_folder):
    path = array_folder / "dataset.json"
    content = json.loads(path.read_text())
    content["splits"]["test"]["count"] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="test has 3 images and 3 labels, not 4"):
        source_images.open_dataset(array_folder)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_of_other_classes_are_noticed(label, array_folder):
    labels = array_folder / "test.labels.npy"
    np.save(labels, [0, 1, label])
    with pytest.raises(UserError, match=r"labels of test are not those of 2 classes.*dvc repro fetch"):
        source_images.open_dataset(array_folder)


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 1), np.int64), np.zeros((3, 2), np.int64), np.zeros(3, np.int32), np.zeros(3)]
)
def test_labels_of_another_type_are_noticed(labels, array_folder):
    np.save(array_folder / "test.labels.npy", labels)
    with pytest.raises(UserError, match=r"labels of test are \w+ of shape .*, not int64 of \(N,\)\); `dvc repro"):
        source_images.open_dataset(array_folder)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 6, 5), np.uint8),
        np.zeros((3, 3, 6, 5), np.uint8),
        np.zeros((3, 6, 5, 4), np.uint8),
        np.zeros((3, 6, 5, 3), np.float32),
    ],
)
def test_images_of_another_type_are_noticed(images, array_folder):
    np.save(array_folder / "test.images.npy", images)
    with pytest.raises(UserError, match=r"images of test are \w+ of shape .*, not uint8 of \(N, H, W, 3\)"):
        source_images.open_dataset(array_folder)


def test_arrays_in_an_archive_are_noticed(array_folder):
    """Which np.load takes too."""
    with (array_folder / "test.labels.npy").open("wb") as file:
        np.savez(file, np.zeros(3, np.int64))
    with pytest.raises(UserError, match="missing or damaged"):
        source_images.open_dataset(array_folder)


def test_dataset_needs_a_train_and_a_test_split(tmp_path):
    with pytest.raises(AssertionError):
        source_images.write_dataset(tmp_path, source_images.Dataset("x", ["a"], {"train": arrays(tmp_path, "train")}))
