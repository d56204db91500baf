"""Decoding of any image that Pillow reads to upright 8-bit RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile, UnidentifiedImageError

from simclr.core.errors import UserError
from simclr.core.rgb import Pixels, orientation, to_rgb

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
            return (image.height, image.width) if image.mode == "RGB" and orientation(image) == 1 else None
    except Exception:  # as in `decode`
        return None
