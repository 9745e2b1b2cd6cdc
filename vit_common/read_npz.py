"""Reading npz files without trusting them: no pickle, and nothing allocated that the archive cannot hold."""

import math
import os
import zipfile
from typing import Any, BinaryIO

import numpy as np

from vit_common.errors import CheckpointError

# Deflate cannot shrink more than 1032-fold; trained weights hardly shrink at all.
MAX_RATIO = 100
MAX_HEADER = 10_000


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name. Two-byte void arrays (`V2`), as JAX saves bfloat16, become float32.

    Raises:
        CheckpointError: damaged or cut short; an array of objects; contents that unpack to over 100 times the file.
    """
    try:
        size = os.path.getsize(path)
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            names = [member.filename for member in members]
            if len(set(names)) != len(names):
                raise CheckpointError(f"{path}: the archive holds one name twice")
            if sum(member.file_size for member in members) > MAX_RATIO * size:
                raise CheckpointError(f"{path} unpacks to more than {MAX_RATIO} times its {size} bytes; refused")
            arrays = {}
            for member in members:
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _array(
                        file, member.file_size, f"{path}: {member.filename}"
                    )
            return arrays
    except CheckpointError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and the header's parser each raise their own on hostile bytes
        raise CheckpointError(f"{path} cannot be read as an npz file ({type(error).__name__}: {error})") from error


def _array(file: Any, size: int, where: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise CheckpointError(f"{where} has the .npy version {version}; read here: 1.0 and 2.0")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file, max_header_size=MAX_HEADER)
    if dtype.hasobject or dtype.names or dtype.subdtype or (dtype.kind not in "fiubU" and dtype.str != "|V2"):
        raise CheckpointError(f"{where} holds {dtype}, not numbers; objects are never unpickled")
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
        raise CheckpointError(f"{where} has the illegal shape {shape}")
    if math.prod(shape) * dtype.itemsize + file.tell() != size:
        raise CheckpointError(f"{where} is {size} bytes long, which does not fit its shape {shape} of {dtype}")
    array = np.empty(shape[::-1] if fortran else shape, dtype)
    _fill(file, array, where)
    array = np.ascontiguousarray(array.T) if fortran else array
    if dtype.str == "|V2":
        return (array.view("<u2").astype("<u4") << 16).view("<f4")
    return array


def _fill(file: BinaryIO, array: np.ndarray, where: str, piece: int = 1 << 20) -> None:
    """Read the array's bytes in pieces; the last read past the end lets zipfile check the sum of the member."""
    flat = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
    done = 0
    while done < array.nbytes:
        chunk = file.read(min(piece, array.nbytes - done))
        if not chunk:
            raise CheckpointError(f"{where} is truncated")
        flat[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    if file.read(1):
        raise CheckpointError(f"{where} goes on after its array")
