"""Decoding and the evaluation transform, against Pillow done by hand and against stored crops."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_common.errors import ConfigError, DataError, DtypeError, ShapeError
from vit_common.images import load_image, preprocess, resize_center_crop

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = Path(os.environ.get("VIT_SHARED", ROOT.parent / "shared")) / "data" / "photos"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos in {PHOTOS} (VIT_SHARED)")


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@needs_photos
def test_stored_crops_are_reproduced_to_the_pixel():
    """Where both roundings of the long side agree: the stored crops rounded it, torchvision truncates."""
    compared = 0
    for crop in (PHOTOS / "crops224").glob("*.png"):
        source = next(path for path in PHOTOS.iterdir() if path.stem == crop.stem.removesuffix("_224"))
        image = load_image(source)
        long_side = 248 * max(image.shape[:2]) / min(image.shape[:2])
        if round(long_side) == int(long_side):
            got = resize_center_crop(image, 224, resize=248)
            np.testing.assert_array_equal(got, load_image(crop), err_msg=crop.name)
            compared += 1
    assert compared >= 2


@given(st.integers(5, 90), st.integers(5, 90), st.integers(1, 40), st.sampled_from([0.875, 0.9, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_square_crop_is_the_published_recipe(height, width, size, crop_pct):
    image = noise(height, width)
    short = math.floor(size / crop_pct)
    if width < height:
        new = short, int(short * height / width)  # (width, height), as Pillow wants it
    else:
        new = int(short * width / height), short
    want = Image.fromarray(image).resize(new, Image.Resampling.BICUBIC)
    top, left = round((new[1] - size) / 2.0), round((new[0] - size) / 2.0)
    want = np.asarray(want.crop((left, top, left + size, top + size)))
    np.testing.assert_array_equal(resize_center_crop(image, size, crop_pct), want)


@given(
    st.integers(3, 60),
    st.integers(3, 60),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([0.6, 0.875, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_size_comes_out_as_asked(height, width, h, w, crop_pct):
    for channels in (1, 3):
        assert resize_center_crop(noise(height, width, channels), (h, w), crop_pct).shape == (h, w, channels)


def test_centre_and_proportions_are_kept():
    image = np.zeros((90, 210, 3), np.uint8)
    image[30:60, 90:120] = 255  # a white square in the middle of a wide picture
    out = resize_center_crop(image, 30, resize=30)
    ys, xs = np.nonzero(out[:, :, 0] > 127)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (10, 19, 10, 19)


def test_an_image_of_the_right_size_is_left_alone():
    image = noise(16, 16)
    np.testing.assert_array_equal(resize_center_crop(image, 16), image)


def test_transform_errors():
    with pytest.raises(ConfigError, match=r"resize=20 .* too small"):
        resize_center_crop(noise(50, 60), 24, resize=20)
    with pytest.raises(ConfigError, match="did you mean 'bicubic'"):
        resize_center_crop(noise(50, 60), 24, interpolation="bicubik")
    for pct in (0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="crop_pct"):
            resize_center_crop(noise(50, 60), 24, pct)
    with pytest.raises(ShapeError):
        resize_center_crop(noise(50, 60)[0], 24)
    with pytest.raises(DtypeError, match="uint8"):
        resize_center_crop(noise(50, 60).astype(np.float32), 24)
    for size in (0, -3, 2.5, (1, 2, 3), "224"):
        with pytest.raises(ConfigError, match="size"):
            resize_center_crop(noise(50, 60), size)


# --- decoding ---


def test_grey_and_rgb(tmp_path):
    colour = noise(6, 5)
    Image.fromarray(colour).save(tmp_path / "c.png")
    np.testing.assert_array_equal(load_image(tmp_path / "c.png"), colour)
    grey = load_image(tmp_path / "c.png", channels=1)
    assert grey.shape == (6, 5, 1)
    assert np.abs(grey[..., 0] - colour @ [0.299, 0.587, 0.114]).max() <= 1
    Image.fromarray(grey[..., 0]).save(tmp_path / "g.png")
    assert (load_image(tmp_path / "g.png") == grey).all()
    assert load_image(tmp_path / "g.png").shape == (
        6,
        5,
        3,
    )
    with pytest.raises(ConfigError, match="channels"):
        load_image(tmp_path / "c.png", channels=4)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png", 1)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (7, 4), (255, 255, 255)).convert(mode).save(path)
    assert (load_image(path) >= 250).all()
    assert load_image(path).shape == (4, 7, 3)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)), (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)), (8, lambda a: np.rot90(a)),
    ],
)  # fmt: skip
def test_exif_orientation_is_applied(tmp_path, orientation, undo):
    stored = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), undo(stored))


def test_unreadable_images_are_named(tmp_path):
    Image.fromarray(noise(64, 64)).save(tmp_path / "whole.png")
    Image.fromarray(noise(64, 64)).save(tmp_path / "whole.jpg")
    blobs = {
        "empty.png": b"",
        "text.jpg": b"this is no image at all",
        "cut.png": (tmp_path / "whole.png").read_bytes()[:3000],
        "cut.jpg": (tmp_path / "whole.jpg").read_bytes()[:1500],
    }
    for name, blob in blobs.items():
        (tmp_path / name).write_bytes(blob)
        with pytest.raises(DataError, match="cannot be read") as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match="is a folder"):
        load_image(tmp_path)
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="floating-point"):
        load_image(tmp_path / "float.tiff")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    Image.fromarray(noise(64, 64)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own guard, lowered
    with pytest.raises(DataError, match=r"big\.png"):
        load_image(tmp_path / "big.png")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_preprocess_is_the_chain(tmp_path, dtype):
    Image.fromarray(noise(40, 30)).save(tmp_path / "a.png")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    got = preprocess(tmp_path / "a.png", 16, 18, mean, std, dtype=dtype)
    crop = resize_center_crop(noise(40, 30), 16, resize=18).transpose(2, 0, 1)
    want = (crop / 255 - mean[:, None, None]) / std[:, None, None]
    assert got.shape == (1, 3, 16, 16)
    assert got.dtype == dtype
    assert (
        np.abs(got[0] - want).max() <= 4 * np.finfo(dtype).eps / std.min()
    )  # four roundings of numbers below 1/std
    assert preprocess(tmp_path / "a.png", 8, mean=[0.5], std=[0.5], channels=1).shape == (1, 1, 8, 8)
    for bad_std in ([0.2, 0, 0.2], [0.2, float("nan"), 0.2]):
        with pytest.raises(ConfigError, match="std above 0"):
            preprocess(tmp_path / "a.png", 8, std=bad_std)
