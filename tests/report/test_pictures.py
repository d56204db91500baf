import os
import threading
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from simclr.report import charts, figure, map_picture, sheets

NAMES = [
    "automobile",
    "great white shark, white shark, man-eater, man-eating shark",
    "$HOME_$x^2 <b>",
    "日本語",
    "n01440764",
]


def image(seed, height=8, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


def opened(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.info.keys() <= {"transparency"}, "no metadata"
        return np.asarray(picture.convert("RGB"))


def contact_sheet(path, seed=0):
    images = [image(seed + index) for index in range(15)]
    sheets.contact_sheet(path, images, [index % 5 for index in range(15)], NAMES, "train")


def neighbor_sheet(path, seed=0):
    near = [[image(10 * row + column) for column in range(4)] for row in range(3)]
    correct = [[(row + column + seed) % 2 == 0 for column in range(4)] for row in range(3)]
    sheets.neighbor_sheet(path, [image(row) for row in range(3)], range(3), NAMES, near, correct, "test")


def search_sheet(path, seed=0, names=NAMES):
    found = [image(seed + index) for index in range(1, 1 + len(names))]
    similarities = [1 - 0.1 * index for index in range(len(names))]
    sheets.search_sheet(path, image(seed), found, similarities, names, "t")


def embedding_map(path, seed=0, classes=5):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 300)
    names = [f"{NAMES[index % 5]} {index}" for index in range(classes)]
    map_picture.embedding_map(path, generator.normal(size=(300, 2)) + labels[:, None], labels, names, "t-SNE")


def confusion_matrix(path, seed=0, classes=5):
    counts = np.random.default_rng(seed).integers(0, 50, (classes, classes))
    counts[-1] = 0  # a class without samples
    names = [f"{NAMES[index % 5]} {index}" for index in range(classes)]
    charts.confusion_matrix(path, counts, names, "test")


def bars(path, seed=0):
    columns = {"probe": ["raw pixels", *NAMES[:2]], "top1": [0, 96.11, 97.5 + seed]}
    charts.table_chart(path, {**columns, "top1_low": [0, 94.0, 96.0], "top1_high": [2, 98.0, 99.0]}, "test top-1")


def lines(path, seed=0):
    columns = {"k": [1, 5, 20], "test": [80, 90, 85 + seed], "test_low": [70, 80, 75], "test_high": [90, 95, 92]}
    charts.table_chart(path, {**columns, "val": [70, 75, 80]}, "top-1")


WRITERS = [contact_sheet, neighbor_sheet, search_sheet, embedding_map, confusion_matrix, bars, lines]


@pytest.mark.parametrize("write", WRITERS)
def test_the_same_data_gives_the_same_bytes_and_other_data_others(write, tmp_path):
    for name, seed in [("1", 0), ("2", 0), ("3", 1)]:
        write(tmp_path / "new" / f"{name}.png", seed)
    first, second, third = ((tmp_path / "new" / f"{name}.png").read_bytes() for name in "123")
    assert first == second
    assert first != third
    assert len(first) < 200_000
    assert sorted(os.listdir(tmp_path / "new")) == ["1.png", "2.png", "3.png"]
    opened(tmp_path / "new" / "1.png")


def everywhere(path, classes):
    """The bytes of all pictures that have names of classes in them."""
    context = [image(0)] * len(classes)
    sheets.contact_sheet(path / "context.png", context, range(len(classes)), classes, "t")
    for labels in (len(classes), 30):  # with a legend, with names in place
        names = [*classes, *map(str, range(len(classes), labels))]
        points = np.stack([np.arange(labels), np.arange(labels) % 7], axis=1).astype(float)
        map_picture.embedding_map(path / f"map{labels}.png", points, np.arange(labels), names, "t")
    charts.confusion_matrix(path / "confusion.png", np.eye(len(classes), dtype=int), classes, "t")
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


LACKING = ["日本語", "dog 🦊", "a\tb", "two\nlines", "\x07"]


def test_a_name_that_the_font_lacks_a_letter_of_is_the_label(tmp_path):
    labels = [f"#{label}" for label in range(1, 1 + len(LACKING))]
    found = everywhere(tmp_path / "1", ["cat", *LACKING, "ant"])
    assert found == everywhere(tmp_path / "2", ["cat", *labels, "ant"])


@pytest.mark.parametrize("name", ["école", "e\u0301cole", "Ελλάδα", "Кошка", "قط", "$x^2$", "…"])
def test_a_name_that_the_font_has_is_drawn(name):
    """A box would be a warning of matplotlib's, and so an error here."""
    assert figure.has_letters(name)
    assert figure.text_width(name, 8) > 3


@pytest.mark.parametrize("name", LACKING)
def test_a_letter_is_lacking_where_matplotlib_would_draw_a_box(name):
    assert not figure.has_letters(name)
    for letter in set(name):
        with warnings.catch_warnings(record=True) as boxes:
            warnings.simplefilter("always")
            figure.text_width(letter, 8)
        assert figure.has_letters(letter) == (not boxes) or letter == "\n"


@pytest.mark.parametrize("write", WRITERS)
def test_the_user_s_style_changes_nothing(write, tmp_path):
    write(tmp_path / "1.png")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 50, "text.parse_math": True}):
        before = matplotlib.rcParams.copy()
        write(tmp_path / "2.png")
        assert matplotlib.rcParams.copy() == before
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_pictures_are_drawn_off_the_main_thread_too(tmp_path):
    thread = threading.Thread(target=bars, args=[tmp_path / "1.png"])
    thread.start()
    thread.join()
    opened(tmp_path / "1.png")


