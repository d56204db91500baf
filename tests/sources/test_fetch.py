import io
import os
import shutil
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo
from dvc_data.hashfile.build import build
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, STL10, FashionMNIST

from simclr.core import options
from simclr.core.errors import UserError
from simclr.images import source_images
from simclr.images.decode_image import decode
from simclr.images.names import KINDS, NAMED
from simclr.sources import FetchParams, _archives, fetch
from tests.helpers.downloads import SERVE, md5, serve_cifar, serve_fashion_mnist, serve_stl10, serve_svhn, serving, tar
from tests.helpers.logs import logged
from tests.helpers.programs import ROOT

DOWNLOADED = ["cifar10", "cifar100", "fashion_mnist", "stl10", "svhn", "tiny_imagenet"]


def run(source, output, images="unused", **limits):
    parameters = FetchParams(source=source, folder=str(images), **{"max_megapixels": 1, "truncated": "refuse"} | limits)
    return fetch(parameters, output)


def content(output):
    return {path.name: path.read_bytes() for path in output.iterdir()}


# digits


def test_digits(tmp_path):
    run("digits", tmp_path / "raw")
    dataset = source_images.open_dataset(tmp_path / "raw")
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert dataset.classes == list("0123456789")
    assert train.images.shape == (1437, 8, 8, 3)
    assert test.images.shape == (360, 8, 8, 3)
    assert np.abs(np.bincount(train.labels) / 4 - np.bincount(test.labels)).max() <= 1

    original = load_digits()
    expected = {
        (tuple(round(level * 255 / 16) for level in image.ravel()), label)
        for image, label in zip(original.images, original.target, strict=True)
    }
    got = [
        (tuple(image[:, :, 0].ravel().tolist()), label)
        for split in (train, test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(got) == 1797
    assert set(got) == expected
    assert (train.images == train.images[:, :, :, :1]).all()


def test_digits_are_the_same_bytes_every_time(tmp_path):
    run("digits", tmp_path / "a")
    run("digits", tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_what_was_there_is_replaced(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "old.npy").touch()
    (tmp_path / ".raw.part").mkdir()
    (tmp_path / ".raw.part" / "of-a-killed-run").touch()
    run("digits", tmp_path / "raw")
    assert sorted(content(tmp_path / "raw")) == [
        "dataset.json", "test.images.npy", "test.labels.npy", "train.images.npy", "train.labels.npy",
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["raw"]


def test_output_that_cannot_be_made(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match="data/raw: cannot be written"):
        run("digits", tmp_path / "data" / "raw")


# archives


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


def fails(source, tmp_path, message):
    """The fetch ends with one line that starts with the source, and leaves nothing new and nothing less."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "before").touch()
    with pytest.raises(UserError, match=message) as caught:
        run(source, tmp_path / "raw")
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "raw",
        "raw/before",
    ]


def test_every_source_is_tested():
    assert options.names("sources") == sorted(["digits", "folder", *DOWNLOADED])
    assert sorted(SERVE) == DOWNLOADED


@pytest.mark.parametrize("source", DOWNLOADED)
def test_download(source, server, monkeypatch, tmp_path):
    _, classes, splits = SERVE[source](server, monkeypatch)
    run(source, tmp_path / "raw")
    dataset = source_images.open_dataset(tmp_path / "raw")
    assert (dataset.source, dataset.classes) == (source, classes)
    assert dataset.splits.keys() == splits.keys()
    for name, (images, labels) in splits.items():
        assert (dataset.splits[name].images == images).all()
        assert dataset.splits[name].labels.tolist() == labels.tolist()
    files = {f"{name}.{part}.npy" for name in splits for part in ("images", "labels")}
    assert content(tmp_path / "raw").keys() == files | {"dataset.json"}  # no archive stays
    assert os.listdir(tmp_path) == ["raw"]
    run(source, tmp_path / "again")
    assert content(tmp_path / "raw") == content(tmp_path / "again")


@pytest.mark.parametrize("source", DOWNLOADED)
def test_wrong_checksum(source, server, monkeypatch, tmp_path):
    url, _, _ = SERVE[source](server, monkeypatch)
    server.files[url.removeprefix(server.url)] += b"!"
    fails(source, tmp_path, f"{url}: what arrived is incomplete or changed")


@pytest.mark.parametrize("source", DOWNLOADED)
def test_interrupted_download(source, server, monkeypatch, tmp_path):
    url, _, _ = SERVE[source](server, monkeypatch)
    server.missing = 10
    fails(source, tmp_path, f"{url}: ")


@pytest.mark.parametrize("source", DOWNLOADED)
def test_address_that_is_gone(source, server, monkeypatch, tmp_path):
    url, _, _ = SERVE[source](server, monkeypatch)
    server.files.clear()
    fails(source, tmp_path, rf"{url}: cannot be downloaded \(HTTP Error 404")


@pytest.mark.parametrize("source", DOWNLOADED)
def test_host_that_does_not_answer(source, server, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        server.url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    url, _, _ = SERVE[source](server, monkeypatch)
    fails(source, tmp_path, rf"{url}: cannot be downloaded \(.*Connection refused")


def test_host_that_stalls(server, monkeypatch, tmp_path):
    monkeypatch.setattr(_archives, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # its backlog takes the connection
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        url, _, _ = serve_svhn(server, monkeypatch)
        fails("svhn", tmp_path, rf"{url}: cannot be downloaded \(.*timed out")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("damage", [lambda data: b"no archive", lambda data: data[: len(data) // 2]])
def test_damaged_archive_with_the_right_checksum(damage, server, monkeypatch, tmp_path):
    serve_stl10(server, monkeypatch)
    server.files[STL10.filename] = damage(server.files[STL10.filename])
    monkeypatch.setattr(STL10, "tgz_md5", md5(server.files[STL10.filename]))
    fails("stl10", tmp_path, f"{STL10.filename}: the archive is damaged")


@pytest.mark.parametrize("damage", [lambda data: b"no archive", lambda data: data[:-8] + bytes(8)])
def test_damaged_compression_with_the_right_checksum(damage, server, monkeypatch, tmp_path):
    serve_fashion_mnist(server, monkeypatch)
    [(name, _), *others] = FashionMNIST.resources
    server.files[name] = damage(server.files[name])
    monkeypatch.setattr(FashionMNIST, "resources", [(name, md5(server.files[name])), *others])
    fails("fashion_mnist", tmp_path, f"{server.url}: its content is damaged")


def test_archive_that_lacks_a_file(server, monkeypatch, tmp_path):
    serve_cifar(CIFAR10, server, monkeypatch)
    server.files[CIFAR10.filename] = tar({"cifar-10-batches-py/data_batch_1": b"x"})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(server.files[CIFAR10.filename]))
    fails("cifar10", tmp_path, f"{CIFAR10.url}: its content is damaged")


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/tmp/escaped-from-the-archive"])
def test_archive_member_outside(name, server, monkeypatch, tmp_path):
    serve_cifar(CIFAR10, server, monkeypatch)
    server.files[CIFAR10.filename] = tar({name: b"x"})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(server.files[CIFAR10.filename]))
    fails("cifar10", tmp_path, f"its member {name} is unsafe")
    assert not os.path.exists("/tmp/escaped-from-the-archive")


def test_archive_member_through_a_link(server, monkeypatch, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("link/escaped"))
    serve_cifar(CIFAR10, server, monkeypatch)
    server.files[CIFAR10.filename] = buffer.getvalue()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    fails("cifar10", tmp_path, "its member link is unsafe")


# folder


def save(path, value=0, mode="RGB", size=(6, 5), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for split, names in {"train": ["cat", "dog", "ant"], "test": ["cat", "dog"]}.items():
        for name in names:
            save(root / split / name / "1.png", "red")
    save(root / "train" / "cat" / "0.jpg", "blue")
    return root


def listed(split):
    return list(zip(split.paths, split.labels.tolist(), strict=True))


def test_folder(images, tmp_path):
    run("folder", tmp_path / "raw", images)
    dataset = source_images.open_dataset(tmp_path / "raw")
    assert dataset.classes == ["ant", "cat", "dog"]
    assert dataset.splits.keys() == {"train", "test"}
    assert listed(dataset.splits["train"]) == [
        ("train/ant/1.png", 0), ("train/cat/0.jpg", 1), ("train/cat/1.png", 1), ("train/dog/1.png", 2),
    ]  # fmt: skip
    assert listed(dataset.splits["test"]) == [("test/cat/1.png", 1), ("test/dog/1.png", 2)]
    assert (dataset.splits["test"].read(0) == [255, 0, 0]).all()
    assert isinstance(dataset.splits["train"].read(1), source_images.Jpeg)


def test_val_is_the_test_split_where_there_is_no_other(images, tmp_path):
    (images / "test").rename(images / "val")
    splits = run("folder", tmp_path / "raw", images).splits
    assert splits.keys() == {"train", "test"}
    assert listed(splits["test"]) == [("val/cat/1.png", 1), ("val/dog/1.png", 2)]


def test_val_beside_test_is_the_validation_split(images, tmp_path):
    save(images / "val" / "dog" / "9.png")
    splits = run("folder", tmp_path / "raw", images).splits
    assert splits.keys() == {"train", "val", "test"}
    assert listed(splits["val"]) == [("val/dog/9.png", 2)]


def test_unlabelled_images_may_be_nested(images, tmp_path):
    for path in ("b.png", "x/a.png", "x/y/c.png"):
        save(images / "unlabelled" / path)
    splits = run("folder", tmp_path / "raw", images).splits
    assert listed(splits["unlabelled"]) == [
        ("unlabelled/b.png", -1), ("unlabelled/x/a.png", -1), ("unlabelled/x/y/c.png", -1),
    ]  # fmt: skip


def test_every_kind_of_image(images, tmp_path):
    here = images / "train" / "cat"
    save(here / "bits.png", 1, "1")
    save(here / "cmyk.jpg", (0, 0, 0, 0), "CMYK")
    save(here / "deep.png", 65535, "I;16")
    save(here / "grey.PNG", 255, "L")
    save(here / "palette.gif", 0, "P")
    save(here / "see-through.png", (0, 0, 0, 0), "RGBA")
    split = run("folder", tmp_path / "raw", images).splits["train"]
    white = {"bits.png", "cmyk.jpg", "deep.png", "grey.PNG", "see-through.png"}
    assert white < {os.path.basename(path) for path in split.paths}
    for index, path in enumerate(split.paths):
        if os.path.basename(path) in white:
            pixels = split.read(index)
            assert pixels.shape == (5, 6, 3)
            assert (pixels == 255).all()


def test_what_is_no_image_by_name_is_left_out_and_named(images, tmp_path, caplog):
    for name in (".DS_Store", ".gitkeep", ".hidden.png", "a.heic", "b.HEIC", "c.heic", "scan", "x\ny.dcm"):
        (images / "train" / "cat" / name).write_bytes(b"no image")
    (images / "train" / "README.md").touch()
    (images / "README.md").touch()
    save(images / "train" / ".thumbnails" / "1.png")
    save(images / "train" / "cat" / ".thumbnails" / "1.png")
    caplog.set_level("INFO", "simclr")
    dataset = run("folder", tmp_path / "raw", images)
    assert dataset.classes == ["ant", "cat", "dog"]
    assert len(dataset.splits["train"]) == 4
    assert caplog.messages == [
        "left out, no images by their suffix: 3 .heic (train/cat/a.heic, train/cat/b.HEIC, ...), "
        "1 .dcm (train/cat/x\\ny.dcm), 1 .md (train/README.md), 1 without a suffix (train/cat/scan)"
    ]


def test_nothing_is_said_where_nothing_is_left_out(images, tmp_path, caplog):
    caplog.set_level("INFO", "simclr")
    run("folder", tmp_path / "raw", images)
    run("digits", tmp_path / "raw")
    assert caplog.messages == []


def test_kinds_beyond_some_are_counted(images, tmp_path, caplog):
    for index in range(KINDS + 2):
        (images / "test" / "dog" / f"x.{index}").touch()
    caplog.set_level("INFO", "simclr")
    run("folder", tmp_path / "raw", images)
    assert caplog.messages[0].endswith("1 .4 (test/dog/x.4) and 2 more kinds")


def test_folders_without_files_are_no_classes(images, tmp_path, caplog):
    (images / "train" / "bee" / "young").mkdir(parents=True)
    (images / "train" / "bee" / ".gitkeep").touch()
    (images / "test" / "__MACOSX").mkdir()
    save(images / "test" / "__MACOSX" / "._1.png")  # macOS puts such files into archives
    caplog.set_level("INFO", "simclr")
    dataset = run("folder", tmp_path / "raw", images)
    assert dataset.classes == ["ant", "cat", "dog"]
    assert caplog.messages == ["left out, empty class folders: train/bee, test/__MACOSX"]


def test_what_lies_beside_the_splits_is_named(images, tmp_path, caplog):
    for path in ("validation/cat/1.png", "Test/2.png", "unlabelled/3.png", "4.png"):
        save(images / path)
    (images / "labels.csv").touch()
    caplog.set_level("INFO", "simclr")
    run("folder", tmp_path / "raw", images)
    assert caplog.messages == ["left out, in none of train, test, val, unlabelled: 4.png, Test/, validation/"]


def test_classes_are_in_natural_order(images, tmp_path):
    for name in ("10", "2", "007", "7", "b10a", "b9z", "B", "é"):
        save(images / "train" / name / "1.png")
    dataset = run("folder", tmp_path / "raw", images)
    assert dataset.classes == ["2", "007", "7", "10", "B", "ant", "b9z", "b10a", "cat", "dog", "é"]
    assert ("train/10/1.png", 3) in listed(dataset.splits["train"])


def test_two_spellings_of_a_class_are_one(images, tmp_path):
    save(images / "train" / "cafe\u0301" / "1.png")
    save(images / "test" / "caf\u00e9" / "1.png")
    dataset = run("folder", tmp_path / "raw", images)
    assert dataset.classes == ["ant", "caf\u00e9", "cat", "dog"]
    assert ("train/cafe\u0301/1.png", 1) in listed(dataset.splits["train"])
    assert ("test/caf\u00e9/1.png", 1) in listed(dataset.splits["test"])


def test_linked_files_are_read(images, tmp_path):
    save(tmp_path / "elsewhere.png", "red")
    (images / "train" / "cat" / "2.png").symlink_to(tmp_path / "elsewhere.png")
    split = run("folder", tmp_path / "raw", images).splits["train"]
    assert (split.read(split.paths.index("train/cat/2.png")) == [255, 0, 0]).all()


def test_the_folder_itself_may_be_a_link(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    assert len(run("folder", tmp_path / "raw", tmp_path / "link").splits["train"]) == 4


def test_the_index_follows_the_content_alone(images, tmp_path):
    run("folder", tmp_path / "before", images)
    path = images / "train" / "cat" / "1.png"
    os.utime(path, (0, 0))
    run("folder", tmp_path / "touched", images)
    assert content(tmp_path / "touched") == content(tmp_path / "before")
    save(path, "green")
    run("folder", tmp_path / "changed", images)
    changed = content(tmp_path / "changed")
    assert {name for name, data in content(tmp_path / "before").items() if changed[name] != data} == {
        "train.files.jsonl"
    }


def refuses(images, tmp_path, message):
    with pytest.raises(UserError, match=message) as caught:
        run("folder", tmp_path / "raw", images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    return str(caught.value)


def test_all_unreadable_files_are_named(images, tmp_path):
    here = images / "train" / "cat"
    save(here / "cut.jpg", "red", size=(200, 200))
    (here / "cut.jpg").write_bytes((here / "cut.jpg").read_bytes()[:-300])
    (here / "empty.png").touch()
    (here / "text.jpg").write_text("I am not a picture")
    (here / "link.png").symlink_to("nowhere.png")
    os.mkfifo(here / "pipe.png")
    message = refuses(images, tmp_path, "5 of 11 images are unreadable: ")
    for name, reason in {
        "cut.jpg": "not a readable image (image file is truncated",
        "empty.png": "the file is empty",
        "text.jpg": "not an image in a format that Pillow knows",
        "link.png": "cannot be read (No such file or directory)",
        "pipe.png": "not a regular file",
    }.items():
        assert f"{here / name}: {reason}" in message
    assert "more" not in message


def test_no_more_than_some_unreadable_files_are_named(images, tmp_path):
    for index in range(NAMED + 3):
        (images / "train" / "cat" / f"bad{index:02}.png").touch()
    message = refuses(images, tmp_path, "23 of 29 images are unreadable: .*; and 3 more$")
    assert message.count("the file is empty") == NAMED


def test_missing_root(images, tmp_path):
    refuses(images / "gone", tmp_path, r"gone: no such folder, nor a list of files$")


def test_a_folder_without_splits_holds_images_without_labels(images, tmp_path):
    """At any depth; the names of folders are no classes."""
    images = images.rename(images.with_name("pictures"))
    (images / "train").rename(images / "2023")
    (images / "test").rename(images / "2024")
    save(images / "first.png")
    found = run("folder", tmp_path / "raw", images)
    assert (found.classes, list(found.splits)) == ([], ["train"])
    split = found.splits["train"]
    assert split.paths == sorted(str(path.relative_to(images)) for path in images.rglob("*.*"))
    assert len(split) >= 5
    assert set(split.labels) == {-1}
    opened = source_images.open_dataset(tmp_path / "raw")
    assert (opened.classes, opened.splits["train"].paths) == ([], split.paths)


def test_the_folder_of_a_split_is_said_to_have_labels_in_the_one_above(images, tmp_path):
    messages: list[str] = []
    with logged(messages):
        run("folder", tmp_path / "raw", images / "train")
    assert [message.partition("labels; ")[2] for message in messages] == [f"with fetch.folder: {images} they have some"]


def test_a_folder_without_any_images(tmp_path):
    (tmp_path / "images" / "2024").mkdir(parents=True)
    (tmp_path / "images" / "2024" / "notes.txt").touch()
    has = r"but 1 \.txt \(2024/notes\.txt\)"
    refuses(
        tmp_path / "images", tmp_path, rf"holds neither train/<class>/\* and .* nor images without labels, .*, {has}"
    )


def test_missing_test(images, tmp_path):
    (images / "test").rename(images / "exam")
    refuses(images, tmp_path, r"images/test: no such folder; .* test/<class>/\* \(or val/\)")


def test_no_classes(images, tmp_path):
    (images / "test").rename(images / "exam")
    (images / "test").mkdir()
    refuses(images, tmp_path, r"images/test: holds no class folders with images; images belong in .*/test/<class>/")


def test_image_outside_a_class(images, tmp_path):
    save(images / "test" / "stray.png")
    refuses(images, tmp_path, r"images/test: stray\.png lies in no class folder")


def test_a_class_of_files_that_are_no_images(images, tmp_path):
    (images / "train" / "bee").mkdir()
    (images / "train" / "bee" / "1.heic").touch()
    refuses(images, tmp_path, r"images/train/bee: holds no image files, but 1 \.heic \(train/bee/1\.heic\)")


def test_empty_unlabelled(images, tmp_path):
    (images / "unlabelled").mkdir()
    refuses(images, tmp_path, "images/unlabelled: holds no image files$")
    (images / "unlabelled" / "1.heic").touch()
    refuses(images, tmp_path, r"images/unlabelled: holds no image files, but 1 \.heic \(unlabelled/1\.heic\)$")


def test_class_that_train_lacks(images, tmp_path):
    save(images / "test" / "zebu" / "1.png")
    save(images / "test" / "yak" / "1.png")
    refuses(images, tmp_path, "images/test: has classes that train has not: yak, zebu")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat ", "'cat ' (train has 'cat')"),
        ("c\u0430t", r"'c\u0430t' (train has 'cat')"),
        ("yak", "yak"),
        ("ねこ", "ねこ"),
    ],
)
def test_a_class_that_looks_like_one_of_train_is_spelled_out(name, shown, images, tmp_path):
    save(images / "test" / name / "1.png")
    assert refuses(images, tmp_path, "has classes that train has not: ").endswith(f"train has not: {shown}")


def test_no_more_than_some_unknown_classes_are_named(images, tmp_path):
    for index in range(NAMED + 3):
        save(images / "test" / f"z{index:02}" / "1.png")
    refuses(images, tmp_path, r"z18, z19 and 3 more$")


def test_two_spellings_of_a_class_beside_each_other(images, tmp_path):
    for name in ("cafe\u0301", "caf\u00e9"):
        save(images / "train" / name / "1.png")
    refuses(images, tmp_path, r"images/train: two spellings of the class café, 'cafe\\u0301' and 'caf\\xe9'")


@pytest.mark.parametrize("path", ["train", "train/cat", "train/cat/more", "unlabelled"])
def test_linked_folders(path, images, tmp_path):
    real = tmp_path / "images" / ".elsewhere"
    (images / path).rename(real) if (images / path).exists() else save(real / "1.png")
    (images / path).symlink_to(real)
    refuses(images, tmp_path, f"images/{path}: a linked folder, behind which DVC sees no change; name the real one ")


@pytest.mark.parametrize("path", ["train/fox", "train/cat/fox.png"])
def test_a_link_to_itself_is_named_and_no_class_is_lost(path: str, images: Path, tmp_path: Path) -> None:
    (images / path).symlink_to(Path(path).name)
    refuses(images, tmp_path, rf"images/{path}: cannot be read \(Too many levels of symbolic links\)")


@pytest.mark.parametrize("path", [b"train/caf\xe9", b"train/cat/caf\xe9.png", b"test/cat/caf\xe9"])
def test_names_that_are_not_utf_8(path, images, tmp_path):
    save(images / (os.fsdecode(path) + ("" if path.endswith(b".png") else "/1.png")))
    refuses(
        images,
        tmp_path,
        rf"images/{path.decode(errors='backslashreplace')}: the name is not UTF-8".replace("\\", r"\\"),
    )


def test_a_copy_of_the_repository_without_the_images(images, tmp_path, monkeypatch):
    """As `dvc exp run --temp` makes it."""
    copy = tmp_path / ".dvc" / "tmp" / "copy"
    (copy / "images").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match=rf"^images: holds neither .*: set fetch\.folder={images}$"):
        run("folder", copy / "raw", "images")
    assert len(run("folder", copy / "raw", images).splits["train"]) == 4


def test_images_above_the_limit(images, tmp_path):
    save(images / "train" / "cat" / "large.png", size=(2000, 501))
    refuses(images, tmp_path, r"large\.png: image size \(1002000 pixels\) is above fetch\.max_megapixels$")
    split = run("folder", tmp_path / "raw", images, max_megapixels=2).splits["train"]
    assert split.read(split.paths.index("train/cat/large.png")).shape == (501, 2000, 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp"])
def test_images_that_break_off(kind, images, tmp_path):
    path = images / "train" / "cat" / f"cut.{kind}"
    Image.effect_noise((90, 90), 50).convert("RGB").save(path)
    os.truncate(path, path.stat().st_size // 2)
    refuses(images, tmp_path, r"cut\.\w+: not a readable image \(.*; fetch\.truncated: keep takes what there is\)$")
    split = run("folder", tmp_path / "raw", images, truncated="keep").splits["train"]
    found = split.read(split.paths.index(f"train/cat/cut.{kind}"))
    pixels = decode(found.data, "x") if isinstance(found, source_images.Jpeg) else found
    assert pixels.shape == (90, 90, 3)
    ends = sorted([pixels[:40].std(), pixels[-40:].std()])  # a BMP breaks off at the top
    assert ends[0] < 1
    assert ends[1] > 40


def test_what_is_refused_in_the_end_is_no_image_at_all(images, tmp_path):
    (images / "train" / "cat" / "text.jpg").write_text("I am not a picture")
    (images / "train" / "cat" / "empty.jpg").touch()
    with pytest.raises(UserError, match="2 of 8 images are unreadable"):
        run("folder", tmp_path / "raw", images, truncated="keep")


# what DVC hashes

ODD = [
    "runs", "checkpoints", "data", "models", "src", "__pycache__", "x.pyc", "node_modules", "train", "x.dvc", ".venv",
    ".git", ".hg", "a\\b", 'q"x', "*", "[ab]", "!no", "#no", " lead", "trail ", "ねこ", "cafe\u0301", "-rf", "~",
]  # fmt: skip


@pytest.fixture
def repository(images, monkeypatch):
    """A DVC repository with the shipped .dvcignore and the folder `images`, as working directory."""
    monkeypatch.chdir(images.parent)
    (images / "train" / "cat" / "0.jpg").unlink()
    shutil.copy(ROOT / ".dvcignore", ".")
    with Repo.init(".", no_scm=True) as repository:
        yield repository


def hashes(repository, top):
    """The files below `top` that DVC hashes, each with its MD5."""
    repository = Repo(repository.root_dir)  # which has read .dvcignore anew
    path, ignore = str(Path(top).absolute()), repository.dvcignore
    _, _, tree = build(repository.cache.local, path, ignore.fs, "md5", ignore=ignore, dry_run=True)
    return {"/".join(key): found.value for key, _, found in tree}


def read(dataset):
    return {path for split in dataset.splits.values() for path in split.paths}


def visible_images(top):
    paths = {path.relative_to(top) for path in Path(top).rglob("*.png")}
    return {str(path) for path in paths if not any(part.startswith(".") for part in path.parts)}


def test_dvc_notices_a_change_behind_a_linked_folder(repository):
    Path("images").rename("elsewhere")
    Path("images").symlink_to("elsewhere")
    before = hashes(repository, "images")
    save(Path("elsewhere/train/cat/1.png"), "green")
    after = hashes(repository, "images")
    assert {path for path, digest in after.items() if before.get(path) != digest} == {"train/cat/1.png"}


def test_fetch_reads_what_dvc_hashes_whatever_the_names(repository):
    for name in ODD:
        for split in ("train", "test"):
            for path in (name, f"{name}/{name}", f"cat/{name}"):
                save(Path("images") / split / path / "1.png")
    for name in ("runs.png", "x.pyc.png", ".1.png", "\n.png", "core"):
        save(Path("images/train/cat") / name, format="png")
    found = read(run("folder", Path("data/raw"), "images"))
    assert found == visible_images("images")
    assert hashes(repository, "images").keys() & found == found
    assert len(found) > 3 * len(ODD)


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("*.tif", "images/train/cat/1.tif", "images/train/cat/1.tif"),
        ("blurry/", "images/train/cat/blurry/1.png", "images/train/cat/blurry"),
        ("/images/test/dog", "images/test/dog/9.png", "images/test/dog"),
        ("images", "images/test/dog/9.png", "images/train"),
    ],
)
def test_what_a_line_of_dvcignore_hides(pattern, path, named, repository):
    save(Path(path))
    with Path(".dvcignore").open("a") as file:
        file.write(f"{pattern}\n")
    assert path.removeprefix("images/") not in hashes(repository, "images")
    with pytest.raises(UserError, match=f"^{named}: DVC ignores it, by a line of "):
        run("folder", Path("data/raw"), "images")


@pytest.mark.parametrize("path", ["images", "images/train", "images/train/cat", "images/test/dog/more"])
def test_a_repository_within(path, repository):
    (Path(path) / ".dvc").mkdir(parents=True)
    if path.endswith("more"):
        save(Path(path) / "1.png")
    assert hashes(repository, "images").keys() < visible_images("images")
    with pytest.raises(UserError, match=rf"^{path}\S*: DVC ignores it, by a line of "):
        run("folder", Path("data/raw"), "images")


@pytest.mark.parametrize("path", ["runs/mine", "checkpoints/mine", ".venv/mine"])
def test_a_folder_where_dvc_does_not_look(path, repository):
    shutil.copytree("images", path)
    with pytest.raises(UserError, match=f"^{path}/train: DVC ignores it"):
        run("folder", Path("data/raw"), path)


def test_elsewhere_dvc_ignores_nothing(repository, images, tmp_path_factory):
    top = tmp_path_factory.mktemp("elsewhere") / "runs"
    shutil.copytree(images, top)
    (top / ".dvc").mkdir()
    (top / "train" / "cat" / ".dvc").mkdir()
    save(top / "train" / "cat" / "runs" / "1.png")
    found = read(run("folder", Path("data/raw"), top))
    assert found == hashes(repository, top).keys() == visible_images(top)


def test_a_linked_file_that_changes_is_noticed_by_dvc(repository, images, tmp_path_factory):
    """Behind linked folders, which fetch refuses, it is not."""
    there = tmp_path_factory.mktemp("elsewhere")
    save(there / "1.png", "red")
    Path("images/train/cat/linked.png").symlink_to(there / "1.png")
    Path("images/train/linked").symlink_to(there)
    before = hashes(repository, "images")
    assert "train/linked/1.png" not in before
    save(there / "1.png", "green")
    after = hashes(repository, "images")
    assert {path for path in before if before[path] != after[path]} == {"train/cat/linked.png"}


def test_byte_code_of_the_stages_is_not_hashed(repository):
    for path in ("src/simclr/sources/a.py", "src/simclr/sources/__pycache__/a.pyc", "src/simclr/b.pyc"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert hashes(repository, "src").keys() == {"simclr/sources/a.py"}
