"""`simclr embed`."""

import csv
import errno
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from simclr.commands import folder_encoder, image_folder
from simclr.core import npy_file
from simclr.images.names import NAMED
from tests.commands.folders import ENCODER, Run, alone, pictures

NAMES = [
    "2.png", "10.png", "'x'.png", "-dash.png", "a b.png", "comma,.png", "cr\rcr.png", "käse.png", "new\nline.png",
    'quo"te.png', "sub/3.png", "sub/20.png", "sub/deep/er/1.bmp", "日本.PNG",
]  # fmt: skip
"""In natural order."""


def table(path: str) -> tuple[list[str], np.ndarray]:
    with Path(path).with_suffix(".names.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name"]
    return [name for (name,) in rows], np.load(path)


def test_a_row_is_the_encoder_applied_to_that_image_alone(run: Run) -> None:
    pictures(Path("my pictures"), NAMES)
    out = run("embed", "my pictures", *ENCODER)
    assert out == "embed: my pictures.npy: 14 images, 64 numbers each; my pictures.names.csv: their names\n"
    names, h = table("my pictures.npy")
    assert names == NAMES
    assert h.dtype == np.float32
    assert [row.tobytes() for row in h] == [alone("my pictures" / Path(name)).numpy().tobytes() for name in NAMES]
    run("embed", "my pictures", *ENCODER, "--batch-size", 4, "--output", "new/folder/x.npy")
    again, larger = table("new/folder/x.npy")
    assert again == NAMES
    np.testing.assert_allclose(larger, h, rtol=1e-4, atol=1e-5)
    assert sorted(os.listdir("new/folder")) == ["x.names.csv", "x.npy"]


def test_images_are_read_as_fetch_reads_them(run: Run) -> None:
    pictures(Path(), ["upright.png"])
    image = Image.open("upright.png")
    Path("x").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    image.rotate(180).save("x/1.png", exif=exif)
    glass = image.convert("RGBA")
    glass.putalpha(0)
    glass.save("x/2.png")
    Image.new("RGB", image.size, "white").save("white.png")
    run("embed", "x", *ENCODER)
    assert np.array_equal(np.load("x.npy"), torch.stack([alone(Path("upright.png")), alone(Path("white.png"))]).numpy())


def test_hidden_files_are_left_out_and_other_ones_named(run: Run) -> None:
    pictures(Path("x"), ["1.png", ".2.png", ".git/3.png"])
    Path("x/notes.txt").touch()
    Path("x/photo.heic").touch()
    said = run.log("embed", "x", *ENCODER)
    assert table("x.npy")[0] == ["1.png"]
    assert said == "embed: left out, no images by their suffix: 1 .heic (photo.heic), 1 .txt (notes.txt)\n"


def test_links_are_followed_unless_they_lead_back(run: Run) -> None:
    pictures(Path("x"), ["1.png"])
    pictures(Path("other"), ["2.png"])
    Path("x/more").symlink_to("../other")
    Path("x/same").symlink_to("more")
    Path("x/up").symlink_to("..")
    Path("other/back").symlink_to("../x")
    pictures(Path("deep"), ["within/3.png", "4.png"])
    Path("x/within").symlink_to("../deep/within")
    Path("deep/within/up").symlink_to("..")  # to a folder that it lies in, by another path than this
    Path("x/z.png").symlink_to("1.png")
    run("embed", "x", *ENCODER)
    assert table("x.npy")[0] == ["1.png", "more/2.png", "same/2.png", "within/3.png", "z.png"]


def test_folders_with_links_to_each_other_come_to_an_end(run: Run) -> None:
    count = 12
    for number in range(count):
        pictures(Path("x"), [f"{number}/1.png"])
        for other in set(range(count)) - {number}:
            Path(f"x/{number}/{other}").symlink_to(f"../{other}")
    run("embed", "x", *ENCODER)
    names = table("x.npy")[0]
    assert {f"{number}/1.png" for number in range(count)} < set(names)
    assert len(names) <= count**2 * 2


