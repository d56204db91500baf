"""A PIL image of any mode as upright 8-bit RGB."""

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), or (N, H, W, 3)


def to_rgb(image: Image.Image) -> Pixels:
    """The first frame of `image`, turned upright by its EXIF orientation, as (H, W, 3) uint8.

    Grey levels of 16 bits are scaled to 8, transparency is composited on white, CMYK is converted without a
    colour profile.

    Raises:
        ValueError: grey levels whose range is unknown (floating point, or integers outside 0 to 65535).
        OSError: and other errors of Pillow for pixel data that cannot be decoded.
    """
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point grey levels have no defined range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("32-bit grey levels have no defined range; save it with 8 or 16 bits")
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[grey == transparent] = 65535
        return np.repeat(((grey * 255 + 32767) // 65535).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation: 2 to 8 if the image must be turned, else 1."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return 1
    return found if isinstance(found, int) and 2 <= found <= 8 else 1
