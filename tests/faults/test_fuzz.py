"""A thousand damaged inputs each for the .beton reader and the checker of params.yaml: refused in one line, or taken
for what they say; never a traceback, another sample's pixels, a hang or a crash of the interpreter.

Every damage is drawn from the case's number alone.
"""

import dataclasses
import io
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from simclr.conversion.convert import ConvertParams
from simclr.core import params, params_file
from simclr.core.errors import UserError
from simclr.data import beton, cut, loader
from simclr.data.beton import JPEG, RAW, Beton, StoredImage
from simclr.data.upstream import ALLOC_TABLE_TYPE, FieldDescType, HeaderType, Reader
from simclr.embed.embed_params import EmbedParams
from simclr.finetune.finetune_params import FinetuneParams
from simclr.linear_eval.linear_eval_params import LinearEvalParams
from simclr.sources import FetchParams
from simclr.training.pretrain_params import PretrainParams
from tests.helpers import programs
from tests.helpers.betons import described, noise, read_pixels

CASES = 500


def fuzz(case: Callable[[int, Path], str], folder: Path) -> Counter[str]:
    """How many cases came to each result; all in one process, which a case may bring down."""
    ended = programs.warm(_cases, case, folder).end(seconds=120)
    results = (folder / "log").read_text().splitlines()
    assert ended.code == 0, f"case {len(results)}: {ended}"
    assert len(results) == CASES
    return Counter(results)


def _cases(case: Callable[[int, Path], str], folder: Path) -> None:
    with (folder / "log").open("w", buffering=1) as log:
        for number in range(CASES):
            log.write(case(number, folder) + "\n")


def refused(path: Path, error: UserError) -> str:
    """The result of a case, if `error` is a line that names the file `path`, fit to be printed."""
    assert str(error).startswith(f"{path}: ")
    reasons = str(error).split(f"{path}: ")[1:]
    assert len(reasons) <= 8
    assert all(0 < len(reason) < 400 for reason in reasons)
    assert str(error).isprintable(), ascii(str(error))
    return "refused"


# .beton


def picture(seed: int, side: int) -> npt.NDArray[np.uint8]:
    """Waves of many colors, other ones for each seed."""
    rows, columns = np.mgrid[0:side, 0:side]
    waves = [np.sin(rows / 7 + 2 * seed), np.cos(columns / 5 + seed), np.sin((rows + columns) / 9 + 3 * seed)]
    return (127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], **options: Any) -> StoredImage:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", subsampling=0, **options)
    return StoredImage(JPEG, *pixels.shape[:2], buffer.getvalue())


SOUND = {
    "raw": [StoredImage(RAW, 9, 9, image.tobytes()) for image in noise(6, 9, seed=0)],
    "mixed": [
        jpeg(picture(0, 24), quality=90),
        jpeg(picture(1, 33), quality=50),
        jpeg(picture(2, 40), progressive=True),
        StoredImage(RAW, 30, 30, picture(3, 30).tobytes()),
        jpeg(picture(4, 57), optimize=True),
        jpeg(picture(5, 64), quality=99),
    ],
}


@cache
def whole(kind: str, path: Path) -> tuple[bytes, list[range]]:
    """A sound file, and where its header, descriptors, table, images and allocations stand."""
    with mock.patch.object(beton, "MIN_PAGE", 1 << 14):  # not megabytes of zeros around the images
        beton.write(path, SOUND[kind], np.arange(6), largest=1 << 14)
    content, file, reader = path.read_bytes(), beton.read(path), Reader(str(path))
    ends = np.cumsum([0, HeaderType.itemsize, 2 * FieldDescType.itemsize, reader.metadata.nbytes]).tolist()
    images = zip(file.starts.tolist(), (file.starts + file.sizes).tolist(), strict=True)
    allocations = int(reader.header["alloc_table_ptr"])
    return content, [range(*edges) for edges in (*pairwise(ends), *images, (allocations, len(content)))]


