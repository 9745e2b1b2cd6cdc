r"""Training-time augmentation: a random shift and a random horizontal flip, keyed and vectorised over the
batch.

What happens to an image depends on (seed, epoch, its index in the dataset) alone: not on the batch it is in,
the order, the engine, the number of workers, or on what was drawn before. So both engines, and a run that was
resumed, see the same.

The random bits are SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators",
figure 17), a hash of a counter: word w of image i is mix64(base + (i * WORDS + w + 1) * golden), whichever
batch asks for it.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vit_common.errors import ConfigError, ShapeError, nearest
from vit_common.masks import keyed_rng

AUGMENTATIONS = ("none", "shift", "flip", "shift+flip")
WORDS = 4  # 64-bit words kept for each image: row, column, flip, one spare


def augment(name: str, images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, C, H, W), same dtype; `indices` (B,) are the images' places in the dataset.

    "none", "shift" (by up to an eighth of each side), "flip" (left-right, half of the images), "shift+flip".
    Apply it before normalisation, where 0 is black. Raises ConfigError for an unknown name.
    """
    check_augmentation(name)
    if "shift" in name:
        images = random_shift(images, seed, epoch, indices)
    if "flip" in name:
        images = random_flip(images, seed, epoch, indices)
    return images


def check_augmentation(name: str) -> None:
    """Raise ConfigError for an unknown name."""
    if name not in AUGMENTATIONS:
        raise ConfigError(f"unknown augmentation {name!r}; {nearest(name, AUGMENTATIONS)}")


def random_shift(
    images: np.ndarray, seed: int, epoch: int, indices: np.ndarray, pad: tuple[int, int] | None = None
) -> np.ndarray:
    """Pad with zeros by `pad` (rows, columns; default an eighth of each side), crop back at random."""
    rows, columns = images.shape[2:]
    (down, right), top, left = draw_shift(images, seed, epoch, indices, pad)
    padded = np.pad(images, ((0, 0), (0, 0), (down, down), (right, right)))
    windows = sliding_window_view(
        padded, (rows, columns), axis=(2, 3)
    )  # (B, C, 2*down+1, 2*right+1, H, W), a view
    return windows[np.arange(len(images)), :, top, left]  # (B, C, H, W): one window each, and the only copy


def random_flip(images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Mirror left and right in half of the images. Not for digits or letters: a mirrored 2 is no 2."""
    flip = draw_flip(images, seed, epoch, indices)
    out = images.copy()
    out[flip] = images[flip, :, :, ::-1]
    return out


def draw_shift(
    images: np.ndarray, seed: int, epoch: int, indices: np.ndarray, pad: tuple[int, int] | None = None
) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """The padding (rows, columns), and where in the padded image each window starts: top (B,), left (B,)."""
    rows, columns = images.shape[2:]
    down, right = pad if pad is not None else (max(rows // 8, 1), max(columns // 8, 1))
    words = _words(images, seed, epoch, indices)
    return (down, right), _below(words[:, 0], 2 * down + 1), _below(words[:, 1], 2 * right + 1)


def draw_flip(images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Which images are mirrored, bool (B,)."""
    return _words(images, seed, epoch, indices)[:, 2] >> np.uint64(63) == 1  # the top bit


def _words(images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Random 64-bit words, uint64 (B, WORDS)."""
    indices = np.asarray(indices)
    if images.ndim != 4 or indices.shape != images.shape[:1]:
        raise ShapeError(f"images {images.shape} and indices {indices.shape}: expected (B, C, H, W) and (B,)")
    # (1,), as an array: arrays wrap around silently, as the arithmetic modulo 2^64 below must
    base = keyed_rng(seed, "augment", epoch).bit_generator.random_raw(1)
    counter = indices.astype(np.uint64)[:, None] * np.uint64(WORDS) + np.arange(1, WORDS + 1, dtype=np.uint64)
    z: np.ndarray = base + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _below(words: np.ndarray, bound: int) -> np.ndarray:
    """Whole numbers in 0..bound-1, by multiply and shift (Lemire 2019); bias below bound / 2^32."""
    return ((words >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
