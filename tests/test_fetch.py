import io
import os
import socket
import tarfile

import numpy as np
import pytest
from downloads import SERVE, md5, serve_cifar, serve_fashion_mnist, serve_stl10, serve_svhn, serving, tar
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, STL10, FashionMNIST

from simclr import raw
from simclr.failure import UserError
from simclr.fetch import FetchParams, archives, fetch, folder

DOWNLOADED = ["cifar10", "cifar100", "stl10", "svhn", "fashion_mnist"]


def run(source, output, images="unused"):
    return fetch(FetchParams(source=source, folder=str(images)), output)


def content(output):
    return {path.name: path.read_bytes() for path in output.iterdir()}


# digits


def test_digits(tmp_path):
    run("digits", tmp_path / "raw")
    dataset = raw.open_dataset(tmp_path / "raw")
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
    assert list(archives.SOURCES) == list(SERVE) == DOWNLOADED


@pytest.mark.parametrize("source", DOWNLOADED)
def test_download(source, server, monkeypatch, tmp_path):
    _, classes, splits = SERVE[source](server, monkeypatch)
    run(source, tmp_path / "raw")
    dataset = raw.open_dataset(tmp_path / "raw")
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
    monkeypatch.setattr(archives, "TIMEOUT", 0.2)
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
    dataset = raw.open_dataset(tmp_path / "raw")
    assert dataset.classes == ["ant", "cat", "dog"]
    assert dataset.splits.keys() == {"train", "test"}
    assert listed(dataset.splits["train"]) == [
        ("train/ant/1.png", 0), ("train/cat/0.jpg", 1), ("train/cat/1.png", 1), ("train/dog/1.png", 2),
    ]  # fmt: skip
    assert listed(dataset.splits["test"]) == [("test/cat/1.png", 1), ("test/dog/1.png", 2)]
    assert (dataset.splits["test"].read(0) == [255, 0, 0]).all()
    assert isinstance(dataset.splits["train"].read(1), raw.Jpeg)


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


def test_what_is_no_image_by_name_is_left_out(images, tmp_path):
    for name in (".DS_Store", ".gitkeep", "README.md", "Thumbs.db", ".hidden.png", "notes"):
        (images / "train" / "cat" / name).write_bytes(b"no image")
    (images / "train" / "README.md").touch()
    save(images / "train" / ".thumbnails" / "1.png")
    save(images / "train" / "cat" / ".thumbnails" / "1.png")
    dataset = run("folder", tmp_path / "raw", images)
    assert dataset.classes == ["ant", "cat", "dog"]
    assert len(dataset.splits["train"]) == 4


def test_links_are_followed(images, tmp_path):
    (images / "train" / "dog").rename(tmp_path / "elsewhere")
    (images / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    (images / "train" / "cat" / "2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    split = run("folder", tmp_path / "raw", images).splits["train"]
    assert ("train/dog/1.png", 2) in listed(split)
    assert (split.read(split.paths.index("train/cat/2.png")) == [255, 0, 0]).all()


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
    for index in range(folder.NAMED + 3):
        (images / "train" / "cat" / f"bad{index:02}.png").touch()
    message = refuses(images, tmp_path, "23 of 29 images are unreadable: .*; and 3 more$")
    assert message.count("the file is empty") == folder.NAMED


def test_missing_root(images, tmp_path):
    refuses(images / "gone", tmp_path, r"gone/train: no such folder; .*gone must hold train/<class>")


def test_missing_test(images, tmp_path):
    (images / "test").rename(images / "exam")
    refuses(images, tmp_path, r"images/test: no such folder; .* test/<class>/\* \(or val/\)")


def test_no_classes(images, tmp_path):
    (images / "test").rename(images / "exam")
    (images / "test").mkdir()
    refuses(images, tmp_path, r"images/test: holds no class folders; images belong in .*/test/<class>/")


def test_image_outside_a_class(images, tmp_path):
    save(images / "test" / "stray.png")
    refuses(images, tmp_path, r"images/test: stray\.png lies in no class folder")


def test_empty_class(images, tmp_path):
    (images / "train" / "bee").mkdir()
    (images / "train" / "bee" / ".gitkeep").touch()
    refuses(images, tmp_path, "images/train/bee: holds no image files")


def test_empty_unlabelled(images, tmp_path):
    (images / "unlabelled").mkdir()
    refuses(images, tmp_path, "images/unlabelled: holds no image files")


def test_class_that_train_lacks(images, tmp_path):
    save(images / "test" / "zebu" / "1.png")
    save(images / "test" / "yak" / "1.png")
    refuses(images, tmp_path, "images/test: has classes that train has not: yak, zebu")


def test_link_in_a_circle(images, tmp_path):
    (images / "train" / "cat" / "all").symlink_to(images / "train")
    refuses(images, tmp_path, "train/cat/all: a link to a folder that it lies in")
