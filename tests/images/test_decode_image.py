import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from simclr.core.errors import UserError
from simclr.core.rgb import to_rgb
from simclr.data import upstream  # noqa: F401
from simclr.images.decode_image import accepting, decode, plain_jpeg

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def strictly(data, name):
    """`decode`, as fetch has it unless it is told otherwise."""
    with accepting(truncated=False, megapixels=1):
        return decode(data, name)


def smooth(height=24, width=40):
    """A picture that JPEG hardly changes."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 5, rows * 2 + columns * 3], axis=2).astype(np.uint8)


def test_rgb_is_kept():
    pixels = decode(encoded(Image.fromarray(RAMP), "PNG"), "x.png")
    assert pixels.dtype == np.uint8
    assert (pixels == RAMP).all()


def test_argument_is_not_changed():
    image = Image.open(io.BytesIO(encoded(Image.fromarray(smooth()), "JPEG", exif=oriented(6))))
    to_rgb(image)
    assert image.size == (40, 24)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "JPEG"])
def test_grey_becomes_three_equal_channels(kind):
    grey = np.full((5, 7), 60, np.uint8)
    pixels = decode(encoded(Image.fromarray(grey), kind), "x")
    assert pixels.shape == (5, 7, 3)
    assert (pixels == 60).all()


def test_bilevel_becomes_black_and_white():
    bits = np.eye(9, dtype=bool)
    assert (decode(encoded(Image.fromarray(bits), "PNG"), "x") == 255 * bits[:, :, None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind):
    grey = np.array([[0, 1, 128, 129, 257, 1000, 32768, 65534, 65535]], np.uint16)
    expected = [round(value * 255 / 65535) for value in grey[0].tolist()]
    pixels = decode(encoded(Image.fromarray(grey), kind), "x")
    assert pixels.shape == (1, 9, 3)
    assert pixels[0, :, 0].tolist() == pixels[0, :, 2].tolist() == expected


@pytest.mark.parametrize("grey", [np.array([[0, 70000]], np.int32), np.array([[-1, 5]], np.int32)])
def test_32_bits_are_refused(grey):
    with pytest.raises(UserError, match=r"x\.tif: .*32-bit grey levels have no defined range"):
        decode(encoded(Image.fromarray(grey), "TIFF"), "x.tif")


def test_floating_point_is_refused():
    with pytest.raises(UserError, match=r"x\.tif: .*floating-point"):
        decode(encoded(Image.fromarray(np.array([[0.5]], np.float32)), "TIFF"), "x.tif")


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, "PNG"), "x").tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_palette_entry_becomes_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = decode(encoded(image, "PNG", transparency=transparency), "x")
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_transparent_grey_of_16_bits_becomes_white():
    image = Image.fromarray(np.array([[0, 40000]], np.uint16))
    pixels = decode(encoded(image, "PNG", transparency=0), "x")
    assert pixels.tolist() == [[[255] * 3, [156] * 3]]


def test_transparent_color_of_an_rgb_picture_becomes_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    pixels = decode(encoded(image, "PNG", transparency=(4, 5, 6)), "x")
    assert pixels.tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode):
    color = (40, 80, 120, 102) if mode == "RGBA" else (40, 102)
    pixels = decode(encoded(Image.new(mode, (3, 2), color), "PNG"), "x")
    share = 102 / 255
    expected = [round(value * share + 255 * (1 - share)) for value in (color[:-1] * 3)[:3]]
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_cmyk_jpeg():
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), level) for level in (0, 255, 128, 51)])
    pixels = decode(encoded(ink, "JPEG", quality=95), "x.jpg").astype(int)
    expected = [(255 - level) * (255 - 51) / 255 for level in (0, 255, 128)]
    assert np.abs(pixels - expected).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    data = encoded(Image.fromarray(smooth()), "JPEG", quality=95, subsampling=0, exif=oriented(orientation))
    # EXIF 2.32, 4.6.4: the tag says where row 0 and column 0 of the stored picture are when it stands upright
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }[orientation](smooth().astype(int))
    assert np.abs(decode(data, "x").astype(int) - upright).max() <= 6
    assert plain_jpeg(data) == ((24, 40) if orientation == 1 else None)


def test_16_bit_png_is_turned_too():
    grey = np.array([[0, 257, 514]], np.uint16)
    pixels = decode(encoded(Image.fromarray(grey), "PNG", exif=oriented(6)), "x")
    assert pixels[:, :, 0].tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("block", [b"", b"nonsense", b"MM\x00*\x00\x00\x00\x08\x00\x05\x01\x12"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Truncated File Read:UserWarning")
def test_damaged_exif_does_not_spoil_the_picture(block):
    data = encoded(Image.fromarray(smooth()), "JPEG")
    payload = b"Exif\x00\x00" + block
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]
    assert decode(data, "x").shape == (24, 40, 3)
    assert plain_jpeg(data) == (24, 40)


def test_damaged_exif_of_a_png_does_not_spoil_the_picture():
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n4\nnot hexadecimal")
    assert (decode(encoded(Image.fromarray(RAMP), "PNG", pnginfo=text), "x") == RAMP).all()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, "x.gif") == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, world\n", "not an image in a format that Pillow knows"),
        (encoded(Image.fromarray(smooth()), "JPEG")[:-20], "not a readable image .*truncated"),
        (encoded(Image.fromarray(smooth()), "JPEG")[:4], "not "),
        (encoded(Image.fromarray(smooth()), "PNG")[:-60], "not a readable image"),
    ],
)
def test_unreadable_is_named(data, reason):
    with pytest.raises(UserError, match=rf"^some/cat\.jpg: {reason}") as caught:
        strictly(data, "some/cat.jpg")
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("size", [(1001, 1000), (2001, 1000)])  # Pillow warns, Pillow raises
def test_image_above_the_limit_is_refused_meanwhile(size):
    program = """
