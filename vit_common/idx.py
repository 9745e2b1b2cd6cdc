r"""The IDX format, in which MNIST and Fashion-MNIST are distributed.

A header of 4 bytes, `0 0 type ndim`, then `ndim` big-endian 32-bit sizes, then the values, big-endian, last
axis fastest. The file may be gzipped; its first two bytes tell, not its name. Source: Y. LeCun, C. Cortes, C.
Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import hashlib
import math
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from vit_common.errors import DataError

# The values are big-endian: ">i2" and so on.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | PathLike, ndim: int | None = None, dtype=None) -> np.ndarray:
    """The array in an IDX file, in native byte order. See `read_idx_md5` for the errors."""
    return read_idx_md5(path, ndim, dtype)[0]


def read_idx_md5(path: str | PathLike, ndim: int | None = None, dtype=None) -> tuple[np.ndarray, str]:
    """The array in an IDX file, and the MD5 of the uncompressed file: the same whoever gzipped it, and
    however hard.

    Raises DataError if the file is missing, not IDX, truncated, longer than its header says, a damaged gzip,
    or not of the expected `ndim` and `dtype`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else raw as stream:
                return _read(cast(BinaryIO, stream), path, ndim, dtype)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is a damaged or truncated gzip file ({error}); delete it and fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(stream: BinaryIO, path: Path, ndim: int | None, dtype) -> tuple[np.ndarray, str]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] == 0:
        raise DataError(
            f"{path} is no IDX file: it begins with {magic.hex(' ') or 'nothing'}, expected 00 00, a type "
            f"({', '.join(f'{code:02x}' for code in DTYPES)}) and the number of axes"
        )
    axes, found = magic[3], np.dtype(DTYPES[magic[2]])
    if ndim is not None and axes != ndim:
        raise DataError(f"{path} holds {axes} axes, expected {ndim}; are images and labels exchanged?")
    if dtype is not None and found.newbyteorder("=") != np.dtype(dtype):
        raise DataError(f"{path} holds {found.newbyteorder('=')} values, expected {np.dtype(dtype)}")
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(f"{path} is truncated: it ends inside its header; delete it and fetch it again")
    shape = struct.unpack(f">{axes}I", sizes)
    expected = math.prod(shape) * found.itemsize
    payload = _at_most(
        stream, expected + 1
    )  # one byte more than the header promises, to see whether there is more
    if len(payload) != expected:
        count = f"only {len(payload)}" if len(payload) < expected else "more"
        raise DataError(
            f"{path} has a header for {shape}, {expected} bytes, and holds {count}; "
            "it is truncated or damaged: delete it and fetch it again"
        )
    digest = hashlib.md5(magic + sizes, usedforsecurity=False)
    digest.update(payload)
    array = np.frombuffer(payload, found).reshape(shape)
    return array.astype(found.newbyteorder("="), copy=False), digest.hexdigest()


def _at_most(stream: BinaryIO, size: int, chunk: int = 1 << 20) -> bytearray:
    """Up to `size` bytes, read in chunks: a header that promises terabytes must not allocate them."""
    data = bytearray()
    while len(data) < size and (block := stream.read(min(chunk, size - len(data)))):
        data += block
    return data
