"""Tensors from a file or folder, whatever its format: safetensors (single or sharded), npz, torch.

Which format a file has is told by its first bytes, not by its name.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_common.errors import CheckpointError, require
from vit_common.read_npz import read_npz
from vit_common.read_safetensors import read_metadata, read_safetensors

# In a folder, the first of these that exists.
WEIGHT_FILES = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "model.npz",
    "pytorch_model.bin",
)  # fmt: skip
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "teacher", "net", "params")
NPZ_CONFIG = "__vit_config__"  # a text member of the npz files written here
JSON_LIMIT = 4 << 20  # config.json, or the index of shards: 21,000 labels take one of these
TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"  # the pickled number that opens files of torch before 1.6


class TensorFile(NamedTuple):
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    settings: dict[str, Any] | None  # config.json of the folder that it is, or lies in under a known name
    name: str  # of the file or folder, to recognise published names


def read_tensors(path: str | os.PathLike) -> TensorFile:
    """Everything that a checkpoint file or folder holds.

    Raises:
        CheckpointError: missing, empty, cut short, not a checkpoint, or a folder without one.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _folder(path)
        if not path.exists():
            raise CheckpointError(f"{path} does not exist")
        tensors, metadata = _file(path)
        beside = path.name in WEIGHT_FILES and "vit_config" not in metadata  # a file of a hub folder, named by itself
        settings = _folder_settings(path.parent) if beside else None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    return TensorFile(tensors, metadata, settings, path.name)


def read_descriptions(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, Any] | None]:
    """(metadata, config.json) of a checkpoint file or folder, without its tensors.

    Raises:
        CheckpointError: missing, or its header or config.json is damaged.
    """
    path, settings = Path(path), None
    try:
        if path.is_dir():
            path, settings = path / "model.safetensors", _folder_settings(path)
            if not path.exists():
                return {}, settings
        start = _start(path)
        if start[:2] == b"PK" or start.startswith(TORCH_MAGIC):
            return {}, settings
        return read_metadata(path), settings
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error


def _folder_settings(folder: Path) -> dict[str, Any] | None:
    found = [folder / name for name in ("config.json", "open_clip_config.json") if (folder / name).exists()]
    return read_settings(found[-1]) if found else None


def _folder(folder: Path) -> TensorFile:
    settings = _folder_settings(folder)
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            tensors, metadata = _shards(folder / name) if name.endswith(".json") else _file(folder / name)
            return TensorFile(tensors, metadata, settings, folder.name)
    raise CheckpointError(f"folder {folder} holds no checkpoint; looked for {', '.join(WEIGHT_FILES)}")


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file that must hold a table."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise CheckpointError(f"{path} is larger than {JSON_LIMIT} bytes; refused")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no table of settings but {type(values).__name__}")
    return values


def _shards(index: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of all shards that an index names; each tensor must be in the shard the index says."""
    weight_map = read_settings(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map from tensor names to file names")
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or "\\" in shard or shard in ("", ".", ".."):
            raise CheckpointError(f"{index} names the shard {shard!r}, which is not a file beside it; refused")
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{index.parent} lacks the shard {shard} that {index.name} names; download it too")
        for name, tensor in read_safetensors(index.parent / shard)[0].items():
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"shard {shard} holds {name!r}, which {index.name} places in {weight_map.get(name)!r}"
                )
            tensors[name] = tensor
    missing = sorted(weight_map.keys() - tensors.keys())
    if missing:
        raise CheckpointError(f"{index} promises {len(missing)} tensors that no shard holds, e.g. {missing[0]!r}")
    return tensors, {}


def _start(path: Path) -> bytes:
    """The first bytes, which tell the format. Raises CheckpointError for an empty file and a Git LFS pointer."""
    with open(path, "rb") as file:
        start = file.read(40)
    if not start:
        raise CheckpointError(f"{path} is empty; copy or download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file it stands for; fetch it with: git lfs pull")
    return start


def _file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    start = _start(path)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        if _is_torch_zip(path):
            return _read_torch(path), {}
        arrays = read_npz(path)
        text = arrays.pop(NPZ_CONFIG, None)
        return arrays, {} if text is None else {"vit_config": str(text)}
    if start.startswith(TORCH_MAGIC):
        return _read_torch(path), {}
    return read_safetensors(path)


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.namelist())
    except Exception:  # a damaged archive: read_npz says what is wrong with it
        return False


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict saved by torch, unwrapped from the tables that training scripts put around it."""
    torch = require("torch", extra="torch")
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types on damaged files
        raise CheckpointError(
            f"{path} cannot be read as a torch file of plain tensors ({type(error).__name__}: {str(error)[:200]}); "
            f"save the model's state_dict() alone"
        ) from error
    for wrapper in WRAPPERS * 2:  # a wrapper may be wrapped
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds {type(value).__name__}, not a table of tensors; save the model's state_dict()"
        )
    tensors = {name: tensor for name, tensor in value.items() if isinstance(name, str) and torch.is_tensor(tensor)}
    limit = 4 * path.stat().st_size
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > limit:
        raise CheckpointError(f"{path} describes tensors of more than four times its size; refused")
    return {name: _to_numpy(torch, tensor, name, path) for name, tensor in tensors.items()}


def _to_numpy(torch: Any, tensor: Any, name: str, path: Path) -> np.ndarray:
    try:
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy().copy()
    except Exception as error:  # sparse, quantised or 8-bit tensors
        raise CheckpointError(f"{path}: tensor {name!r} is no plain array ({error})") from error
