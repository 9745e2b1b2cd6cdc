"""The reader of CIFAR-10, binary version, on archives made here."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vit_common import cifar
from vit_common.errors import DataError


def cifar_blobs(records: int = 20) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    blobs = {}
    for name in cifar.TRAIN_FILES + cifar.TEST_FILES:
        rows = rng.integers(0, 256, (records, cifar.RECORD), dtype=np.uint8)
        rows[:, 0] %= 10
        blobs[name] = rows.tobytes()
    return blobs


def cifar_archive(path: Path, blobs: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, blob in blobs.items():
            member = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            member.size = len(blob)
            if name == link:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(blob) if name != link else None)
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_planes_and_labels(tmp_path, packed):
    blobs = cifar_blobs()
    path = cifar_archive(tmp_path / cifar.ARCHIVE, blobs) if packed else tmp_path
    if not packed:
        for name, blob in blobs.items():
            (tmp_path / name).write_bytes(blob)
    (train, train_labels), (test, test_labels) = cifar.read_cifar10(path, md5=None, records=20)
    assert train.shape == (100, 3, 32, 32)
    assert test.shape == (20, 3, 32, 32)
    assert train_labels.dtype == np.int64
    record = blobs["data_batch_3.bin"][
        2 * cifar.RECORD : 3 * cifar.RECORD
    ]  # image 42: third file, third record
    assert train_labels[42] == record[0]
    assert test_labels[0] == blobs["test_batch.bin"][0]
    assert train[42, 1, 5, 9] == record[1 + 1024 + 5 * 32 + 9]  # green plane, row 5, column 9


def test_cifar10_damage(tmp_path):
    blobs = cifar_blobs()
    path = tmp_path / cifar.ARCHIVE
    with pytest.raises(DataError, match="c32a1d4ab5d03f1284b67883e8d87530"):
        cifar.read_cifar10(cifar_archive(path, blobs), records=20)
    with pytest.raises(DataError, match=r"data_batch_2\.bin has .* expected"):
        cifar.read_cifar10(cifar_archive(path, blobs | {"data_batch_2.bin": b"\0" * 99}), None, 20)
    with pytest.raises(
        DataError, match=r"holds no data_batch_4\.bin"
    ):  # a link out of the archive is not followed
        cifar.read_cifar10(cifar_archive(path, blobs, link="data_batch_4.bin"), None, 20)
    bad_label = b"\x0a" + blobs["test_batch.bin"][1:]
    with pytest.raises(DataError, match="label 10"):
        cifar.read_cifar10(cifar_archive(path, blobs | {"test_batch.bin": bad_label}), None, 20)
    cifar_archive(path, blobs)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match="cannot be read"):
        cifar.read_cifar10(path, None, 20)
    for name in blobs:
        (tmp_path / name).write_bytes(b"\0" if name == "test_batch.bin" else blobs[name])
    with pytest.raises(DataError, match=r"test_batch\.bin has 1 bytes"):
        cifar.read_cifar10(tmp_path, None, 20)
