"""Small .beton files for tests."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from simclr.data import beton, loader
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.data.loader import Crops


def stored(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Beton:
    """`images` (N, H, W, 3) and `labels` (N,), written raw to `path` and opened."""
    height, width = images.shape[1:3]
    found = (StoredImage(RAW, height, width, image.tobytes()) for image in images)
    beton.write(path, found, labels, largest=images[0].nbytes)
    return beton.read(path)


def described(file: Beton, sample: int) -> npt.NDArray[np.uint8]:
    """What the bytes of `sample` are the pixels of (H, W, 3), by Pillow, which raises almost anything if of nothing."""
    data = file.data[file.starts[sample] :][: file.sizes[sample]].tobytes()
    if file.modes[sample] == RAW:
        return np.frombuffer(data, np.uint8).reshape(file.heights[sample], file.widths[sample], 3)
    with Image.open(io.BytesIO(data)) as image:
        # the faster inverse DCT, which upstream asks for: with damaged tables the other makes other pixels
        image.decoderconfig = (1, 1)
        return np.asarray(image.convert("RGB"))


def noise(count: int, size: int, seed: int) -> npt.NDArray[np.uint8]:
    """`count` images of `size` x `size` random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def read_pixels(file: Beton, samples: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64], size: int) -> Tensor:
    """The pixels that the loader reads on a CPU: whole images (B, H, W, 3), or crops (B, V, size, size, 3)."""
    loaded = loader.load(file, samples, [Crops(boxes, size)], torch.device("cpu"))
    return loaded["pixels"] if file.uniform else loaded["pixels.0"]
