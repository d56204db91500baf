"""Any picture that Pillow reads, as upright 8-bit RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from simclr.core.errors import UserError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), or (N, H, W, 3)

# Above its pixel limit Pillow warns, and only at twice the limit it raises. `catch_warnings` is not
# thread-safe, so the warning becomes an error here once, as Pillow's documentation suggests.
warnings.simplefilter("error", Image.DecompressionBombWarning)
# fetch decides once, within `accepting`; what it took is read without asking again.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = True
_BROKEN_OFF = ("image file is truncated", "broken data stream")
"""How Pillow says that only LOAD_TRUNCATED_IMAGES would have it go on."""


@contextmanager
def accepting(*, truncated: bool, megapixels: int) -> Iterator[None]:
    """Have `decode` refuse images above `megapixels` meanwhile, and unless `truncated` those whose data break off.

    It holds for all threads, because Pillow has one such setting for all. An image that is not refused has the same
    pixels here as elsewhere.
    """
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = megapixels * 10**6, truncated
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def to_rgb(image: Image.Image) -> Pixels:
    """The first frame of `image`, turned upright by its EXIF orientation, as (H, W, 3) uint8.

    Grey levels of 16 bits are scaled to 8, transparency is composited on white, CMYK is converted without a
    colour profile.

    Raises:
        ValueError: grey levels whose range is unknown (floating point, or integers outside 0 to 65535).
        OSError: and other errors of Pillow for pixel data that cannot be decoded.
    """
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point grey levels have no defined range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("32-bit grey levels have no defined range; save it with 8 or 16 bits")
        return np.repeat(((grey * 255 + 32767) // 65535).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def decode(data: bytes, name: str) -> Pixels:
    """The image file with the bytes `data` as (H, W, 3) uint8; see `to_rgb`. What is cut off is grey or black.

    Raises:
        UserError: names the file `name`: it is empty, no image, or not accepted (see `accepting`).
    """
    if not data:
        raise UserError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return to_rgb(image)
    except UnidentifiedImageError as error:  # its own text holds the address of the buffer
        raise UserError(f"{name}: not an image in a format that Pillow knows") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(" exceeds")[0].lower()
        raise UserError(f"{name}: {size} is above fetch.max_megapixels") from error
    except Exception as error:  # damaged bytes make Pillow's plugins raise almost anything
        reason = str(error) or type(error).__name__
        if reason.startswith(_BROKEN_OFF):
            reason += "; fetch.truncated: keep takes what there is"
        raise UserError(f"{name}: not a readable image ({reason})") from error


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """(height, width) if `data` is a JPEG that can be stored as it is, else None.

    It has three 8-bit components that libjpeg turns into RGB, and is upright. Only the header is read:
    `decode` tells whether the rest is sound.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return (image.height, image.width) if image.mode == "RGB" and _orientation(image) == 1 else None
    except Exception:  # as in `decode`
        return None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 2 to 8 where the picture has to be turned, else 1."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return 1
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 1
