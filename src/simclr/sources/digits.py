"""scikit-learn's handwritten digits: 1797 real images of 8x8 pixels, which are part of the library.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI).
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from simclr.images import source_images
from simclr.sources import FetchParams

TEST_FRACTION = 0.2
SPLIT_SEED = 0  # not a parameter, so that all users have the same test split


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    """Write the digits to `output`, split by class into train and test; grey levels 0..16 become 0..255."""
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.broadcast_to(grey[:, :, :, None], (*grey.shape, 3))
    train, test = train_test_split(
        np.arange(len(images)), test_size=TEST_FRACTION, stratify=digits.target, random_state=SPLIT_SEED
    )
    splits: dict[str, source_images.Split] = {
        name: source_images.write_arrays(output, name, images[rows], digits.target[rows])
        for name, rows in (("train", np.sort(train)), ("test", np.sort(test)))
    }
    return source_images.Dataset("digits", [str(name) for name in digits.target_names], splits)
