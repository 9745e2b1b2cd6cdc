"""Pictures before they are augmented and normalised: bytes, and all that decides what a network sees of them."""

from typing import NamedTuple

import numpy as np

from vit_common.augment import augment
from vit_common.images import normalise


class RawImages(NamedTuple):
    """A batch as it comes from the dataset. An engine may upload the bytes and do the rest on its device."""

    pixels: np.ndarray  # uint8 (B, C, H, W)
    indices: np.ndarray  # (B,), places in the dataset: with seed and epoch the key of the augmentation
    augment: str
    seed: int
    epoch: int
    mean: np.ndarray  # (C,)
    std: np.ndarray  # (C,)

    def to_numpy(self, dtype: str = "float32") -> np.ndarray:
        """float (B, C, H, W), augmented and normalised."""
        pixels = augment(self.augment, self.pixels, self.seed, self.epoch, self.indices)
        return normalise(pixels, self.mean, self.std, np.dtype(dtype))