def damaged(content: bytes, regions: list[range], draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        region = draw.choice(regions)
        at = draw.choice(region)
        length = min(draw.choice([1, 2, 4, 8, 40]), region.stop - at)
        match draw.choice(["bit", "bytes", "bytes", "swap", "pointer", "resize"]):
            case "bit":
                data[at] ^= 1 << draw.randrange(8)
            case "bytes":
                extremes = [bytes(length), b"\xff" * length, b"\x7f" * length]
                data[at : at + length] = draw.choice([*extremes, draw.randbytes(length)])
            case "swap":
                other = draw.choice(draw.choice(regions))
                here, there = slice(at, at + length), slice(other, other + length)
                data[here], data[there] = data[there], data[here]
            case "pointer":
                redirect(data, regions, draw)
            case "resize":
                match draw.choice(["cut", "append", "remove"]):
                    case "cut":
                        del data[draw.choice([at, len(data) - length]) :]
                    case "append":
                        data += draw.randbytes(length)
                    case "remove":
                        del data[at : at + length]
                break
    return bytes(data)


def redirect(data: bytearray, regions: list[range], draw: random.Random) -> None:
    """Have a sample point elsewhere, in both tables, so that the reader believes it."""
    table = np.frombuffer(data, beton._TABLE, 6, regions[2].start)
    allocations = np.frombuffer(data, ALLOC_TABLE_TYPE, 6, regions[-1].start)
    sample, other = draw.randrange(6), draw.choice(regions)
    allocations["size"][sample] = draw.choice([len(other), allocations["size"][sample]])
    table["f0"]["data_ptr"][sample] = allocations["ptr"][sample] = draw.choice([other.start, draw.choice(other)])


def described_if_sound(file: Beton, sample: int) -> npt.NDArray[np.uint8] | None:
    try:
        return described(file, sample)
    except Exception:  # of Pillow
        return None


def is_taken(file: Beton, sample: int) -> bool:
    """Whether `sample` is taken, for just what its bytes say; else it is refused."""
    whole = np.array([[[0, 0, file.heights[sample], file.widths[sample]]]])
    try:
        found = read_pixels(file, np.array([sample]), whole, 16).numpy()
    except UserError as error:
        message = str(error)
        assert message == f"{file.path}: the JPEG of sample {sample} is damaged; run convert again"
        return False
    expected = described_if_sound(file, sample)
    assert expected is not None, f"sample {sample} has pixels"
    if not file.uniform:
        resized = np.empty((1, 16, 16, 3), np.uint8)
        cut.cut_pixels(expected, whole[0], resized)
        expected = resized[0]
    assert (found.reshape(expected.shape) == expected).all(), f"sample {sample} has other pixels"
    return True


def read_beton(number: int, folder: Path) -> str:
    draw, path = random.Random(number), folder / "x.beton"
    kind = draw.choice(["raw", "mixed", "mixed", "mixed"])
    path.write_bytes(damaged(*whole(kind, folder / kind), draw))
    try:
        file = beton.read(path)
    except UserError as error:
        return refused(path, error)
    everything = np.arange(len(file))
    bad = [sample for sample in everything if not is_taken(file, sample)]
    if not bad:
        loader.thumbnails(file, everything, 16)
        return "taken"
    with pytest.raises(UserError, match=f"the JPEG of sample {bad[0]} is damaged"):
        loader.thumbnails(file, everything, 16)
    return "taken but for an image"


def test_a_damaged_beton_is_refused_or_taken_for_what_it_says(tmp_path: Path) -> None:
    results = fuzz(read_beton, tmp_path)
    assert min(results[result] for result in ("refused", "taken", "taken but for an image")) > CASES / 10


# params.yaml

SHIPPED = (programs.ROOT / "params.yaml").read_bytes()
SCHEMAS = {
    "fetch": FetchParams, "convert": ConvertParams, "pretrain": PretrainParams, "embed": EmbedParams,
    "linear_eval": LinearEvalParams, "finetune": FinetuneParams,
}  # fmt: skip
LAUGHS = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 9))
SCALARS = [
    "", "~", "null", "true", "yes", "0", "-1", "1", "2", "3.0", "0.5", "1e-05", "1e400", "9" * 400, "9" * 5000, "0x1F",
    "0o17", "1_000", ".nan", "-.inf", "1:30", "2024-01-01", "2024-13-45", "'5'", "digits", "cat", '"\\0"', '"\\uD800"',
    '"\\e[2J"', '"\\u2028"', '"\\x85"', "日本語", "🦊", "e\u0301\u202e", "x" * 3000, "${fetch.folder}",
    "${oc.env:HOME}", "???", "[]", "{}", "[1, x]", "[.nan, 1]", "[0.1, 0.2]", "[1.0, 0.5]", "{a: 1}", "{<<: {seed: 1}}",
    "? [a]", "| text", "*l1", "&l1 1", "!!int 3", "!!python/object/apply:os.system [ls]", "!!binary aGk=",
    "[" * 50 + "]" * 50, "[" * 99_999, "{a: " * 200, "- " * 500 + "1", "#", "'", '"', "@", "`", "%", ">-", "---", "...",
]  # fmt: skip
CHARACTERS = [
    "\t", "\r", "\0", "\x07", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", *" :-#[]{}&*!|>'\"%@?,~=é",
]  # fmt: skip
BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xfe\xff", b"\0"]


