r"""Datasets under one roof: digits, MNIST, Fashion-MNIST, CIFAR-10, or a folder of your own pictures.

    data = load_dataset("digits")
    for indices in batches(epoch_order(len(data.train), seed=0, epoch=3), batch_size=64):
        images = augment("shift", data.train.images(indices), 0, 3, indices)   # uint8 (B, C, H, W)
        x, labels = data.normalise(images), data.train.labels[indices]         # float (B, C, H, W), int (B,)

Pixels stay uint8 until a batch is normalised. Order is keyed by (seed, epoch), never drawn from a global
generator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, sep
from pathlib import Path
from typing import Protocol

import numpy as np

from vit_common import cifar
from vit_common.digits import read_digits
from vit_common.download import REMOTES, cache_dir
from vit_common.download import download as fetch
from vit_common.errors import ConfigError, DataError, nearest
from vit_common.idx import read_idx_md5
from vit_common.image_folder import FolderSplit, find_images
from vit_common.images import HALF_MEAN, HALF_STD, Floats, Size, as_pair, normalise, resize_center_crop
from vit_common.masks import keyed_rng

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10")
ALIASES = {"fashionmnist": "fashion-mnist", "fashion": "fashion-mnist", "cifar-10": "cifar10"}

MNIST_LIKE = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Where the files may lie below the data folder: ours, torchvision's, or the folder itself.
SUBFOLDERS = {
    "mnist": ("mnist", "MNIST/raw", ""),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw", ""),
    "cifar10": ("cifar10", ""),
}
# MD5 of the four files, uncompressed: in a folder of bare files only this tells MNIST from Fashion-MNIST.
MD5 = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
# Mean and standard deviation of the training pixels, in units of full white, as commonly used for each set.
MEAN_STD = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
TEN_DIGITS = tuple("0123456789")
CLASS_NAMES = {
    "digits": TEN_DIGITS,
    "mnist": TEN_DIGITS,
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "cifar10": cifar.CLASS_NAMES,
}  # fmt: skip
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow converts RGB to grey


class Split(Protocol):
    """One half of a dataset: `labels` int64 (N,), and the images of any indices as uint8 (n, C, H, W)."""

    labels: np.ndarray

    def __len__(self) -> int: ...
    def images(self, indices: np.ndarray) -> np.ndarray: ...


class ArraySplit:
    """Images in memory, uint8 (N, C, H, W); resized, or changed to grey or RGB, batch by batch if asked."""

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        image_size: tuple[int, int] | None = None,
        channels: int | None = None,
    ):
        self.pixels, self.labels = pixels, np.asarray(labels, np.int64)
        self.image_size = image_size or pixels.shape[2:]
        self.channels = channels or pixels.shape[1]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (n, C, H, W), a copy."""
        batch = self.pixels[np.asarray(indices, np.int64)]  # (n, C, H, W)
        if self.channels == 1 and batch.shape[1] == 3:
            batch = np.rint(np.einsum("c,nchw->nhw", LUMA, batch))[:, None].astype(np.uint8)
        elif self.channels == 3 and batch.shape[1] == 1:
            batch = batch.repeat(3, axis=1)
        if batch.shape[2:] != self.image_size and len(batch):
            resized = [resize_center_crop(image, self.image_size) for image in batch.transpose(0, 2, 3, 1)]
            batch = np.ascontiguousarray(np.stack(resized).transpose(0, 3, 1, 2))
        return batch


