"""The IDX reader: every type, gzipped or not, and every kind of damage named."""

import gzip
import struct

import numpy as np
import pytest

from vit_common.errors import DataError
from vit_common.idx import read_idx, read_idx_md5


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (0xB, "i2"), (0xC, "i4"), (0xD, "f4"), (0xE, "f8")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_reads_every_type_back(tmp_path, code, dtype, zipped):
    array = (np.arange(-12, 12).reshape(2, 3, 4) * 5).astype(dtype)
    raw = idx_bytes(array, code)
    path = tmp_path / "file"  # the name says nothing: the content does
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    got = read_idx(path)
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array)


def test_idx_md5_is_that_of_the_unpacked_file(tmp_path):
    raw = idx_bytes(np.arange(6, dtype=np.uint8))
    digests = set()
    for name, blob in {"a": raw, "b": gzip.compress(raw, 1), "c": gzip.compress(raw, 9, mtime=7)}.items():
        (tmp_path / name).write_bytes(blob)
        digests.add(read_idx_md5(tmp_path / name)[1])
    assert len(digests) == 1


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
ZIPPED = gzip.compress(GOOD, mtime=0)  # the time of day would make another test of it in every process


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "nothing"),
        (b"\x89PNG\r\n", "no IDX file"),
        (b"\0\0\x07\x03" + GOOD[4:], "no IDX file"),
        (GOOD[:9], "inside its header"),
        (GOOD[:-1], "only 23"),
        (GOOD + b"\0", "more"),
        (
            b"\0\0\x08\x03" + b"\xff" * 12 + b"few bytes",
            "only 9",
        ),  # promises 2^96 bytes: must not allocate them
        (ZIPPED[:-9], "gzip"),
        (ZIPPED[:12] + b"\xff\xff\xff" + ZIPPED[15:], "gzip"),
    ],
    ids=["empty", "png", "type", "header", "short", "long", "huge", "zip-short", "zip-damaged"],
)
def test_idx_damage_is_a_data_error_that_names_the_file(tmp_path, blob, words):
    path = tmp_path / "broken-idx"
    path.write_bytes(blob)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_idx_of_the_wrong_rank_or_type_and_a_missing_one(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match="3 axes, expected 1"):
        read_idx(path, ndim=1)
    with pytest.raises(DataError, match="expected float32"):
        read_idx(path, dtype=np.float32)
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "absent")
