"""Augmentation: a pure function of (images, seed, epoch, index), whoever asks, in whatever batch."""

from types import SimpleNamespace

import numpy as np
import pytest

from vit_common import augment as augment_module
from vit_common.augment import AUGMENTATIONS, augment, random_flip, random_shift
from vit_common.errors import ConfigError, ShapeError


def pictures(n: int, height: int = 16, width: int = 24, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (n, channels, height, width), dtype=np.uint8)  # never 0


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_pure_and_same_shape_and_dtype(name, dtype):
    images = pictures(9).astype(dtype)
    before = images.copy()
    images.flags.writeable = False
    one, two = (augment(name, images, 1, 2, np.arange(9)) for _ in range(2))
    assert one.shape == images.shape
    assert one.dtype == dtype
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_does_not_depend_on_its_batch(name):
    images, indices = pictures(40), np.arange(40) * 1_000_003
    whole = augment(name, images, 5, 7, indices)
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(augment(name, images[order], 5, 7, indices[order]), whole[order])
    for i in (0, 17, 39):
        np.testing.assert_array_equal(augment(name, images[i : i + 1], 5, 7, indices[i : i + 1])[0], whole[i])


@pytest.mark.parametrize("name", ["shift", "flip", "shift+flip"])
def test_seed_epoch_and_index_all_matter(name):
    images = pictures(64)
    base = augment(name, images, 0, 0, np.arange(64))
    for seed, epoch, first in ((1, 0, 0), (0, 1, 0), (0, 0, 64)):
        other = augment(name, images, seed, epoch, np.arange(first, first + 64))
        assert (other != base).any(axis=(1, 2, 3)).mean() > 0.3


def test_shift_moves_and_fills_with_zeros():
    images = pictures(200)
    out = random_shift(images, 3, 4, np.arange(200))
    seen = set()
    for image, moved in zip(images, out, strict=True):
        found = [
            (dy, dx)
            for dy in range(-2, 3)  # an eighth of 16 rows and of 24 columns
            for dx in range(-3, 4)
            if np.array_equal(moved, by_hand(image, dy, dx))
        ]
        assert len(found) == 1, "each image is its own picture moved by one vector, zeros elsewhere"
        seen.add(found[0])
    assert {dy for dy, _ in seen} == set(range(-2, 3))
    assert {dx for _, dx in seen} == set(range(-3, 4))


def by_hand(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    out = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                out[:, y, x] = image[:, y + dy, x + dx]
    return out


def test_draws_are_uniform_and_independent():
    n = 70_000
    ramp = np.broadcast_to(np.arange(1, 9, dtype=np.uint8), (n, 1, 8, 8))  # 8x8: a shift by at most 1
    shifted = random_shift(ramp, 0, 0, np.arange(n))
    dx = shifted[:, 0, 4, 4].astype(int) - 5  # column 4 holds 5 before the shift
    flipped = random_flip(ramp, 0, 0, np.arange(n))[:, 0, 0, 0] == 8
    # six standard deviations of a binomial share
    for value in (-1, 0, 1):
        assert abs((dx == value).mean() - 1 / 3) < 6 * np.sqrt(2 / 9 / n)
    assert abs(flipped.mean() - 0.5) < 6 * np.sqrt(0.25 / n)
    assert abs(np.corrcoef(dx, flipped)[0, 1]) < 6 / np.sqrt(n)
    assert abs(np.corrcoef(dx[:-1], dx[1:])[0, 1]) < 6 / np.sqrt(n), "neighbouring images move alike"


def test_flip_mirrors_left_and_right_only():
    images = pictures(50)
    out = random_flip(images, 1, 1, np.arange(50))
    same = np.array([np.array_equal(a, b) for a, b in zip(out, images, strict=True)])
    mirrored = np.array([np.array_equal(a, b[:, :, ::-1]) for a, b in zip(out, images, strict=True)])
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()


def test_both_together_are_one_after_the_other():
    images = pictures(20)
    args = 8, 9, np.arange(20)
    np.testing.assert_array_equal(
        augment("shift+flip", images, *args), random_flip(random_shift(images, *args), *args)
    )
    assert augment("none", images, *args) is images


def test_pinned_across_versions_and_machines():
    ramp = np.broadcast_to(np.arange(1, 9, dtype=np.uint8), (8, 1, 8, 8))
    assert random_shift(ramp, 0, 0, np.arange(8))[:, 0, 4, 4].tolist() == PINNED_SHIFT
    assert random_flip(ramp, 0, 0, np.arange(8))[:, 0, 0, 0].tolist() == PINNED_FLIP


PINNED_SHIFT = [6, 4, 4, 5, 4, 6, 5, 4]
PINNED_FLIP = [1, 1, 1, 1, 8, 8, 8, 1]


def test_bits_are_those_of_splitmix64(monkeypatch):
    seed = SimpleNamespace(bit_generator=SimpleNamespace(random_raw=lambda n: np.full(n, 1234567, np.uint64)))
    monkeypatch.setattr(augment_module, "keyed_rng", lambda *key: seed)
    words = augment_module._words(pictures(2), 0, 0, np.arange(2)).ravel()[:5].tolist()
    published = [  # the first outputs of SplitMix64 for the seed 1234567
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert words == published


def test_errors():
    with pytest.raises(ConfigError, match="did you mean 'shift"):
        augment("shft", pictures(2), 0, 0, np.arange(2))
    with pytest.raises(ShapeError, match="indices"):
        augment("shift", pictures(2), 0, 0, np.arange(3))
    with pytest.raises(ShapeError):
        augment("flip", pictures(2)[0], 0, 0, np.arange(2))
