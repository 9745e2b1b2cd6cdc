r"""CIFAR-10, binary version: five training files and one test file, in a .tar.gz or unpacked.

Each record is 1 + 3072 bytes: the label 0..9, then 32 x 32 red, green and blue planes, row by row. (The
"python version" of the same data is a pickle, which can run any code when opened; it is never read here.)
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import tarfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from vit_common.errors import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32

Pair = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 3, 32, 32), labels int64 (N,)


def read_cifar10(path: str | PathLike, md5: str | None = MD5, records: int = 10_000) -> tuple[Pair, Pair]:
    """((train images, train labels), (test images, test labels)) from the archive or from the unpacked
    folder.

    The archive is checked against `md5` (None: not checked) and read in memory: nothing is ever extracted to
    disk. `records` is the number of images in each file. Raises DataError for anything missing or damaged,
    with its name.
    """
    path = Path(path)
    names = TRAIN_FILES + TEST_FILES
    if path.is_dir():
        blobs = {name: _read_file(path / name) for name in names}
    else:
        blobs = _read_archive(path, names, md5, records * RECORD)
    pairs = [_parse(blobs[name], f"{path}: {name}", records) for name in names]
    train = pairs[: len(TRAIN_FILES)]
    return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), pairs[-1]


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; unpack the whole of {ARCHIVE} there"
        ) from error


def _read_archive(path: Path, names: tuple[str, ...], md5: str | None, size: int) -> dict[str, bytes]:
    blobs = {}
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 is not None and found != md5:
                raise DataError(f"{path} has MD5 {found}, expected {md5}; delete it and fetch it again")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as archive:
                for member in archive:
                    name = Path(member.name).name
                    if name not in names or not member.isfile():
                        continue  # a link or a device called data_batch_1.bin is not one
                    if member.size != size:
                        raise DataError(
                            f"{path}: {name} has {member.size} bytes, expected {size}; fetch it again"
                        )
                    if content := archive.extractfile(member):
                        blobs[name] = content.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read as a .tar.gz ({error}); delete it and fetch it again"
        ) from error
    if missing := [name for name in names if name not in blobs]:
        raise DataError(f"{path} holds no {', '.join(missing)}; is it the binary version, {ARCHIVE}?")
    return blobs


def _parse(blob: bytes, source: str, records: int) -> Pair:
    if len(blob) != records * RECORD:
        raise DataError(
            f"{source} has {len(blob)} bytes, expected {records} records of {RECORD}; fetch it again"
        )
    rows = np.frombuffer(blob, np.uint8).reshape(records, RECORD)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(
            f"{source} holds the label {labels.max()}, expected 0..9; it is damaged, fetch it again"
        )
    return rows[:, 1:].reshape(records, 3, 32, 32), labels
