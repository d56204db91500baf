"""`simclr search`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simclr.commands import folder_encoder, image_folder
from tests.commands.folders import ENCODER, Run, alone, pictures, save_encoder, written

NAMES = [f"{kind}/{index} of it.png" for kind in ("cat", "dog") for index in range(1, 9)]


def nearest(query: str, folder: str, names: list[str]) -> list[tuple[float, str]]:
    """Cosine similarities and names, most similar first, one image after the other."""
    found = []
    for name in names:
        a, b = (alone(Path(path)).numpy().astype(float) for path in (query, f"{folder}/{name}"))
        found.append((float(a @ b / np.sqrt((a @ a) * (b @ b))), name))
    return sorted(found, reverse=True)


def printed(out: str) -> list[tuple[float, str]]:
    return [(float(line[:6]), line[8:]) for line in out.splitlines()]


def agree(found: list[tuple[float, str]], expected: list[tuple[float, str]]) -> None:
    assert [name for _, name in found] == [name for _, name in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=6e-5)


def test_the_nearest_images_are_listed_and_drawn(run: Run) -> None:
    pictures(Path(), ["unused.png", "query.png"])
    pictures(Path("x"), NAMES)
    expected = nearest("query.png", "x", NAMES)
    assert expected[0][0] - expected[-1][0] > 0.01
    before = written()
    agree(printed(run("search", "x", "query.png", *ENCODER)), expected[:12])
    assert written().keys() - before.keys() == {"search.png"}
    agree(printed(run("search", "x", "query.png", *ENCODER, "--count", 99, "--output", "new/all.png")), expected)
    with Image.open("search.png") as few, Image.open("new/all.png") as all_of_them:
        assert few.width == all_of_them.width
        assert few.height < all_of_them.height


def test_an_image_of_the_folder_finds_itself_first(run: Run) -> None:
    pictures(Path("x"), NAMES)
    [found] = printed(run("search", "x", "x/dog/3 of it.png", *ENCODER, "--count", 1))
    assert found == (1.0, "dog/3 of it.png")


def test_names_are_printed_on_one_line_each(run: Run) -> None:
    pictures(Path("x"), ["two\nlines.png", "日本\x1b.png"])
    lines = run("search", "x", "x/two\nlines.png", *ENCODER).splitlines()
    assert [line[8:] for line in lines] == ["two\\nlines.png", "日本\\x1b.png"]


def test_features_that_were_written_before_are_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("x"), ["two\nlines.png", *NAMES])
    anew = run("search", "x", "x/dog/1 of it.png", *ENCODER)
    drawn = Path("search.png").read_bytes()
    run("embed", "x", *ENCODER, "--output", "before.npy")
    monkeypatch.setattr(folder_encoder.FolderEncoder, "encode", None)
    assert run("search", "x", "x/dog/1 of it.png", *ENCODER, "--features", "before.npy") == anew
    assert Path("search.png").read_bytes() == drawn


def test_features_of_something_else_are_refused(run: Run) -> None:
    pictures(Path("x"), NAMES)
    run("embed", "x", *ENCODER)
    names, features = Path("x.names.csv"), Path("x.npy")
    listed, whole, h = names.read_text(), features.read_bytes(), np.load("x.npy")

    def error() -> str:
        return run.error("search", "x", "x/cat/1 of it.png", *ENCODER, "--features", "x.npy")

    names.write_text(listed.replace('"cat/2 of it.png"\n', ""))
    assert error() == "x.npy: has representations of 16 images, but x.names.csv names 15"
    for damaged in ("", "file\n", 'name\n"a', "name\na,b\n"):
        names.write_text(damaged)
        assert error() == "x.names.csv: damaged, or not the names that `simclr embed` wrote"
    names.unlink()
    assert error() == "x.names.csv: cannot be read (No such file or directory); `simclr embed` writes it"
    names.write_text(listed)
    for damaged in (b"", b"text", whole[:-1], b"PK\x03\x04", whole.replace(b"{", b"(", 1)):
        features.write_bytes(damaged)
        assert error() == "x.npy: damaged, or not the representations that `simclr embed` wrote"
    for array in (h.astype(float), h[0], h * np.nan, np.array([{}])):
        np.save(features, array)
        assert error() == "x.npy: damaged, or not the representations that `simclr embed` wrote"
    features.unlink()
    assert error() == "x.npy: cannot be read (No such file or directory); `simclr embed` writes it"
    np.save(features, h[:, 1:])
    expected = "x.npy: 63 numbers for each image, but encoder.safetensors gives 64; run `simclr embed` again"
    assert error() == expected
    np.save(features, h[::-1])
    assert error().startswith("x.npy: its first row is not what encoder.safetensors gives for x/cat/1 of it.png; run")
    Path("y").mkdir()
    other = run.error("search", "y", "x/cat/1 of it.png", *ENCODER, "--features", "x.npy")
    gone = "x.npy: is of another folder, or of images that are gone: there is no"
    assert other == f"{gone} y/cat/1 of it.png"
    np.save(features, h * np.float32(1.001))  # as another processor might round
    run("search", "x", "x/cat/1 of it.png", *ENCODER, "--features", "x.npy")
    Path("search.png").unlink()
    Path("x/cat/1 of it.png").unlink()
    message = run.error("search", "x", "x/cat/2 of it.png", *ENCODER, "--features", "x.npy")
    assert message == f"{gone} x/cat/1 of it.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "nowhere.png", *ENCODER], "nowhere.png: cannot be read (No such file or directory)"),
        (["x", "x", *ENCODER], "x: not a regular file"),
        (["x", "encoder.safetensors", *ENCODER], "encoder.safetensors: not an image in a format that Pillow knows"),
        (["nowhere", "x/1.png", *ENCODER], "nowhere: no such folder"),
        (["empty", "x/1.png", *ENCODER], "empty: holds no image files"),
        (["x", "x/1.png"], "models/encoder.safetensors: cannot be read (No such file or directory"),
        (["x", "x/1.png", *ENCODER, "--count", 0], "--count 0 is not allowed; it takes an integer from 1 to 200"),
        (["x", "x/1.png", *ENCODER, "--output", "a.jpg"], "--output a.jpg is not allowed; it takes the name of a file"),
        (["x", "x/1.png", *ENCODER, "--output", "/proc/a.png"], "/proc/a.png: cannot be written (No such file or"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(arguments: list[object], message: str, run: Run) -> None:
    pictures(Path("x"), ["1.png"])
    Path("empty").mkdir()
    assert message in run.error("search", *arguments)


def test_unreadable_images_of_the_folder_are_refused_or_left_out(run: Run) -> None:
    pictures(Path("x"), ["1.png", "2.png"])
    Path("x/3.png").touch()
    assert "1 of 3 images are unreadable: x/3.png: the file is empty" in run.error("search", "x", "x/1.png", *ENCODER)
    assert len(printed(run("search", "x", "x/1.png", *ENCODER, "--skip-unreadable"))) == 2


def test_another_encoder_finds_by_its_own_representations(run: Run) -> None:
    pictures(Path("x"), NAMES)
    run("embed", "x", *ENCODER)
    save_encoder(Path("wide.safetensors"), width=0.25)
    message = run.error("search", "x", "x/cat/1 of it.png", "--encoder", "wide.safetensors", "--features", "x.npy")
    assert message == "x.npy: 64 numbers for each image, but wide.safetensors gives 128; run `simclr embed` again"


def test_photographs_are_shrunk_before_they_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x").mkdir()
    Image.new("RGB", (900, 600), "red").save("x/1.png")
    shown = []
    monkeypatch.setattr("simclr.report.sheets.search_sheet", lambda _, query, found, *__: shown.extend([query, *found]))
    run("search", "x", "x/1.png", *ENCODER)
    assert [image.shape for image in shown] == [(64, 96, 3)] * 2
    assert image_folder.read(Path("x/1.png")).shape == (600, 900, 3)
