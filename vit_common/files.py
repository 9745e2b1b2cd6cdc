"""Writing files so that a crash, a full disk or a second reader never meets half of one."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.errors import CheckpointError, DataError, require


@contextlib.contextmanager
def naming(action: str, path: str | os.PathLike) -> Iterator[None]:
    """Whatever the system refuses inside becomes a DataError that names the file and the cause."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"cannot {action} {path}: {why}; put that right, or choose another place") from error


def write_atomically(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in the place of `path` in one move."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode  # the user's own default; some writers make files only the owner can read
            write(temporary)
            temporary.chmod(mode)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it was moved, or could not be made
            temporary.unlink()


def check_writable(folder: str | os.PathLike) -> None:
    """Raise DataError unless files can be written into the folder, which is made; for what ends in a long way off."""
    with naming("write into", folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder)):
            pass


def append_line(path: str | os.PathLike, text: str) -> None:
    """Append to a file of lines; a crash or a full disk may cut the last one."""
    with naming("write", path), open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")


def write_json(path: str | os.PathLike, value: Any) -> None:
    text = json.dumps(value, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from error


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """A flat dict of arrays as a safetensors file; `metadata` are strings kept in its header."""
    safetensors = require("safetensors.numpy", extra="cli")
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}

    def write(temporary: Path) -> None:
        try:
            safetensors.save_file(whole, temporary, dict(metadata))
        except require("safetensors", extra="cli").SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error

    write_atomically(path, write)


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a safetensors file. Raises CheckpointError if it is missing, cut short, or none."""
    safetensors = require("safetensors", extra="cli")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file ({error})") from error
