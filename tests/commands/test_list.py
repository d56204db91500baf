"""`simclr list`, checked by coreutils, and fetch by the list."""

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


def test_a_file_that_has_changed_or_is_gone_is_named(listed: Path, here: Path) -> None:
    Path("my pictures/train/cat/2.png").write_bytes(Path("my pictures/test/dog/x.png").read_bytes())
    Path("my pictures/train/dog/a b.png").unlink()
    with pytest.raises(UserError) as refused:
        fetched(listed, here / "a")
    assert str(refused.value).startswith("2 of 5 images are unreadable: ")
    assert "cat/2.png: is not the file of the list" in str(refused.value)
    assert re.search(r"a b\.png: cannot be read \(No such file", str(refused.value))
    assert not (here / "a").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "line 1 is not '# ' and the path of a folder"),
        ("# pictures\n", "line 1 is not"),
        ("# /pictures\n" + 32 * "a" + "  x.png\n" + 31 * "a" + "  y.png\n", "line 3 is not a digest, two spaces"),
        ("# /pictures\nx.png\n", "line 2 is not a digest"),
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
    lines = [line for line in listed.read_text().splitlines() if "test/" not in line]
    listed.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"my pictures/test: no such folder"):
        fetched(listed, here / "a")


def test_a_list_without_labels(run: Run, here: Path) -> None:
    pictures(Path("flat"), ["2.png", "10.png", "deep/1.png"])
    run("list", "flat", "--output", "flat.list")
    fetched(here / "flat.list", here / "a")
    dataset = source_images.open_dataset(here / "a")
    assert dataset.classes == []
    assert len(dataset.splits["train"]) == 3


def test_a_name_that_cannot_be_listed(run: Run, here: Path) -> None:
    pictures(Path("odd"), ["new\nline.png"])
    assert "odd/new\\nline.png: the name has a line break or is not UTF-8; rename it" in run.error("list", "odd")