import sys
from simclr.core.errors import UserError
from simclr.images.decode_image import accepting, decode
data = sys.stdin.buffer.read()
for megapixels in (3, 1):
    try:
        with accepting(truncated=False, megapixels=megapixels):
            decode(data, "x.png")
    except UserError as error:
        print(error)
decode(data, "x.png")
"""  # in a process of its own, because pytest turns every warning into an error
    data = encoded(Image.new("1", size), "PNG")
    ran = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    expected = f"x.png: image size ({size[0] * size[1]} pixels) is above fetch.max_megapixels\n"
    assert (ran.stdout.decode(), ran.stderr) == (expected, b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"])
def test_image_that_breaks_off_is_refused_or_taken_as_far_as_it_goes(kind):
    whole = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    data = encoded(Image.fromarray(whole), kind)
    with pytest.raises(
        UserError, match=r"^x: not a readable image \(.*; fetch\.truncated: keep takes what there is\)$"
    ):
        strictly(data[: len(data) * 2 // 3], "x")
    pixels = decode(data[: len(data) * 2 // 3], "x")
    assert pixels.shape == (80, 80, 3)
    assert (pixels == decode(data[: len(data) * 2 // 3], "x")).all()
    assert (strictly(data, "x") == decode(data, "x")).all()
    if kind != "JPEG2000":  # which has all of the picture at a lower resolution first
        same = (pixels == decode(data, "x")).all(axis=(1, 2))
        assert 0.3 < same.mean() < 0.8


PLAIN = {
    "4:4:4": encoded(Image.fromarray(smooth()), "JPEG", quality=95, subsampling=0),
    "4:2:0": encoded(Image.fromarray(smooth()), "JPEG", quality=95, subsampling=2),
    "progressive": encoded(Image.fromarray(smooth()), "JPEG", quality=95, progressive=True),
    "RGB components": encoded(Image.fromarray(smooth()), "JPEG", quality=95, keep_rgb=True),
    "two pictures": encoded(
        Image.fromarray(smooth()), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (8, 8))]
    ),
    "unknown orientation": encoded(Image.fromarray(smooth()), "JPEG", quality=95, exif=oriented(0)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpeg_decodes_alike_with_ffcv(name):
    data = PLAIN[name]
    assert plain_jpeg(data) == (24, 40)
    by_ffcv = np.zeros((24, 40, 3), np.uint8)
    from ffcv.libffcv import imdecode  # after simclr.data.upstream, which has it start no threads

    assert imdecode(np.frombuffer(data, np.uint8), by_ffcv, 24, 40, 24, 40, 0, 0, 1, 1, False, False) == 0
    assert np.abs(by_ffcv.astype(int) - decode(data, "x")).max() <= 4
    assert np.abs(by_ffcv.astype(int) - smooth()).max() <= 24


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        encoded(Image.fromarray(smooth()), "PNG"),
        encoded(Image.fromarray(smooth()[:, :, 0]), "JPEG"),
        encoded(Image.new("CMYK", (8, 8)), "JPEG"),
        encoded(Image.fromarray(smooth()), "JPEG", exif=oriented(3)),
    ],
    ids=["empty", "cut", "png", "grey", "cmyk", "turned"],
)
def test_not_plain(data):
    assert plain_jpeg(data) is None
