r"""From an image file to the array a model takes: decode, resize the short side, crop the centre, normalise.

The evaluation transform is the usual one of torchvision and timm, to the pixel: the short side is resized to
`floor(size / crop_pct)` (or to a given number of pixels) by Pillow's antialiased bicubic filter, the centre
is cropped, and

$$y = \frac{x / 255 - \mu_c}{\sigma_c}$$

Shapes: images are uint8 (H, W, C) here, and (C, H, W) only once they are a batch. Pillow is imported when
used.
"""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from vit_common.errors import ConfigError, DataError, DtypeError, ShapeError, nearest, require
from vit_common.memory import total_memory

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

Size = int | tuple[int, int]
Floats = Sequence[float] | np.ndarray  # one number for each channel


def as_pair(size: Size, name: str = "image_size") -> tuple[int, int]:
    """A size as (height, width) in pixels; ConfigError unless it is one or two positive integers."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in pair):
        raise ConfigError(
            f"{name} is {size!r}, expected a positive whole number of pixels or a (height, width) pair"
        )
    return int(pair[0]), int(pair[1])


def load_image(path: str | PathLike, channels: int = 3) -> np.ndarray:
    """Decode an image file, upright (its EXIF orientation applied), as uint8 (H, W, channels): 3 is RGB, 1 is
    grey.

    Grey is Pillow's luma, (299 R + 587 G + 114 B) / 1000; an alpha channel is dropped; 16-bit grey keeps its
    high byte. Raises DataError, with the file's name, if it is missing, truncated, or no image.
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels is {channels!r}, expected 3 (RGB) or 1 (grey)")
    require("PIL", extra="cli")
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        what = f"is {kind}, not an image" if path.exists() else "does not exist"
        raise DataError(f"image {path} {what}; give the path of one image file")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (
        Exception
    ) as error:  # Pillow's decoders raise a zoo: OSError, SyntaxError, struct.error, a bomb error ...
        raise DataError(
            f"image {path} cannot be read ({error}); it is damaged, or no image Pillow knows"
        ) from error
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it to 255 instead of scaling it
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise DataError(
            f"image {path} holds floating-point pixels of unknown range; save it with 8 or 16 bits"
        )
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert(
            "RGBA"
        )  # the palette's transparency is dropped with the alpha channel, like any other
    elif image.mode == "LAB":  # which Pillow converts to RGB only
        image = image.convert("RGB")
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def resize_center_crop(
    image: np.ndarray,
    size: Size,
    crop_pct: float = 1.0,
    resize: int | None = None,
    interpolation: str = "bicubic",
    squash: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (h, w, C): resize, keeping the proportions, then cut out the centre.

    `resize` is the length of the short side in pixels; without it, it is floor(size / crop_pct). For a `size`
    that is not square, the image is resized to just cover floor(h / crop_pct) by floor(w / crop_pct). With
    `squash`, (height, width), it is resized to that instead, whatever the proportions. Raises
    ConfigError for a resize smaller than the crop, ShapeError and DtypeError for what is no uint8 image.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ShapeError(f"image has shape {image.shape}, expected (H, W, 3) or (H, W, 1)")
    if image.dtype != np.uint8:
        raise DtypeError(f"image has dtype {image.dtype}, expected uint8 (0..255)")
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"unknown interpolation {interpolation!r}; {nearest(interpolation, INTERPOLATIONS)}"
        )
    if not 0 < crop_pct <= 1:
        raise ConfigError(
            f"crop_pct is {crop_pct!r}, expected a fraction in (0, 1], the share of a side that is kept"
        )
    height, width = as_pair(size, "size")
    new_height, new_width = squash or _resized(image.shape[:2], (height, width), crop_pct, resize)
    if new_height < height or new_width < width:
        raise ConfigError(f"squash={squash} is smaller than the {height}x{width} to cut out; give at least that")
    if (new_height, new_width) != image.shape[:2]:
        _check_room(image.shape, (new_height, new_width))
        image = _pillow_resize(image, (new_height, new_width), interpolation)
    top, left = (
        round((new_height - height) / 2),
        round((new_width - width) / 2),
    )  # half to even, as torchvision does
    return image[top : top + height, left : left + width]