def test_an_error_while_drawing_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="shape mismatch"):
        charts.table_chart(tmp_path / "1.png", {"probe": ["a", "b"], "top1": [1.0, 2.0, 3.0]}, "")
    assert os.listdir(tmp_path) == []


def test_contact_sheet_has_a_row_for_each_class_and_shows_the_images(tmp_path):
    values = {0: 40, 2: 120, 4: 200}
    labels = [4, 0, 2, 0, 4, 0]
    images = [plain(values[label]) for label in labels]
    sheets.contact_sheet(tmp_path / "1.png", images, labels, ["a", "b", "c", "d", "e"], "t")
    sheet = opened(tmp_path / "1.png")
    # 6 images, so cells of 96 px: rows of 3, 1 and 2 of them.
    counts = [int((sheet == value).all(axis=2).sum()) for value in values.values()]
    assert counts == pytest.approx([3 * 96**2, 96**2, 2 * 96**2], rel=0.01)  # a few pixels of text may match
    centers = [np.nonzero((sheet == value).all(axis=2))[0].mean() for value in values.values()]
    assert centers == sorted(centers)
    assert sheet.shape[0] == 42 + 3 * 99 - 3 + 12
    assert (sheet[0, 0] == 255).all()


def test_contact_sheet_of_unlabelled_images_is_a_plain_grid(tmp_path):
    images = [plain(100) for _ in range(30)]
    sheets.contact_sheet(tmp_path / "1.png", images, [-1] * 30, [], "unlabelled")
    sheet = opened(tmp_path / "1.png")
    assert sheet.shape == (42 + 3 * 99 - 3 + 12, 12 + 12 * 99 - 3 + 12, 3)  # 12, 12 and 6 images
    assert (sheet == 100).all(axis=2).sum() >= 30 * 96**2


def test_contact_sheet_is_as_wide_as_its_title(tmp_path):
    sheets.contact_sheet(tmp_path / "1.png", [image(0)], [0], ["a"], "a title " * 12)
    sheet = opened(tmp_path / "1.png")
    assert (sheet[:, -10:] == 255).all()
    assert (sheet[:42, -60:] < 128).any()


def test_sheets_take_images_of_all_sizes(tmp_path):
    images = [image(0), image(1, 512, 300), image(2, 33, 200), image(3, 1, 600), image(4, 50, 40)]
    sheets.contact_sheet(tmp_path / "1.png", images, [0, 0, -1, 1, 1], ["a", "b"], "mixed")
    sheets.neighbor_sheet(
        tmp_path / "2.png", images[:1], [0], ["cat"], [images[1:]], [[True, False, True, True]], "mixed"
    )
    assert opened(tmp_path / "1.png").shape[0] == 42 + 3 * 99 - 3 + 12
    assert opened(tmp_path / "2.png").shape[0] == 72 + 105 + 36


