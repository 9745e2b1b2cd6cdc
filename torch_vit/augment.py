r"""The twin of `vit_common.augment` and `vit_common.images.normalise`, as tensor operations: the bytes are uploaded, a
quarter of the floats, and shifted, mirrored and normalised on the device.

What happens to an image is drawn where NumPy draws it, from the same keys: a few numbers an image. A shift and a flip
only move pixels, so both together are one gather, and the result is NumPy's to the bit.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.augment import check_augmentation, draw_flip, draw_shift
from vit_common.raw_images import RawImages


def images_on_device(raw: RawImages, dtype: torch.dtype, upload: Callable[[np.ndarray], Tensor]) -> Tensor:
    """uint8 (B, C, H, W) -> float (B, C, H, W), the tensor of `raw.to_numpy()`.

    Raises:
        ConfigError: an unknown augmentation.
    """
    check_augmentation(raw.augment)
    pixels = upload(raw.pixels)
    if raw.augment != "none":
        pixels = move(pixels, raw, upload)
    scale, offset = (1 / (255 * raw.std)), raw.mean / raw.std  # (C,) in float64, rounded once, as in NumPy
    rounded = [upload(a.astype(str(dtype).removeprefix("torch."))[:, None, None]) for a in (scale, offset)]
    return pixels.to(dtype).mul_(rounded[0]).sub_(rounded[1])


def move(pixels: Tensor, raw: RawImages, upload: Callable[[np.ndarray], Tensor]) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): each image's window of its padded self, mirrored where the draw says so."""
    batch, channels, height, width = raw.pixels.shape
    key = raw.pixels, raw.seed, raw.epoch, raw.indices
    rows, columns = (np.tile(np.arange(n), (batch, 1)) for n in (height, width))  # (B, H), (B, W)
    if "flip" in raw.augment:
        columns = np.where(draw_flip(*key)[:, None], width - 1 - columns, columns)
    if "shift" in raw.augment:
        (down, right), top, left = draw_shift(*key)
        rows, columns = rows + top[:, None], columns + left[:, None]
        pixels = F.pad(pixels, (right, right, down, down))
    image, channel = (torch.arange(n, device=pixels.device) for n in (batch, channels))
    places = image[:, None, None, None], channel[:, None, None], upload(rows)[:, None, :, None]
    return pixels[*places, upload(columns)[:, None, None, :]]