def _resized(
    have: tuple[int, int], want: tuple[int, int], crop_pct: float, resize: int | None
) -> tuple[int, int]:
    """The (height, width) to resize to before the crop."""
    height, width = have
    if resize is None and want[0] != want[1]:
        cover = [math.floor(n / crop_pct) for n in want]
        scale = min(height / cover[0], width / cover[1])
        return max(round(height / scale), want[0]), max(round(width / scale), want[1])
    short = math.floor(want[0] / crop_pct) if resize is None else as_pair(resize, "resize")[0]
    if height <= width:
        new = short, int(short * width / height)
    else:
        new = int(short * height / width), short
    if new[0] < want[0] or new[1] < want[1]:
        raise ConfigError(
            f"resize={short} makes this {height}x{width} image {new[0]}x{new[1]}, too small to cut out "
            f"{want[0]}x{want[1]}; resize to at least {max(want)} pixels"
        )
    return new


def _check_room(shape: tuple[int, ...], new: tuple[int, int]) -> None:
    """Raise DataError if the resized image, once Pillow's and once as an array, is more than the machine holds."""
    need, have = new[0] * new[1] * (2 if shape[2] == 1 else 7), total_memory()  # Pillow's RGB has 4 bytes a pixel
    if have is not None and need > have:
        raise DataError(
            f"this {shape[0]}x{shape[1]} image would be resized to {new[0]}x{new[1]}, which takes {need:.1e} bytes, "
            f"and the machine has {have:.1e}; give a smaller resize, or cut the image nearer to a square"
        )


def _pillow_resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    require("PIL", extra="cli")
    from PIL import Image

    flat = image[:, :, 0] if image.shape[2] == 1 else image
    method = Image.Resampling[interpolation.upper()]
    resized = Image.fromarray(np.ascontiguousarray(flat)).resize((size[1], size[0]), method)
    return np.asarray(resized).reshape(*size, image.shape[2])


def normalise(images: np.ndarray, mean: Floats, std: Floats, dtype=np.float32) -> np.ndarray:
    r"""uint8 (B, C, H, W) -> float (B, C, H, W), $(x / 255 - \mu_c) / \sigma_c$, with mean and std (C,)."""
    mu, sigma = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if images.dtype != np.uint8:
        raise DtypeError(f"images have dtype {images.dtype}, expected uint8 (0..255): already normalised?")
    if not np.issubdtype(dtype, np.floating):
        raise DtypeError(f"dtype is {np.dtype(dtype)}, expected a floating type such as float32")
    if images.ndim != 4 or mu.shape != images.shape[1:2] or sigma.shape != mu.shape:
        raise ShapeError(
            f"images {images.shape}, mean {mu.shape}, std {sigma.shape}: expected (B, C, H, W), (C,), (C,)"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all() and np.all(sigma > 0)):
        raise ConfigError(
            f"mean is {mu.tolist()}, std is {sigma.tolist()}: expected finite numbers, std above 0"
        )
    x = images.astype(dtype)
    x *= (1 / (255 * sigma)).astype(dtype)[:, None, None]  # in place: one temporary less than the formula
    x -= (mu / sigma).astype(dtype)[:, None, None]
    return x


def preprocess(
    path: str | PathLike,
    image_size: Size,
    resize: int | None = None,
    mean: Floats = HALF_MEAN,
    std: Floats = HALF_STD,
    channels: int = 3,
    dtype=np.float32,
    crop_pct: float = 1.0,
    interpolation: str = "bicubic",
    squash: tuple[int, int] | None = None,
) -> np.ndarray:
    """An image file as a batch of one, (1, C, H, W), ready for the model: load, resize, crop, normalise."""
    image = resize_center_crop(load_image(path, channels), image_size, crop_pct, resize, interpolation, squash)
    return normalise(image.transpose(2, 0, 1)[None], mean, std, dtype)  # (1, C, H, W)
