"""Reading safetensors files without trusting them.

The format: 8 bytes with the header's length n (little-endian), n bytes of JSON that give each tensor a dtype, a shape
and its range of bytes, then the bytes (https://huggingface.co/docs/safetensors). Every number in the header is held
against the size of the file before anything is allocated, and the header is read one tensor at a time: a general JSON
parser makes sixty bytes of every three in `[],[],[],...`. What is read here costs at most 26 times its length (were it
all metadata), and a header may be as long as a 64th of the data and a mebibyte. So whatever a file claims, reading it
takes at most one and a half times its size and 32 MiB; where it is bfloat16, which is widened, two and a half times.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vit_common.errors import CheckpointError

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip
MADE = {"BF16": "<f4", "BOOL": "?"}  # what NumPy lacks, or what any byte would not be
MAX_AXES = 32  # NumPy 1.26 has no more
MAX_HEADER = 1 << 20  # bytes, beside a 64th of the data
MAX_ENTRY = 4096  # bytes that describe one tensor
PIECE = 1 << 20  # bytes converted at a time

Entry = tuple[int, int, str, str, tuple[int, ...]]  # begin, end, name, dtype, shape

STRING = rb'"(?:[^"\\\x00-\x1f]++|\\.)*+"'
SPACE = rb"[ \t\n\r]*+"
# "name": {...} with no table inside, then what follows: the next or the end.
ITEM = re.compile(
    SPACE.join((b"", b"(" + STRING + b")", b":", rb"(\{(?:[^{}\"]++|" + STRING + rb")*+\})", rb"([,}])")), re.DOTALL
)


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Bfloat16, which NumPy lacks, becomes float32, exactly.

    Raises:
        CheckpointError: anything but a whole, well-formed file.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        entries, metadata, start = _header(file, size, path)
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


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a safetensors file alone: its tensors are not read.

    Raises:
        CheckpointError: the header is not well-formed.
    """
    with open(path, "rb") as file:
        return _header(file, os.fstat(file.fileno()).st_size, path)[1]


def _header(file: BinaryIO, size: int, path: Any) -> tuple[list[Entry], dict[str, str], int]:
    """The entries by their place in the file, the metadata, and where the data starts."""
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= size - 8:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is truncated: a header of {length} bytes in {size}"
        )
    if length > MAX_HEADER + (size - 8 - length) // 64:
        raise CheckpointError(f"{path} has a header of {length} bytes for {size - 8 - length} bytes of data; refused")
    entries: list[Entry] = []
    metadata: dict[str, str] = {}
    names = set[str]()
    try:
        for name, value in _items(file.read(length)):
            if name in names:
                raise ValueError(f"the name {name!r} occurs twice")
            names.add(name)
            if name == "__metadata__":
                metadata = json.loads(value.decode("utf-8"), object_pairs_hook=_no_twins)
            elif len(value) > MAX_ENTRY:
                raise CheckpointError(f"{path}: tensor {name!r} is described by {len(value)} bytes; refused")
            else:
                entries.append(_entry(name, json.loads(value.decode("utf-8"), object_pairs_hook=_no_twins), path))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: its header is not legal JSON ({error})") from error
    if not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: the header's __metadata__ is not a table of strings")
    return sorted(entries, key=lambda entry: entry[0]), metadata, 8 + length


def _items(text: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, table) one after the other; the tables are not looked into.

    Raises:
        ValueError: the header is no table of tables.
    """
    opening = re.match(SPACE + rb"\{(" + SPACE + rb"\})?", text)
    if opening is None:
        raise ValueError("it is no table of tensors")
    position, more = opening.end(), opening[1] is None
    while more:
        item = ITEM.match(text, position)
        if item is None:
            raise ValueError(f"at byte {position} no tensor is described; each needs dtype, shape and data_offsets")
        yield json.loads(item[1].decode("utf-8")), item[2]
        position, more = item.end(), item[3] == b","
    if text[position:].strip(b" \t\n\r"):
        raise ValueError(f"it goes on after its end, at byte {position}")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(name: str, value: Any, path: Any) -> Entry:
    """What the header says of one tensor, checked for itself."""
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
        array = np.empty(shape, MADE.get(dtype, DTYPES[dtype]))
    except ValueError as error:  # an empty tensor whose other axes are astronomically long
        raise CheckpointError(f"{path}: tensor {name!r} has the impossible shape {shape} ({error})") from error
    whole = _fill(file, array.reshape(-1), dtype) if array.size else True
    if not whole:
        raise CheckpointError(f"{Path(path)} was cut short while it was read, at tensor {name!r}")
    return array


def _fill(file: BinaryIO, flat: np.ndarray, dtype: str) -> bool:
    """Whether the file held all the bytes; those of dtypes that become another are read in pieces."""
    if dtype not in MADE:
        return file.readinto(flat.view(np.uint8)) == flat.nbytes  # type: ignore[attr-defined, no-any-return]
    stored = np.dtype(DTYPES[dtype])
    for first in range(0, flat.size, PIECE):
        part = flat[first : first + PIECE]
        raw = file.read(part.size * stored.itemsize)
        if len(raw) != part.size * stored.itemsize:
            return False
        values = np.frombuffer(raw, stored)
        if dtype == "BF16":  # the upper half of a float32
            part.view("<u4")[:] = values
            part.view("<u4")[:] <<= 16
        else:
            np.not_equal(values, 0, out=part)
    return True