def mistaken(draw: random.Random) -> tuple[bytes, str]:
    """The shipped file after one or two mistakes, and the section where the last one was made."""
    text, section = SHIPPED.decode(), "fetch"
    for _ in range(draw.choice([1, 1, 1, 2])):
        lines = text.splitlines(keepends=True)
        at, other = (draw.randrange(len(lines)) for _ in range(2))
        section = next((name for line in lines[at::-1] if (name := line.split(":")[0]) in SCHEMAS), section)
        key, _, value = lines[at].partition(":")
        match draw.choice(["scalar"] * 5 + ["delete", "repeat", "move", "swap", "indent", "character", "laughs"]):
            case "scalar":
                lines[at] = f"{key}: {draw.choice(SCALARS)}\n"
            case "delete":
                del lines[at]
            case "repeat":
                lines.insert(other, lines[at])
            case "move":
                lines.insert(other, lines.pop(at))
            case "swap":
                other_key, _, other_value = lines[other].partition(":")
                lines[at], lines[other] = f"{key}:{other_value}", f"{other_key}:{value}"
            case "indent":
                lines[at] = draw.choice(["", " ", "    ", "\t", "- ", "? "]) + lines[at].lstrip(" ")
            case "character":
                place = draw.randrange(len(lines[at]))
                lines[at] = lines[at][:place] + draw.choice(CHARACTERS) + lines[at][place + draw.randrange(2) :]
            case "laughs":
                lines[:0] = LAUGHS
        text = "".join(lines)
    data = text.encode()
    match draw.choice(["whole"] * 12 + ["cut", "bytes", "marked", "utf-16"]):
        case "cut":
            data = data[: draw.randrange(len(data))]
        case "bytes":
            place = draw.randrange(len(data))
            data = data[:place] + draw.choice(BYTES) + data[place:]
        case "marked":
            data = b"\xef\xbb\xbf" + data
        case "utf-16":
            data = text.encode("utf-16")
    return data, section


def satisfies(given: Any, schema: type) -> bool:
    """Whether all of `given`, an instance of `schema`, has the declared types and allowed values."""

    def is_allowed(field: "dataclasses.Field[Any]", value: Any) -> bool:
        if dataclasses.is_dataclass(field.type):
            return satisfies(value, field.type)
        kind, *rest = get_args(field.type) or [field.type]
        if value is None:
            return type(None) in rest
        listed = isinstance(value, list)
        allowed = field.metadata.get("allowed")
        return (
            listed == (get_origin(field.type) is list)
            and all(type(item) is kind and item == item for item in (value if listed else [value]))
            and (allowed is None or allowed.test(value))
        )

    return type(given) is schema and all(
        is_allowed(field, getattr(given, field.name)) for field in dataclasses.fields(given)
    )


def load_params(number: int, folder: Path) -> str:
    path = folder / "params.yaml"
    data, section = mistaken(random.Random(number))
    path.write_bytes(data)
    try:
        loaded = params.load(section, SCHEMAS[section], path)
    except UserError as error:
        return refused(path, error)
    assert satisfies(loaded, SCHEMAS[section]), loaded
    assert dataclasses.asdict(loaded) == params_file.read(path)[section]
    return "taken"


def test_a_damaged_params_file_is_refused_or_taken_for_what_it_says(tmp_path: Path) -> None:
    results = fuzz(load_params, tmp_path)
    assert min(results["refused"], results["taken"]) > CASES / 10
