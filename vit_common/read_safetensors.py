"""Reading safetensors files without trusting them.

The format: 8 bytes with the header's length n (little-endian), n bytes of JSON that give each tensor a dtype, a shape
and its range of bytes, then the bytes (https://huggingface.co/docs/safetensors). Every number in the header is held
against the size of the file before anything is allocated: a forged header costs no more memory than the file has bytes.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vit_common.errors import CheckpointError

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip
MAX_AXES = 32  # NumPy 1.26 has no more


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Bfloat16, which NumPy lacks, becomes float32, exactly.

    Raises:
        CheckpointError: anything but a whole, well-formed file.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, start = _header(file, size, path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CheckpointError(f"{path}: the header's __metadata__ is not a table of strings")
        entries = sorted((_entry(name, value, path) for name, value in header.items()), key=lambda entry: entry[0])
        position = 0
        for begin, end, name, *_ in entries:  # the ranges must tile the bytes: no gap, no overlap
            if begin != position:
                raise CheckpointError(
                    f"{path}: tensor {name!r} starts at byte {begin}, expected {position}: damaged header"
                )
            position = end
        if start + position != size:
            raise CheckpointError(
                f"{path} is truncated or padded: its header describes {start + position} bytes, the file has {size}; "
                f"copy or download it again"
            )
        return {name: _tensor(file, name, dtype, shape, path) for _, _, name, dtype, shape in entries}, metadata


def _header(file: BinaryIO, size: int, path: Any) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= size - 8:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is truncated: a header of {length} bytes in {size}"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: its header is not legal JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is no table of tensors")
    return header, 8 + length


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(name: str, value: Any, path: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """(begin, end, name, dtype, shape), checked against each other."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: tensor {name!r} needs dtype, shape and data_offsets, nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{path}: tensor {name!r} has dtype {dtype!r}; read here: {', '.join(DTYPES)}")
    if not _sizes(shape) or len(shape) > MAX_AXES or not _sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: tensor {name!r} has an illegal shape {shape!r} or data_offsets {offsets!r}")
    begin, end = offsets
    if end - begin != math.prod(shape) * int(DTYPES[dtype][2]):  # Python integers: no overflow
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} in {dtype} does not fill bytes {begin} to {end}"
        )
    return begin, end, name, dtype, tuple(shape)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _tensor(file: BinaryIO, name: str, dtype: str, shape: tuple[int, ...], path: Any) -> np.ndarray:
    """The next tensor of the file, whose size was checked: a writable array of its own."""
    try:
        array = np.empty(shape, DTYPES[dtype])
    except ValueError as error:  # an empty tensor whose other axes are astronomically long
        raise CheckpointError(f"{path}: tensor {name!r} has the impossible shape {shape} ({error})") from error
    if array.size and file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
        raise CheckpointError(f"{Path(path)} was cut short while it was read, at tensor {name!r}")
    if dtype == "BF16":  # the upper half of a float32
        return (array.astype("<u4") << 16).view("<f4")
    if dtype == "BOOL":
        return array != 0
    return array
