"""Bad input on the way from the source of the images to the encoder: the stage that meets it ends in one line, leaves
everything as it was, and once the input is mended its next run is right.
"""

import hashlib
import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from simclr.conversion.convert import ConvertParams, convert
from simclr.core import params
from simclr.data import beton
from simclr.data.upstream import CURRENT_VERSION
from simclr.images import source_images
from tests.helpers.betons import noise, stored
from tests.helpers.downloads import Server, cifar10_at, serve_cifar, serving, tar
from tests.helpers.programs import Running, change, expected, made, ready, run, start

# fetch: archives


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """It has the small CIFAR-10."""
    with serving() as server:
        serve_cifar(CIFAR10, server, monkeypatch)
        yield server


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed fetch makes of it."""
    folder = tmp_path_factory.mktemp("cifar10")
    change(folder, fetch__source="cifar10")
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        serve_cifar(CIFAR10, server, patch)
        assert run("fetch", folder, partial(cifar10_at, server.url)).code == 0
    return made(folder)


DOWNLOADS = {
    "wrong checksum": "what arrived is incomplete or changed",
    "broken connection": "what arrived is incomplete or changed|cannot be downloaded",
    "unreachable host": r"cannot be downloaded \(.*Connection refused",
    "path out of the archive": r"its member data/\.\./\.\./\.\./\.\./escaped is unsafe to unpack",
}


@pytest.mark.parametrize("fault", DOWNLOADS)
def test_a_download(fault: str, server: Server, cifar10: dict[str, bytes], tmp_path: Path) -> None:
    change(tmp_path, fetch__source="cifar10")
    good, url, md5 = server.files[CIFAR10.filename], server.url, None
    match fault:
        case "wrong checksum":
            server.files[CIFAR10.filename] = good[:-1] + b"!"
        case "broken connection":
            server.missing = 1000
        case "unreachable host":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        case "path out of the archive":
            bad = server.files[CIFAR10.filename] = tar({"data/../../../../escaped": b"x"})
            md5 = hashlib.md5(bad).hexdigest()
    error = run("fetch", tmp_path, partial(cifar10_at, url, md5)).error
    assert re.match(rf"cifar10: .*({DOWNLOADS[fault]})", error)
    assert not list(tmp_path.rglob("escaped"))
    assert made(tmp_path) == {}

    server.files[CIFAR10.filename], server.missing = good, 0
    assert run("fetch", tmp_path, partial(cifar10_at, server.url)).code == 0
    assert made(tmp_path) == cifar10


def test_a_download_that_is_killed(server: Server, cifar10: dict[str, bytes], tmp_path: Path) -> None:
    change(tmp_path, fetch__source="cifar10")
    server.missing = len(server.files[CIFAR10.filename]) // 2
    server.released.clear()
    fetch = start("fetch", tmp_path, partial(cifar10_at, server.url))
    assert server.sent.wait(60)
    fetch.kill()
    assert fetch.end().code == -9
    assert not (tmp_path / "data/raw").exists()
    server.missing = 0
    server.released.set()
    assert run("fetch", tmp_path, partial(cifar10_at, server.url)).code == 0
    assert made(tmp_path) == cifar10


# fetch: a folder


def pictures(folder: Path) -> Path:
    """A data set of two; returns the folder of one of them."""
    for seed, split in enumerate(("train", "test")):
        (folder / "images" / split / "cat").mkdir(parents=True)
        Image.fromarray(noise(1, 20, seed)[0]).save(folder / "images" / split / "cat" / "good.png")
    change(folder, fetch__source="folder")
    return folder / "images/train/cat"


def test_unreadable_images_in_a_folder(tmp_path: Path) -> None:
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "folder"
    pictures(undisturbed)
    assert run("fetch", undisturbed).code == 0

    cats = pictures(folder)
    (cats / "empty.jpg").touch()
    Image.new("1", (14_000, 14_000)).save(cats / "bomb.png")  # 24 kB
    Image.new("RGB", (90, 90)).save(cats / "short.jpg")
    os.truncate(cats / "short.jpg", 700)
    (cats / "lost.png").symlink_to("nowhere")
    os.mkfifo(cats / "pipe.png")
    bad = {
        "bomb.png": "above fetch.max_megapixels", "empty.jpg": "the file is empty", "lost.png": "cannot be read",
        "pipe.png": "not a regular file", "short.jpg": "image file is truncated",
    }  # fmt: skip
    error = run("fetch", folder).error
    assert error.startswith("5 of 7 images are unreadable: ")
    assert all(re.search(rf"images/train/cat/{name}: [^;]*{reason}", error) for name, reason in bad.items())
    assert made(folder) == {}

    for name in bad:
        (cats / name).unlink()
    assert run("fetch", folder).code == 0
    assert made(folder) == made(undisturbed)


# convert


def many_images(folder: Path) -> None:
    """Raw images that take a second to convert."""
    change(folder)
    (folder / "data/raw").mkdir(parents=True)
    splits: dict[str, source_images.Split] = {
        name: source_images.write_arrays(folder / "data/raw", name, noise(count, 8, seed=count), np.arange(count) % 10)
        for name, count in (("train", 10_000), ("test", 1_000))
    }
    source_images.write_dataset(folder / "data/raw", source_images.Dataset("made up", list("0123456789"), splits))


def started_to_write(folder: Path) -> Running:
    conversion, deadline = start("convert", folder), time.monotonic() + 60
    while not (folder / "data/.beton.part").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return conversion


def test_a_conversion_that_is_killed_again_and_again(tmp_path: Path) -> None:
    many_images(tmp_path)
    conversion, began = started_to_write(tmp_path), time.monotonic()
    assert conversion.end().code == 0
    seconds, right = time.monotonic() - began, made(tmp_path)
    for written in ("data/beton", "reports"):
        shutil.rmtree(tmp_path / written)

    draw, half_made = random.Random(0), 0
    for kill in range(4):
        conversion = started_to_write(tmp_path)
        time.sleep(seconds * draw.uniform(kill, kill + 1) / 4)
        conversion.kill()
        assert conversion.end().code in (-9, 0)
        half_made += (tmp_path / "data/.beton.part").exists()
        left = {path: content for path, content in made(tmp_path).items() if ".part" not in path}
        assert left == {path: right[path] for path in left}
    assert half_made
    assert run("convert", tmp_path).code == 0
    assert made(tmp_path) == right


def test_raw_images_that_are_cut_short(done: Path, tmp_path: Path) -> None:
    ready("convert", done, tmp_path)
    mended = tmp_path / "data/raw"
    mended.unlink()
    shutil.copytree(done / "data/raw", mended)
    os.truncate(mended / "train.images.npy", 10_000)
    before = made(tmp_path)
    assert run("convert", tmp_path).error.startswith("data/raw: missing or damaged")
    assert made(tmp_path) == before
    shutil.copy(done / "data/raw/train.images.npy", mended)
    assert run("convert", tmp_path).code == 0
    raw = {path: content for path, content in expected("fetch", done).items() if path.startswith("data/raw")}
    assert made(tmp_path) == raw | expected("convert", done)


# .beton, in the stages that read it


def with_own_betons(name: str, done: Path, folder: Path, betons: Path) -> Path:
    """What the stage `name` needs in `folder`, with a copy of the folder `betons`, which is returned."""
    ready(name, done, folder)
    (folder / "data/beton").unlink()
    return Path(shutil.copytree(betons, folder / "data/beton"))


BETONS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("this data set has no val split; there are: test, train", Path.unlink),
    "truncated": ("truncated, empty or not written by", lambda path: os.truncate(path, path.stat().st_size - 100)),
    "foreign": ("not a .beton file of version 2", lambda path: Image.new("RGB", (99, 99)).save(path, "PNG")),
    "of another version": (
        "not a .beton file of version 2",
        lambda path: overwrite(path, 0, bytes([CURRENT_VERSION + 1])),
    ),
    "of another data set": ("its labels are not those of", lambda path: stored(path, noise(30, 8, 0), np.arange(30))),
}


def overwrite(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


@pytest.mark.parametrize("name", ["pretrain", "embed", "linear_eval", "finetune", "evaluate", "draw"])
def test_betons_that_are_not_the_right_ones(name: str, done: Path, tmp_path: Path) -> None:
    folder = with_own_betons(name, done, tmp_path, done / "data/beton")
    right = made(tmp_path)
    for reason, spoil in BETONS.values():
        spoil(folder / "val.beton")
        spoilt = made(tmp_path)
        assert run(name, tmp_path).error.startswith(f"data/beton/val.beton: {reason}")
        assert made(tmp_path) == spoilt
        shutil.copy(done / "data/beton/val.beton", folder)
    assert run(name, tmp_path).code == 0
    assert made(tmp_path) == right | expected(name, done)


@pytest.fixture(scope="module")
def jpegs(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in .beton files again, as JPEGs."""
    folder = tmp_path_factory.mktemp("jpegs")
    change(folder, convert__storage="jpeg")
    convert(
        params.load("convert", ConvertParams, folder / "params.yaml"),
        source_images.open_dataset(done / "data/raw"),
        folder / "beton",
    )
    return folder / "beton"


@pytest.mark.parametrize("name", ["pretrain", "embed", "linear_eval", "draw"])
def test_a_damaged_jpeg_in_a_beton(name: str, done: Path, jpegs: Path, tmp_path: Path) -> None:
    folder = with_own_betons(name, done, tmp_path, jpegs)
    shutil.copy(done / "data/beton/dataset.json", folder)  # the digests that the features name
    file = beton.read(folder / "train.beton")
    end = int(file.starts[3] + file.sizes[3])
    overwrite(folder / "train.beton", end - 20, bytes(20))
    spoilt = made(tmp_path)
    error = run(name, tmp_path).error
    assert error == "data/beton/train.beton: the JPEG of sample 3 is damaged; run convert again"
    assert made(tmp_path) == spoilt  # so that with the right file the next run is as the first
    assert not list(tmp_path.rglob("step-*"))