def test_unreadable_images_are_named_and_nothing_is_written_or_they_are_left_out(run: Run) -> None:
    pictures(Path("x"), ["1.png", "3.png", "5.png"])
    whole = Path("x/1.png").read_bytes()
    Path("x/2.png").touch()
    Path("x/4\n.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo("x/6.png")
    Path("x/7.png").symlink_to("nowhere")
    Path(os.fsdecode(b"x/8\xff.png")).write_bytes(whole)
    Path("x/9.png").symlink_to("9.png")
    named = (
        "6 of 9 images are unreadable: x/2.png: the file is empty; x/4\\n.png: not a readable image (image file is "
        "truncated); x/6.png: not a regular file; x/7.png: cannot be read (No such file or directory); "
        "x/8\\xff.png: the name is not UTF-8; rename it; x/9.png: cannot be read (Too many levels of symbolic links)"
    )
    assert run.error("embed", "x", *ENCODER) == f"{named}; --skip-unreadable leaves them out"
    assert run.log("embed", "x", *ENCODER, "--skip-unreadable") == f"embed: left out: {named}\n"
    names, h = table("x.npy")
    assert names == ["1.png", "3.png", "5.png"]
    assert np.array_equal(h, torch.stack([alone("x" / Path(name)) for name in names]).numpy())


def test_many_unreadable_images_are_counted(run: Run) -> None:
    Path("x").mkdir()
    for index in range(NAMED + 3):
        Path(f"x/{index}.png").touch()
    for flag in ([], ["--skip-unreadable"]):
        message = run.error("embed", "x", *ENCODER, *flag)
        assert message.startswith(f"{NAMED + 3} of {NAMED + 3} images are unreadable: x/0.png: the file is empty; x/1.")
        assert "x/19.png: the file is empty; and 3 more" in message


def test_an_image_above_the_limit_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x").mkdir()
    Image.new("1", (1001, 1000)).save("x/1.png")
    monkeypatch.setattr(image_folder, "MEGAPIXELS", 1)
    assert "x/1.png: image size (1001000 pixels) is above 1 megapixels; --skip" in run.error("embed", "x", *ENCODER)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", *ENCODER], "nowhere: no such folder"),
        (["x/1.png", *ENCODER], "x/1.png: is a file, not a folder"),
        (["empty", *ENCODER], "empty: holds no image files"),
        (["texts", *ENCODER], "texts: holds no image files, but 1 .txt (a.txt)"),
        (["x"], "models/encoder.safetensors: cannot be read (No such file or directory); the pretrain"),
        (["x", "--encoder", "x/1.png"], "x/1.png: damaged, or not an encoder that the pretrain stage wrote"),
        (
            ["x", *ENCODER, "--output", "x.txt"],
            "--output x.txt is not allowed; it takes the name of a file that ends",
        ),
        (["x", *ENCODER, "--output", "taken.npy"], "--output taken.npy is not allowed; it takes the name of a file"),
        (["x", *ENCODER, "--output", "x/1.png/a.npy"], "x/1.png/a.npy: cannot be written (File exists)"),
        (["x", *ENCODER, "--output", "/proc/a.npy"], "/proc/a.npy: cannot be written (No such file or directory)"),
        (["x", *ENCODER, "--batch-size", 0], "--batch-size 0 is not allowed; it takes an integer from 1 to 65536"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    arguments: list[object], message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    pictures(Path("x"), ["1.png"])
    Path("empty").mkdir()
    Path("taken.npy").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").touch()
    monkeypatch.setattr(folder_encoder.FolderEncoder, "_represent", None)  # it is found out before encoding
    assert message in run.error("embed", *arguments)


def test_a_representation_that_is_not_finite_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("x"), ["1.png", "2.png"])
    monkeypatch.setattr(folder_encoder.FolderEncoder, "_represent", lambda *_: torch.full((1, 64), torch.nan))
    assert "encoder.safetensors: its representations of images of x are not" in run.error("embed", "x", *ENCODER)


def test_ctrl_c_leaves_what_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("x"), [f"{index}.png" for index in range(20)])
    run("embed", "x", *ENCODER)
    pictures(Path("x"), [f"{index}.png" for index in range(30)])
    represent = folder_encoder.FolderEncoder._represent
    calls = iter(range(100))

    def interrupted(*arguments: object) -> torch.Tensor:
        if next(calls) == 25:
            signal.raise_signal(signal.SIGINT)
        return represent(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_encoder.FolderEncoder, "_represent", interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    assert run.error("embed", "x", *ENCODER, code=130) == "interrupted"
    assert next(calls) == 26
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]
    assert len(table("x.npy")[0]) == 20


def test_a_full_disk_leaves_what_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("x"), ["1.png"])
    run("embed", "x", *ENCODER)
    pictures(Path("x"), ["2.png"])

    def full(path: Path, h: np.ndarray) -> None:
        path.write_bytes(h.tobytes()[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(npy_file, "write", full)
    assert "cannot be written (No space left on device)" in run.error("embed", "x", *ENCODER)
