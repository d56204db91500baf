"""Decoding of any image that Pillow reads to upright 8-bit RGB."""

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
# No limits here: fetch checks every image once, within `accepting`.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = True
_TRUNCATED = ("image file is truncated", "broken data stream")
"""Pillow's errors for data that it reads only with LOAD_TRUNCATED_IMAGES."""


@contextmanager
def accepting(*, truncated: bool, megapixels: int) -> Iterator[None]:
    """Let `decode` refuse images above `megapixels` and, without `truncated`, images whose data are cut off.

    This holds for all threads, because Pillow's settings are global. It does not change the pixels of other images.
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


def decode(data: bytes, name: str, *, keys: bool = True) -> Pixels:
    """Decode the bytes `data` of an image file to (H, W, 3) uint8; see `to_rgb`. Missing data become grey or black.

    Errors name the `keys` of params.yaml that allow a refused image, unless there is no params.yaml to change.

    Raises:
        UserError: names the file `name`: it is empty, no image, or refused (see `accepting`).
    """
    if not data:
        raise UserError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return to_rgb(image)
    except UnidentifiedImageError as error:  # its message has the address of the buffer
        raise UserError(f"{name}: not an image in a format that Pillow knows") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(" exceeds")[0].lower()
        limit = "fetch.max_megapixels" if keys else f"{(Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
        raise UserError(f"{name}: {size} is above {limit}") from error
    except Exception as error:  # damaged bytes make Pillow's plugins raise almost anything
        reason = str(error) or type(error).__name__
        if keys and reason.startswith(_TRUNCATED):
            reason += "; fetch.truncated: keep takes what there is"
        raise UserError(f"{name}: not a readable image ({reason})") from error


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """(height, width) if `data` is a JPEG that can be stored unchanged, else None.

    Such a JPEG is upright, with three 8-bit components that libjpeg converts to RGB. Only the header is read: `decode`
    checks the rest.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return (image.height, image.width) if image.mode == "RGB" and _orientation(image) == 1 else None
    except Exception:  # as in `decode`
        return None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation: 2 to 8 if the image must be turned, else 1."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return 1
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 1
