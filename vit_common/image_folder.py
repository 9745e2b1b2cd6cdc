r"""Your own pictures: a folder with one subfolder for each class, whose name is the class's name.

    flowers/daisy/1.jpg           or, already split,      flowers/train/daisy/1.jpg
    flowers/rose/2.jpg                                    flowers/test/daisy/9.jpg     (or val/)

Without train/ and test/, a fixed share of each class becomes the test split. Images are decoded when they are
asked for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from vit_common.errors import DataError
from vit_common.images import load_image, resize_center_crop
from vit_common.masks import keyed_rng

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TEST_FOLDERS = ("test", "val", "valid", "validation")
SPLIT_SEED = 0  # fixed: the test images of a folder must not move from run to run


@dataclass(frozen=True)
class ImageFolder:
    """The files of a folder: class names in sorted order, and (paths, labels int64 (N,)) of both splits."""

    class_names: tuple[str, ...]
    train: tuple[list[Path], np.ndarray]
    test: tuple[list[Path], np.ndarray]


def find_images(folder: str | PathLike, test_fraction: float = 0.2) -> ImageFolder:
    """List a folder's images. DataError if it is missing or empty, has one class, or a class has no image."""
    folder = Path(folder)
    train, test = _split_folders(folder)
    names, files = _classes(train)
    if len(names) < 2:
        raise DataError(f"{train} has one class folder only, {names[0]!r}; a classifier needs two or more")
    paths, labels = _flatten(files, range(len(names)))
    if test is None:
        train_idx, test_idx = stratified_split(labels, test_fraction)
        parts = [([paths[i] for i in chosen], labels[chosen]) for chosen in (train_idx, test_idx)]
        return ImageFolder(names, *parts)
    test_names, test_files = _classes(test)
    if unknown := sorted(set(test_names) - set(names)):
        raise DataError(
            f"{test} has class folders that {train} lacks: {', '.join(unknown)}; rename or remove them"
        )
    return ImageFolder(
        names, (paths, labels), _flatten(test_files, [names.index(name) for name in test_names])
    )


class FolderSplit:
    """Images on disk, decoded, resized and cropped when asked for, and kept while `cache_bytes` last."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        image_size: tuple[int, int],
        channels: int = 3,
        crop_pct: float = 1.0,
        resize: int | None = None,
        cache_bytes: int = 1 << 29,
    ):
        self.paths, self.labels = tuple(paths), labels
        self.image_size, self.channels, self.crop_pct, self.resize = image_size, channels, crop_pct, resize
        self._cache: dict[int, np.ndarray] = {}
        self._cache_room = cache_bytes // (channels * image_size[0] * image_size[1])  # in images

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (n, C, H, W). Raises DataError, with the file's name, for one that cannot be decoded."""
        indices = np.asarray(indices, dtype=np.int64)
        out = np.empty((len(indices), self.channels, *self.image_size), np.uint8)
        for row, index in enumerate(indices.tolist()):
            out[row] = self._image(index)
        return out

    def _image(self, index: int) -> np.ndarray:
        if index in self._cache:
            return self._cache[index]
        image = load_image(self.paths[index], self.channels)
        image = resize_center_crop(image, self.image_size, self.crop_pct, self.resize).transpose(
            2, 0, 1
        )  # (C, H, W)
        if len(self._cache) < self._cache_room:
            image = self._cache[index] = np.ascontiguousarray(image)
        return image


def stratified_split(
    labels: np.ndarray, test_fraction: float, seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) indices, each sorted: about `test_fraction` of every class, ceil(test_fraction N) in all.

    Shares are rounded by largest remainder; a class of two images or more has at least one on each side.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction is {test_fraction!r}, expected a share strictly between 0 and 1")
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * (np.ceil(test_fraction * len(labels)) / len(labels))
    wanted = np.floor(shares).astype(int)
    left_over = round(shares.sum()) - wanted.sum()
    wanted[np.argsort(wanted - shares, kind="stable")[:left_over]] += 1
    wanted = np.clip(wanted, np.minimum(1, counts - 1), counts - 1)
    chosen = []
    for name, count in zip(classes.tolist(), wanted.tolist(), strict=True):
        members = np.flatnonzero(labels == name)
        # random_raw, not permutation: NumPy promises the bits of Philox, not the algorithms above them
        words = keyed_rng(seed, "split", name).bit_generator.random_raw(len(members))
        chosen.append(members[np.argsort(words, kind="stable")[:count]])
    test = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), test), test


def _split_folders(folder: Path) -> tuple[Path, Path | None]:
    """(train folder, test folder or None). Beside other classes, "train" is the name of a class."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} {'is a file' if folder.exists() else 'does not exist'}; expected a folder of images"
        )
    names = {path.name for path in _subfolders(folder)}
    test = next((name for name in TEST_FOLDERS if name in names), None)
    if "train" in names and test is not None:
        return folder / "train", folder / test
    return (folder / "train" if names == {"train"} else folder), None


def _classes(folder: Path) -> tuple[tuple[str, ...], list[list[Path]]]:
    """(class names, the image files of each)."""
    folders = _subfolders(folder)
    files = [_images_under(path) for path in folders]
    if not any(files):
        loose = sum(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())
        found = f"{loose} images but no class folders with images" if loose else "no images"
        raise DataError(
            f"{folder} holds {found}; expected one subfolder per class, with {', '.join(EXTENSIONS)} files"
        )
    if empty := [path.name for path, images in zip(folders, files, strict=True) if not images]:
        raise DataError(
            f"{folder} has class folders without an image: {', '.join(empty)}; fill or remove them"
        )
    return tuple(path.name for path in folders), files


def _subfolders(folder: Path) -> list[Path]:
    hidden = (".", "__")  # .git, .ipynb_checkpoints, __MACOSX, __pycache__
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(hidden))


def _images_under(folder: Path) -> list[Path]:
    """Every image below a class folder, in sorted order."""
    found = [
        Path(top, name) for top, _, names in os.walk(folder) for name in names if not name.startswith(".")
    ]
    return sorted(path for path in found if path.suffix.lower() in EXTENSIONS)


def _flatten(files: list[list[Path]], labels: Sequence[int]) -> tuple[list[Path], np.ndarray]:
    paths = [path for members in files for path in members]
    return paths, np.repeat(np.asarray(labels, np.int64), [len(members) for members in files])
