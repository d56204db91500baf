"""A list of the images whose labels are used, against looking every line up among the names."""

from pathlib import Path

import numpy as np
import pytest

from simclr.core.errors import UserError
from simclr.finetune.finetune_params import check, check_source
from simclr.finetune.label_subset import label_subsets, listed_subset
from tests.finetune.test_finetune import parameters

NAMES = [f"train/{name}/{name}_{index}.JPEG" for name in ("n01", "n02") for index in range(5)]
NO_NAMES: dict[str, list[str]] = {}
NONE = "lists no image of train, such as train/n01/n01_0.JPEG"
VAL = ["train/n01/n01_77.JPEG", "train/n02/n02_78.JPEG"]


def listed(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_and_paths_are_found_and_others_left_out(tmp_path: Path) -> None:
    """As of Google's, which name images of the whole of ImageNet: some are in val."""
    lines = ["n02_3.JPEG\r", "n01_0.JPEG", "", "train/n01/n01_4.JPEG", "n01_0.JPEG", "n01_77.JPEG", "n01/n01_1.JPEG"]
    path = listed(tmp_path, "\n".join(lines))
    expected = [NAMES.index(f"train/{name[:3]}/{name}.JPEG") for name in ("n01_0", "n01_4", "n02_3")]
    samples, title = listed_subset(NAMES, VAL, path)
    assert samples.tolist() == sorted(expected)
    assert title == "listed (3 of 5 names; 1 of no image, such as n01/n01_1.JPEG)"
    path.write_text("n02_3.JPEG\nn01_77.JPEG\n")
    assert listed_subset(NAMES, VAL, path)[1] == "listed (1 of 2 names)"


def test_a_name_that_several_images_have_wants_a_path(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/1.png"]
    with pytest.raises(UserError, match=r"list\.txt: several images are called 1\.png; list their paths$"):
        listed_subset(names, [], listed(tmp_path, "1.png\n"))
    assert listed_subset(names, [], listed(tmp_path, "train/dog/1.png\n"))[0].tolist() == [1]
    with pytest.raises(UserError, match=r"several images are called 1\.png"):  # whichever of them val has drawn
        listed_subset(names[:1], names[1:], listed(tmp_path, "1.png\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it takes the name of an image in each line"),
        ("\ufeff\n \n", "is empty; it takes the name of an image in each line"),
        ("n01_77.JPEG", f"{NONE}: it lists n01_77.JPEG; 1 of its names are in val"),
        ("b\na\n", "lists no image of train, such as train/n01/n01_0.JPEG: it lists a"),
    ],
)
def test_a_list_of_none_of_them_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = listed(tmp_path, text)
    with pytest.raises(UserError) as caught:
        listed_subset(NAMES, VAL, path)
    assert str(caught.value) == f"finetune.label_list: {path} {message}"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.txt cannot be read \(No such file or directory\)$"):
        listed_subset(NAMES, VAL, tmp_path / "missing.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.txt cannot be read \(it is no text in UTF-8\)$"):
        listed_subset(NAMES, VAL, tmp_path / "latin.txt")


def test_a_list_takes_the_place_of_fractions(tmp_path: Path) -> None:
    path = str(listed(tmp_path, "n02_3.JPEG\n"))
    chosen = parameters(label_list=path, fractions=[], epochs=[7])
    check(chosen, "params.yaml")
    (subset,) = label_subsets(chosen, np.arange(10) // 5, {"train": NAMES, "val": VAL}.__getitem__)
    expected = ("listed", "listed (1 of 1 names)", [8], 7)
    assert (subset.key, subset.title, subset.samples.tolist(), subset.epochs) == expected
    subsets = label_subsets(parameters(fractions=[0.2, 1.0]), np.arange(10) // 5, NO_NAMES.__getitem__)
    assert [(subset.key, subset.title) for subset in subsets] == [("20_percent", "20 %"), ("100_percent", "100 %")]


def test_what_does_not_go_with_a_list_is_refused(tmp_path: Path) -> None:
    chosen = parameters(label_list="x.txt")
    with pytest.raises(UserError, match=r"finetune\.fractions = \[0\.5\] is not allowed; it takes \[\] where finetune"):
        check(chosen, "params.yaml")
    with pytest.raises(UserError, match=r'label_list = "x\.txt" .* weights/none where fetch\.source is digits'):
        check_source(chosen, "digits")
    check_source(chosen, "folder")
    check_source(parameters(), "digits")