@dataclass(frozen=True)
class Dataset:
    """Two splits, the names of the classes, and the mean and std (C,) that normalise the pixels."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def normalise(self, images: np.ndarray, dtype=np.float32) -> np.ndarray:
        r"""uint8 (B, C, H, W) -> float (B, C, H, W): $(x / 255 - \mu_c) / \sigma_c$."""
        return normalise(images, self.mean, self.std, dtype)


def load_dataset(
    name_or_folder: str | PathLike,
    data_dir: str | PathLike | None = None,
    image_size: Size | None = None,
    in_channels: int | None = None,
    download: bool = True,
    progress: bool = True,
    *,
    resize: int | None = None,
    crop_pct: float = 1.0,
    mean: Floats | None = None,
    std: Floats | None = None,
    test_fraction: float = 0.2,
) -> Dataset:
    """Load a dataset by name ("digits", "mnist", "fashion-mnist", "cifar10"), or a folder of class folders by
    its path.

    `data_dir` is where the files are or shall be put (default: the environment variable VIT_CACHE, or the
    user's cache folder); what is not there is downloaded, unless `download` is False. `image_size` and
    `in_channels` (1 or 3) default to the dataset's own, for a folder to 224 and 3. `mean` and `std` default
    to the dataset's; for a folder they are 0.5, and `images.IMAGENET_MEAN`, `IMAGENET_STD` are there for
    models that want those. `resize`, `crop_pct` (see `images.resize_center_crop`) and `test_fraction` are for
    folders. Raises DataError for a name that is neither, and for files that are missing, damaged, or not what
    their name says.
    """
    if in_channels not in (None, 1, 3):
        raise ConfigError(
            f"in_channels is {in_channels!r}, expected 1 (grey), 3 (RGB), or None for the dataset's own"
        )
    size = None if image_size is None else as_pair(image_size)
    name = known_name(name_or_folder)
    train: Split
    test: Split
    if name is None:
        found = find_images(Path(name_or_folder).expanduser(), test_fraction)
        channels, class_names = in_channels or 3, found.class_names
        train, test = (
            FolderSplit(paths, labels, size or (224, 224), channels, crop_pct, resize)
            for paths, labels in (found.train, found.test)
        )
        usual: tuple[Floats, Floats] = HALF_MEAN[:channels], HALF_STD[:channels]
    else:
        (pixels, labels), test_pair = _read(name, data_dir, download, progress)
        train, test = ArraySplit(pixels, labels, size, in_channels), ArraySplit(*test_pair, size, in_channels)
        channels, class_names = in_channels or pixels.shape[1], CLASS_NAMES[name]
        usual = MEAN_STD.get(name) or (np.array([pixels.mean() / 255]), np.array([pixels.std() / 255]))
    return Dataset(
        name or str(name_or_folder),
        train,
        test,
        class_names,
        _per_channel("mean", usual[0] if mean is None else mean, channels),
        _per_channel("std", usual[1] if std is None else std, channels),
    )


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `n` samples in one epoch: a permutation, int64 (n,), keyed by (seed, epoch)."""
    # The order of n random words. Generator.permutation may change with NumPy, and then no run could resume.
    return np.argsort(keyed_rng(seed, "order", epoch).bit_generator.random_raw(n), kind="stable")


def batches(order: np.ndarray, batch_size: int, drop_last: bool = False) -> Iterator[np.ndarray]:
    """Cut an order into index arrays of `batch_size`; the last one may be shorter, unless it is dropped."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size!r}, expected 1 or more")
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))


def known_name(name_or_folder: str | PathLike) -> str | None:
    """The dataset's name, or None for an existing folder. A folder called mnist is reached as ./mnist."""
    text = str(name_or_folder)
    name = text.lower().replace("_", "-")
    name = ALIASES.get(name, name)
    if name in DATASETS and not isinstance(name_or_folder, Path):
        return name
    if text and Path(name_or_folder).expanduser().exists():
        return None
    if sep in text or "/" in text or isinstance(name_or_folder, Path):
        raise DataError(
            f"there is no folder {text}; give a folder of class folders, or one of {', '.join(DATASETS)}"
        )
    raise DataError(
        f"unknown dataset {text!r}; {nearest(name, DATASETS)}; or the path of a folder of class folders"
    )


def _per_channel(name: str, values: Floats, channels: int) -> np.ndarray:
    """float64 (C,): grey statistics serve all three channels, and RGB ones are weighed into one grey."""
    array = np.asarray(values, np.float64)
    if array.shape in ((1,), (channels,)):
        return np.broadcast_to(array, (channels,)).copy()
    if array.shape == (3,) and channels == 1:
        return np.array([LUMA @ array])
    raise ConfigError(
        f"{name} has shape {array.shape}, expected one value for each of the {channels} channels"
    )


def _read(
    name: str, data_dir: str | PathLike | None, download: bool, progress: bool
) -> tuple[cifar.Pair, cifar.Pair]:
    if name == "digits":
        return read_digits(data_dir)
    root = cache_dir(data_dir)
    places = [root / sub for sub in SUBFOLDERS[name]]
    located = [_locate(name, place) for place in places]
    files = next((complete for found in located if (complete := _complete(found))), None)
    if files is None and not download:
        looked = "".join(
            f"\n  {place} lacks {', '.join(wanted for wanted, path in found.items() if path is None)}"
            for place, found in zip(places, located, strict=True)
        )
        raise DataError(
            f"{name} is not on this machine, and downloading is switched off. Looked in:{looked}\n"
            "(unpacked files would do as well). Put them there, point data_dir at them, or allow the download"
        )
    if files is None:
        files = [fetch(remote, places[0], progress) for remote in REMOTES[name]]
    return cifar.read_cifar10(files[0]) if name == "cifar10" else _read_mnist_like(name, files)


def _complete(found: dict[str, Path | None]) -> list[Path] | None:
    paths = [path for path in found.values() if path is not None]
    return paths if len(paths) == len(found) else None


def _locate(name: str, folder: Path) -> dict[str, Path | None]:
    """Each file of a dataset -> where it is in a folder: packed, unpacked, or `train-images.idx3-ubyte`."""
    if name == "cifar10":
        spellings: dict[str, tuple[str, ...]] = {cifar.ARCHIVE: (cifar.ARCHIVE, cifar.FOLDER)}
    else:
        spellings = {f"{stem}.gz": (f"{stem}.gz", stem, stem.replace("-idx", ".idx")) for stem in MNIST_LIKE}
    return {
        wanted: next((folder / spelling for spelling in names if (folder / spelling).exists()), None)
        for wanted, names in spellings.items()
    }


def _read_mnist_like(name: str, files: Sequence[Path]) -> tuple[cifar.Pair, cifar.Pair]:
    arrays = []
    for position, path in enumerate(files):
        array, md5 = read_idx_md5(path, ndim=1 if position % 2 else 3, dtype=np.uint8)
        if md5 != MD5[name][position]:
            whose = next((other for other, known in MD5.items() if md5 in known), None)
            what = f"that is a file of {whose}" if whose else "it is damaged, or a file of another dataset"
            raise DataError(
                f"{path} is not the file of {name} that its name says: MD5 of its content is {md5}, expected "
                f"{MD5[name][position]}; {what}. Name the right dataset, or replace the file"
            )
        arrays.append(array)
    return (arrays[0][:, None], arrays[1]), (arrays[2][:, None], arrays[3])  # (N, 1, 28, 28), (N,)
