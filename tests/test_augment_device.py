"""Augmentation on the device: the tensor operations give NumPy's images, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_vit.augment import images_on_device
from torch_vit.engine import TorchEngine
from torch_vit.options import TorchOptions
from torch_vit.transfer import Upload
from vit_common.augment import AUGMENTATIONS
from vit_common.errors import ConfigError
from vit_common.raw_images import RawImages

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def raw(shape=(5, 3, 9, 16), name="shift+flip", seed=0, epoch=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    indices = rng.choice(10**9, shape[0], replace=False)
    mean, std = rng.uniform(0.2, 0.6, shape[1]), rng.uniform(0.2, 0.4, shape[1])
    return RawImages(pixels, indices, name, seed, epoch, mean, std)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=no_gpu)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    batch=st.integers(1, 6), channels=st.sampled_from([1, 3]), height=st.integers(1, 20), width=st.integers(1, 20),
    name=st.sampled_from(AUGMENTATIONS), seed=st.integers(0, 99), epoch=st.integers(0, 9),
)  # fmt: skip
def test_the_device_makes_the_images_that_numpy_makes(device, dtype, batch, channels, height, width, name, seed, epoch):
    given_images = raw((batch, channels, height, width), name, seed, epoch)
    before = given_images.pixels.copy()
    made = images_on_device(given_images, getattr(torch, dtype), Upload(torch.device(device)))
    expected = given_images.to_numpy(dtype)
    assert made.dtype == getattr(torch, dtype)
    assert made.device.type == device
    assert np.array_equal(made.cpu().numpy(), expected)
    assert np.array_equal(given_images.pixels, before)


def test_only_bytes_and_a_few_numbers_an_image_are_uploaded():
    sent = []

    def upload(array):
        sent.append(array.nbytes)
        return torch.tensor(array)

    images = raw((4, 3, 64, 64))
    images_on_device(images, torch.float32, upload)
    assert sum(sent) <= images.pixels.nbytes + 4 * 8 * (64 + 64) + 2 * 3 * 4


@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=no_gpu)])
def test_the_engine_makes_its_images_where_it_computes(device):
    images = raw((4, 1, 8, 8))
    made = TorchEngine(TorchOptions(device=device)).images(images, "float32")
    assert made.device.type == device
    assert made.shape == (4, 1, 8, 8)
    assert device == "meta" or np.array_equal(made.cpu().numpy(), images.to_numpy())


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'shift'"):
        images_on_device(raw(name="shft"), torch.float32, torch.tensor)