def test_a_sheet_of_120_photographs_is_a_small_file(tmp_path):
    # Noise on a gradient compresses as badly as a photograph.
    ramp = np.linspace(0, 200, 256).astype(np.uint8)
    images = [
        ramp[:, None, None] + np.random.default_rng(seed).integers(0, 30, (256, 256, 3), np.uint8) for seed in range(12)
    ]
    sheets.contact_sheet(tmp_path / "1.png", images * 10, [n // 12 for n in range(120)], [*"abcdefghij"], "")
    assert (tmp_path / "1.png").stat().st_size < 400_000


def test_neighbors_are_told_apart_by_color_and_without(tmp_path):
    gray = plain(128)
    for name, same in [("same", True), ("other", False)]:
        sheets.neighbor_sheet(tmp_path / f"{name}.png", [gray], [-1], [], [[gray]], [[same]], "")
    same, other = (opened(tmp_path / f"{name}.png").astype(int) for name in ("same", "other"))
    assert same.shape == other.shape

    def distant(sheet, color):
        return np.abs(sheet - np.array(color)).sum(axis=2) < 12

    green, red = (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)
    frame = 4 * 3 * 99  # pixels of a solid frame, 3 wide, around a cell of 96
    assert distant(same, green).sum() == pytest.approx(frame, rel=0.02)
    assert not distant(same, red).any()
    assert 0.4 * frame < distant(other, red).sum() < 0.9 * frame
    assert not distant(other, green).any()
    # The cross lies inside the cell, on the image.
    assert (same == 128).all(axis=2).sum() > (other == 128).all(axis=2).sum() > 0.95 * 2 * 96**2


def test_a_search_shows_the_query_and_rows_of_six(tmp_path):
    found = [plain(100 + index) for index in range(8)]
    sheets.search_sheet(tmp_path / "1.png", plain(50), found, [0.5] * 8, ["a"] * 8, "t")
    sheet = opened(tmp_path / "1.png")
    centers = []
    for value in (50, *range(100, 108)):
        ys, xs = np.nonzero((sheet == value).all(axis=2))
        assert len(ys) == pytest.approx(96**2, rel=0.01)  # a few pixels of text may match
        centers.append((round(np.median(ys)), round(np.median(xs))))
    (query, *row), second = centers[:7], centers[7:]
    assert len({y for y, _ in [query, *row]}) == 1
    assert [x for _, x in [query, *row]] == sorted(x for _, x in [query, *row])
    assert [x for _, x in second] == [x for _, x in row[:2]]
    assert second[0][0] > row[0][0] + 96


def test_a_search_shows_the_end_of_a_long_name_and_none_that_the_font_lacks(tmp_path):
    def drawn(*names):
        search_sheet(tmp_path / "1.png", names=names)
        return (tmp_path / "1.png").read_bytes()

    assert drawn("日本語", "x") == drawn("two\nlines", "x") == drawn("", "x")
    assert drawn("a/" * 30 + "cat.jpg") == drawn("b/" + "a/" * 20 + "cat.jpg") != drawn("a/" * 30 + "dog.jpg")
    assert drawn("W" * 40) != drawn("W" * 5)
    wide = opened(tmp_path / "1.png").shape
    drawn("W" * 40)
    assert opened(tmp_path / "1.png").shape == wide


def test_a_neighbor_without_its_query_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        sheets.neighbor_sheet(tmp_path / "1.png", [image(0)] * 2, [0, 1], ["a", "b"], [[image(1)]], [[True]], "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("classes", [1, 20, 21, 100, 1000])
def test_embedding_map_of_few_and_many_classes(classes, tmp_path):
    embedding_map(tmp_path / "1.png", classes=classes)
    picture = opened(tmp_path / "1.png")
    assert picture.shape == (800, 1000 if classes <= 20 else 900, 3)
    assert (tmp_path / "1.png").stat().st_size < 200_000


def test_embedding_map_colors_by_class(tmp_path):
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    map_picture.embedding_map(tmp_path / "1.png", points, np.array([0, 1]), ["a", "b"], "")
    map_picture.embedding_map(tmp_path / "2.png", points, np.array([1, 0]), ["a", "b"], "")
    assert (opened(tmp_path / "1.png") != opened(tmp_path / "2.png")).any()


def test_names_on_a_map_do_not_overlap(tmp_path):
    """All classes in one place leave room for one name, which is that of the largest."""
    points, labels = np.zeros((60, 2)), np.repeat(np.arange(30), 2)
    names = [f"class {index}" for index in range(30)]
    map_picture.embedding_map(tmp_path / "all.png", points, labels, names, "")
    map_picture.embedding_map(tmp_path / "one.png", points, labels, [names[0], *[""] * 29], "")
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "one.png").read_bytes()


@pytest.mark.parametrize("classes", [1, 20, 21, 100, 1000])
def test_confusion_matrix_of_few_and_many_classes(classes, tmp_path):
    confusion_matrix(tmp_path / "1.png", classes=classes)
    height, width, _ = opened(tmp_path / "1.png").shape
    assert 400 < height < 1400
    assert 400 < width < 1400


def test_confusion_matrix_is_shaded_by_row(tmp_path):
    def dark(counts):
        charts.confusion_matrix(tmp_path / "1.png", np.array(counts), ["a", "b"], "")
        picture = opened(tmp_path / "1.png")[:, :500].astype(int)  # without the color bar
        return np.nonzero(np.abs(picture - np.array([8, 48, 107])).sum(axis=2) < 6)

    few_and_many, equal = dark([[9, 0], [0, 9000]]), dark([[5, 0], [0, 5]])
    assert len(equal[0]) > 60_000
    assert len(few_and_many[0]) == pytest.approx(len(equal[0]), rel=0.02)
    # Only the second row is in one column: the lower right cell.
    y, x = (places.mean() for places in dark([[1, 1], [0, 1]]))
    assert y > 300
    assert x > 300


BLUE = (0x3F, 0x90, 0xDA)


def places(path, color):
    """Of all pixels of about a `color`: their y and x."""
    return np.nonzero(np.abs(opened(path).astype(int) - np.array(color)).sum(axis=2) < 12)


def test_bars_are_as_long_as_their_values_and_the_reference_is_gray(tmp_path):
    path = tmp_path / "1.png"
    charts.table_chart(path, {"of": ["one", "two", "other"], "share": [0.5, 1.0, 0.25]}, "", reference="other")
    rows, _ = places(path, BLUE)
    lengths = np.bincount(rows)
    longest = lengths.max()
    assert longest > 400
    assert lengths[: lengths.argmax()].max() == pytest.approx(longest / 2, abs=3)  # the line of the reference is on it
    gray, _ = places(path, [round(0.72 * 255)] * 3)
    assert np.bincount(gray).max() == pytest.approx(longest / 4, abs=3)


def test_intervals_are_drawn_where_there_are_some(tmp_path):
    top1 = {"top1": [50.0, 100.0], "top1_low": [30.0, 90.0], "top1_high": [70.0, 100.0 - 1e-14]}
    for keys in (["a", "b"], [1.0, 2.0]):
        without = {"key": keys, "top1": top1["top1"]}
        charts.table_chart(tmp_path / "with.png", {"key": keys, **top1}, "")
        charts.table_chart(tmp_path / "without.png", without, "")
        assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
    _, x = places(tmp_path / "with.png", [255 - round(0.15 * (255 - part)) for part in BLUE])  # the band of the line
    assert len(x) > 20_000
    one = {name: values[:1] for name, values in {"key": keys, **top1}.items()}
    charts.table_chart(tmp_path / "one.png", one, "")
    y, _ = places(tmp_path / "one.png", BLUE)
    assert np.ptp(y) > 150  # from the low to the high
    for name in ("top1_low", "top1_high_low"):  # a name like any other
        charts.table_chart(tmp_path / "low.png", {"key": keys, "top1": top1["top1"], name: [20.0, 30.0]}, "")
        assert len(places(tmp_path / "low.png", (0xFF, 0xA9, 0x0E))[0]) > 1000


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors(tmp_path):
    """Seen by the marks of what was measured, which are wider than the line between them."""
    columns = {"neighbors": [1, 10, 100], "accuracy": [50.0, 50.0, 50.0]}
    charts.table_chart(tmp_path / "1.png", columns, "", logarithmic=True)
    _, x = places(tmp_path / "1.png", BLUE)
    marks = np.flatnonzero(np.bincount(x) > 4)
    starts = marks[np.flatnonzero(np.diff(marks, prepend=-9) > 1)]
    assert len(starts) == 3
    assert starts[2] - starts[1] == pytest.approx(starts[1] - starts[0], abs=1)


def test_labels_of_a_logarithmic_axis_do_not_overlap():
    assert charts._labels_apart([1, 2, 5, 10, 20, 50, 100, 190, 195, 200]) == [
        "1", "2", "5", "10", "20", "50", "100", "190", "", "",
    ]  # fmt: skip
    assert charts._labels_apart([10, 1_234_567]) == ["10", "1234567"]
    assert charts._labels_apart([20]) == ["20"]


def test_a_class_with_any_name_is_in_the_legend(tmp_path):
    for name in ("background", "_background"):
        map_picture.embedding_map(tmp_path / f"{name}.png", np.zeros((1, 2)), np.zeros(1, int), [name], "")
    plain, underscored = (opened(tmp_path / f"{name}.png")[:, 850:] for name in ("background", "_background"))
    blue = [
        (np.abs(picture.astype(int) - np.array([95, 160, 224])).sum(axis=2) < 40).sum()
        for picture in (plain, underscored)
    ]
    assert blue[0] == blue[1] > 10


def test_a_class_without_letters_has_one_name_for_all_queries(tmp_path):
    """Its number, as on the map."""
    for name, labels in (("twice", [1, 1]), ("first", [1, 0])):
        sheets.neighbor_sheet(
            tmp_path / f"{name}.png", [plain(9)] * 2, labels, ["#1", "語"], [[plain(9)]] * 2, None, ""
        )
    assert (tmp_path / "twice.png").read_bytes() == (tmp_path / "first.png").read_bytes()


def dark_pixels(path, width):
    return (opened(path)[:, :width] < 128).all(axis=2).sum()


def test_classes_are_named_beside_queries_and_on_the_map(tmp_path):
    sheet, embedding = [], []
    for names in ([], ["a", "b"], ["a", "longer"]):
        for label in (0, 1):
            sheets.neighbor_sheet(tmp_path / "1.png", [plain(0)], [label], names, [[plain(0)]], [[True]], "")
            sheet.append(dark_pixels(tmp_path / "1.png", -1))
        map_picture.embedding_map(tmp_path / "2.png", np.array([[0.0, 0.0], [1, 1]]), np.arange(2), names, "")
        embedding.append(dark_pixels(tmp_path / "2.png", 800))  # without the legend
    assert sheet[0] == sheet[1] < sheet[2] == sheet[4] < sheet[5]
    assert embedding[0] < embedding[1] < embedding[2]


def test_the_first_of_each_class_come_by_label():
    labels = np.array([4, 0, 2, 0, 4, 0, 7])
    assert sheets.first_of_each_class(labels, classes=3, count=2).tolist() == [1, 3, 2, 0, 4]
    assert sheets.first_of_each_class(np.full(9, -1), classes=3, count=2).tolist() == [0, 1, 2, 3, 4, 5]
    assert sheets.first_of_each_class(np.full(4, -1), classes=3, count=2).tolist() == [0, 1, 2, 3]


def test_a_picture_stands_whole_below_its_title(tmp_path):
    image = 85 * np.random.default_rng(0).integers(0, 4, (200, 200, 3), np.uint8)
    sheets.picture(tmp_path / "1.png", image, "views")
    pixels = opened(tmp_path / "1.png")
    assert pixels.shape[1] == 200
    assert np.array_equal(pixels[-200:], image)
    assert (pixels[:-200] < 128).any()
