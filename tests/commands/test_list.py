"""`simclr list`, checked by coreutils, and fetch by the list."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from simclr.core.errors import UserError
from simclr.images import file_list, source_images
from simclr.sources import FetchParams, fetch
from tests.commands.folders import Run, pictures

NAMES = ["train/cat/2.png", "train/cat/10.png", "train/dog/a b.png", "test/cat/käse.png", "test/dog/x.png"]


def fetched(folder: Path, output: Path) -> dict[str, bytes]:
    fetch(FetchParams(source="folder", folder=str(folder), max_megapixels=1, truncated="refuse"), output)
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture
def listed(run: Run, here: Path) -> Path:
    pictures(Path("my pictures"), NAMES)
    (here / "my pictures/train/notes.txt").write_text("no image")
    out = run("list", "my pictures")
    root = (here / "my pictures").resolve()
    assert out == f"list: my pictures.b2sum: 5 images of {root}; use it by fetch.folder=my pictures.b2sum\n"
    return here / "my pictures.b2sum"


def test_coreutils_find_the_same_digests(listed: Path) -> None:
    command = ["b2sum", "--length=128", "--check", "--strict", str(listed)]
    checked = subprocess.run(command, cwd="my pictures", capture_output=True, text=True, check=True)
    assert sorted(checked.stdout.splitlines()) == sorted(f"{name}: OK" for name in NAMES)


def test_fetch_finds_the_same_by_the_list_as_in_the_folder(listed: Path, here: Path) -> None:
    by_list, by_folder = fetched(listed, here / "a"), fetched(Path("my pictures").resolve(), here / "b")
    assert by_list == by_folder
    pictures(Path("my pictures"), ["train/cat/11.png"])  # not in the list
    assert fetched(listed, here / "a") == by_list


def test_a_class_that_is_a_link_to_another_folder_there_is_listed_too(run: Run, here: Path) -> None:
    pictures(Path("pool"), ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "owls/1.png"])
    for split in ("train", "test"):
        (here / "pool" / split / "owl").symlink_to("../owls")
    run("list", "pool")
    found = file_list.read(here / "pool.b2sum").digests
    assert {"owls/1.png", "train/owl/1.png", "test/owl/1.png"} < set(found)
    fetched(here / "pool.b2sum", here / "a")
    assert source_images.open_dataset(here / "a").classes == ["cat", "dog", "owl"]


def test_files_that_have_changed_or_are_gone_are_named(listed: Path, here: Path) -> None:
    Path("my pictures/train/cat/2.png").write_bytes(Path("my pictures/test/dog/x.png").read_bytes())
    with pytest.raises(UserError) as refused:
        fetched(listed, here / "a")
    assert str(refused.value) == (
        f"{listed}: 1 of its 5 images have changed since it was made, such as {here.resolve()}/my pictures/train/cat/"
        "2.png; make it anew with `simclr list`"
    )
    Path("my pictures/train/dog/a b.png").unlink()
    gone = r"my pictures\.b2sum: 1 of 5 images are unreadable: .*a b\.png: cannot be read \(No such file or directory\)"
    with pytest.raises(UserError, match=rf"{gone}; make it anew with `simclr list`$"):
        fetched(listed, here / "a")
    pictures(Path("my pictures"), ["train/dog/a b.png"])
    Path("my pictures/train/cat/2.png").write_bytes(b"no image")  # a new list would not help
    with pytest.raises(
        UserError, match=r"my pictures\.b2sum: 1 of 5 images are unreadable: .*2\.png: (?!.*simclr list)"
    ):
        fetched(listed, here / "a")
    Path("my pictures").rename("moved")
    with pytest.raises(UserError, match=r"my pictures\.b2sum: its folder .*/my pictures is gone; make a list"):
        fetched(listed, here / "a")
    assert not (here / "a").exists()


A, B = 32 * "a" + "  ", 31 * "a" + "  "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "line 1 is not '# N files of /a/folder'"),
        ("# " + 5000 * "1" + " files of /pictures\n" + A + "x.png\n", "line 1 is not"),
        ("# 1 files of /pictures\n" + A + "x\0.png\n", "line 2 is not a digest"),
        ("# \u0661 files of /pictures\n" + A + "x.png\n", "line 1 is not"),
        ("# 1 files of pictures\n" + A + "x.png\n", "line 1 is not"),
        ("# 2 files of /pictures\n" + A + "x.png\n" + B + "y.png\n", "line 3 is not a digest, two spaces"),
        ("# 1 files of /pictures\nx.png\n", "line 2 is not a digest"),
        ("# 2 files of /pictures\n" + A + "x.png\n", "has 1 of its 2 files; make it anew"),
        ("# 1 files of /pictures\n" + A + "x.png\n" + A + "y.png\n", "has 2 of its 1 files"),
        ("# 2 files of /pictures\n" + A + "x.png\n" + A + "x.png\n", "line 3: x.png stands there twice"),
        ("# 1 files of /pictures\n" + A + "/x.png\n", "line 2: /x.png is not a plain path in /pictures"),
        ("# 1 files of /pictures\n" + A + "../x.png\n", "line 2: ../x.png is not a plain path"),
        ("# 1 files of /pictures\n" + A + "a/../../x.png\n", "is not a plain path"),
        ("# 1 files of /pictures\n" + A + "a//x.png\n", "is not a plain path"),
    ],
)
def test_what_is_no_list_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(content)
    with pytest.raises(UserError, match=re.escape(reason)):
        fetched(tmp_path / "list", tmp_path / "a")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"# /\xff")
    with pytest.raises(UserError, match="it is not UTF-8"):
        file_list.read(tmp_path / "list")


def test_a_list_without_a_test_split(listed: Path, here: Path) -> None:
    first, *lines = [line for line in listed.read_text().splitlines() if "test/" not in line]
    listed.write_text("\n".join([first.replace("5 files", "3 files"), *lines]))
    with pytest.raises(UserError, match=r"my pictures\.b2sum: .*/my pictures/test: no such folder"):
        fetched(listed, here / "a")


def test_a_list_without_labels(run: Run, here: Path) -> None:
    pictures(Path("flat"), ["2.png", "10.png", "deep/1.png"])
    run("list", "flat", "--output", "flat.list")
    fetched(here / "flat.list", here / "a")
    dataset = source_images.open_dataset(here / "a")
    assert dataset.classes == []
    assert len(dataset.splits["train"]) == 3


@pytest.mark.parametrize("name", ["new\nline.png", "cr\rcr.png"])
def test_a_name_that_cannot_be_listed(name: str, run: Run, here: Path) -> None:
    pictures(Path("odd"), [name])
    assert run.error("list", "odd").endswith(repr(name)[1:-1] + ": the name has a line break; rename it")


def test_odd_names_can_be_listed(run: Run, here: Path) -> None:
    pictures(Path("odd"), ["a\u00a0b.png", "back\\slash.png", "-dash.png", 'quo"te.png', "👩\u200d🔬.png"])
    run("list", "odd")
    fetched(here / "odd.b2sum", here / "a")


def test_only_an_older_list_is_replaced(run: Run, here: Path) -> None:
    pictures(Path("flat"), ["1.png"])
    Path("mine.txt").write_text("mine")
    os.mkfifo("pipe")
    for taken in ("mine.txt", "flat/1.png", "flat", "pipe", "/dev/full"):
        assert "is not allowed: something else than a list of files is there" in run.error(
            "list", "flat", "--output", taken
        )
    assert "there is no folder gone" in run.error("list", "flat", "--output", "gone/x")
    assert "cannot be written (File name too long)" in run.error("list", "flat", "--output", 300 * "x")
    run("list", "flat")
    run("list", "flat")


def test_a_pipe_among_the_images_is_refused(run: Run, here: Path) -> None:
    pictures(Path("flat"), ["1.png"])
    os.mkfifo("flat/pipe.png")
    assert run.error("list", "flat").endswith("flat/pipe.png: not a regular file")
