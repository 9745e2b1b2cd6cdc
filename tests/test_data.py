"""Datasets by name: what is read, how it is split and ordered, and that damage is named."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_common import data as data_module
from vit_common.data import DATASETS, ArraySplit, batches, epoch_order, load_dataset
from vit_common.errors import ConfigError, DataError, DtypeError, ShapeError
from vit_common.image_folder import stratified_split
from vit_common.images import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("VIT_SHARED", ROOT.parent / "shared")) / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(), reason=f"no MNIST files in {SHARED} (VIT_SHARED)"
)


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def test_digits_are_sklearns_exactly():
    sklearn_datasets = pytest.importorskip(
        "sklearn.datasets", reason="compares with scikit-learn's own reader"
    )
    data = load_dataset("digits", download=False)
    assert (len(data.train), len(data.test)) == (1437, 360)
    pixels = np.concatenate([data.train.pixels, data.test.pixels])
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    values = np.rint(pixels * (16 / 255)).astype(int).reshape(-1, 64)  # the scale, undone
    labels = np.concatenate([data.train.labels, data.test.labels])
    wanted = sklearn_datasets.load_digits()
    rows = {tuple(row) for row in np.column_stack([values, labels]).tolist()}
    assert rows == {tuple(row) for row in np.column_stack([wanted.data, wanted.target]).astype(int).tolist()}


def test_digits_split_is_fixed_and_normalised():
    one, two = load_dataset("digits"), load_dataset("digits")
    np.testing.assert_array_equal(one.test.pixels, two.test.pixels)
    shares = np.bincount(one.test.labels) / np.bincount(np.concatenate([one.train.labels, one.test.labels]))
    assert np.abs(shares - 0.2).max() < 0.01
    # pinned: a split that moved would turn every published accuracy into a number about other images
    assert one.test.labels[:20].tolist() == PINNED_TEST_LABELS
    x = one.normalise(one.train.images(np.arange(len(one.train))), np.float64)
    assert abs(x.mean()) < 1e-12
    assert abs(x.std() - 1) < 1e-12


PINNED_TEST_LABELS = [0, 3, 1, 4, 0, 2, 1, 3, 6, 1, 7, 3, 1, 1, 1, 4, 3, 3, 9, 6]


@needs_shared
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("below", [True, False])
def test_mnist_like_from_a_data_folder(name, below):
    data = load_dataset(name, SHARED if below else SHARED / name, download=False)
    assert (len(data.train), len(data.test), len(data.class_names)) == (60000, 10000, 10)
    some = np.array([59999, 0, 7])
    batch = data.train.images(some)
    assert batch.shape == (3, 1, 28, 28)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch[1], data.train.pixels[0])
    assert data.train.labels.dtype == np.int64
    assert set(data.train.labels.tolist()) == set(range(10))
    pixels = data.train.pixels / 255
    np.testing.assert_allclose(
        [pixels.mean(), pixels.std()], [data.mean[0], data.std[0]], atol=5e-5
    )  # 4 digits given


@needs_shared
def test_torchvisions_layout_unpacked(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (SHARED / "fashion-mnist").glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    assert len(load_dataset("fashion_mnist", tmp_path, download=False).test) == 10000


@needs_shared
def test_a_folder_of_the_other_datasets_files_is_refused():
    with pytest.raises(DataError, match="that is a file of fashion-mnist") as caught:
        load_dataset("mnist", SHARED / "fashion-mnist", download=False)
    for part in (
        "train-images-idx3-ubyte.gz",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "6bbc9ace898e44ae57da46a324031adb",
    ):
        assert part in str(caught.value)


def test_files_of_right_shape_and_wrong_content_are_refused(tmp_path):
    for stem in data_module.MNIST_LIKE:
        array = np.zeros((5, 28, 28) if "images" in stem else 5, np.uint8)
        (tmp_path / stem).write_bytes(idx_bytes(array))
    with pytest.raises(DataError, match="damaged, or a file of another dataset"):
        load_dataset("mnist", tmp_path, download=False)


def test_missing_files_are_listed_with_the_places(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path, download=False)
    first, *_ = [line for line in str(caught.value).splitlines() if str(tmp_path / "mnist") in line]
    assert "t10k-labels-idx1-ubyte.gz" in first
    assert "train-images" not in first
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    monkeypatch.setenv("VIT_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="elsewhere"):
        load_dataset("cifar10", download=False)


@pytest.mark.parametrize("name", ["mnst", "no such thing", "cifar100", ""])
def test_an_unknown_name_lists_the_names_and_the_folder_way(name):
    with pytest.raises(DataError, match="unknown dataset") as caught:
        load_dataset(name)
    assert all(known in str(caught.value) for known in DATASETS)
    assert "folder" in str(caught.value)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'mnist'"):
        load_dataset("mnst")
    with pytest.raises(DataError, match="no folder"):
        load_dataset("pictures/that/are/not/there")


def test_stratified_split_partitions_and_rounds():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 50, 77])
    train, test = stratified_split(labels, 0.2)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert np.bincount(labels[test]).tolist() == [0, 1, 10, 16]  # one image: stays in training; two: one each
    other = stratified_split(labels, 0.2, seed=1)[1]
    assert other.tolist() != test.tolist()
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(DataError, match="test_fraction"):
            stratified_split(labels, share)


def test_epoch_order_is_a_keyed_permutation():
    order = epoch_order(1000, seed=3, epoch=5)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, epoch_order(1000, 3, 5))
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert (epoch_order(1000, seed, epoch) != order).mean() > 0.9
    # pinned across NumPy versions and machines: a resumed run must see the rest of the epoch it left
    assert epoch_order(8, 0, 0).tolist() == PINNED_ORDER


PINNED_ORDER = [3, 5, 6, 1, 0, 4, 7, 2]


def test_batches_cover_the_order_once():
    order = epoch_order(10, 0, 0)
    got = list(batches(order, 4))
    assert [len(b) for b in got] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(got), order)
    assert [len(b) for b in batches(order, 4, drop_last=True)] == [4, 4]
    assert list(batches(order, 11, drop_last=True)) == []
    with pytest.raises(ConfigError, match="batch_size"):
        batches(order, 0)


def test_array_split_resizes_and_changes_channels():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    grey = ArraySplit(pixels, np.arange(4), channels=1).images([2])
    want = np.asarray(Image.fromarray(pixels[2].transpose(1, 2, 0)).convert("L")).astype(int)
    assert grey.shape == (1, 1, 8, 8)
    assert np.abs(grey[0, 0] - want).max() <= 1
    rgb = ArraySplit(grey, [0], channels=3).images([0])
    assert rgb.shape == (1, 3, 8, 8)
    assert (rgb[0, 2] == grey[0, 0]).all()
    assert ArraySplit(pixels, np.arange(4), image_size=(16, 12)).images([1, 0]).shape == (2, 3, 16, 12)
    before = pixels.copy()
    ArraySplit(pixels, np.arange(4)).images([0, 1])[:] = 0  # the caller owns what he gets
    np.testing.assert_array_equal(pixels, before)


def test_named_dataset_in_another_size_and_colour():
    data = load_dataset("digits", image_size=16, in_channels=3)
    batch = data.normalise(data.test.images(np.arange(5)), np.float64)
    assert batch.shape == (5, 3, 16, 16)
    assert batch.dtype == np.float64
    assert data.mean.shape == (3,)
    for bad in ({"in_channels": 2}, {"image_size": 0}, {"image_size": (8, 8, 8)}, {"image_size": 8.5}):
        with pytest.raises(ConfigError):
            load_dataset("digits", **bad)


def test_normalise_is_the_formula_and_guards_its_input():
    data = load_dataset("digits", in_channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    images = np.random.default_rng(2).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    want = (images / 255 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))
    for dtype in (np.float32, np.float64):
        got = data.normalise(images, dtype)
        # four roundings (two constants, a product, a difference) of numbers below 1 / min(std)
        bound = 4 * np.finfo(dtype).eps / min(IMAGENET_STD)
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= bound
    with pytest.raises(DtypeError, match="uint8"):
        data.normalise(want)
    with pytest.raises(DtypeError, match="floating"):
        data.normalise(images, np.int64)
    with pytest.raises(ShapeError):
        data.normalise(images[:, :2])


def test_reading_needs_numpy_alone():
    code = (
        "import sys; from vit_common.data import load_dataset; load_dataset('digits');"
        "print([m for m in ('PIL', 'pooch', 'requests', 'tqdm', 'sklearn', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
