"""Checkpoints: this project's own, and everybody's.

The own format is a safetensors file with the configuration in its metadata; in a folder it is `model.safetensors` with
`config.json` beside it. The parameters keep the names they have here, which are timm's.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.config import ViTConfig
from vit_common.config_source import find_config
from vit_common.errors import CheckpointError, DataError, DtypeError, VitError
from vit_common.files import write_arrays, write_json
from vit_common.layouts import check_fit, check_unmixed, find_layout, get_layout
from vit_common.layouts.layout import Model
from vit_common.mae_config import MaeConfig
from vit_common.read_safetensors import MAX_HEADER
from vit_common.read_tensors import TensorFile, read_descriptions, read_tensors

MAX_CONFIG = 1 << 16  # bytes of a configuration embedded in a file
MAX_TEXT = MAX_HEADER * 3 // 4  # bytes of metadata: the names of the tensors take their part of a header


def save_checkpoint(
    path: str | os.PathLike, config: Model, params: Mapping[str, np.ndarray], extra: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint: one file if `path` ends in `.safetensors`, else a folder.

    Each file is written under a temporary name and then moved into place: a reader meets the old one or the new one,
    never half of one. `extra` is kept with the configuration, as JSON; `read_extra` gives it back.

    Raises:
        CheckpointError, ShapeError: the parameters do not fit the configuration.
        DtypeError: a parameter is no array of real numbers that a file can hold.
        DataError: `extra` is not JSON, or longer than a reader takes; or the place cannot be written to.
    """
    params = {name: _plain_array(name, value) for name, value in params.items()}
    check_fit(params, config)
    settings = {"vit_config": config.to_dict(), "extra": dict(extra or {})}
    try:
        text = {"format": "pt", **{name: json.dumps(value) for name, value in settings.items()}}
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"extra cannot be written as JSON ({error}); give tables, lists, texts and numbers") from error
    if (length := len(json.dumps(text))) > MAX_TEXT:
        raise DataError(f"extra is too long: {length} bytes beside the tensors, at most {MAX_TEXT} are read back; "
                        f"write it to a file of its own")  # fmt: skip
    path = Path(path)
    if path.suffix == ".safetensors":
        write_arrays(path, params, text)
    else:
        write_arrays(path / "model.safetensors", params, text)
        write_json(path / "config.json", settings)


def load_checkpoint(
    path: str | os.PathLike,
    layout: str | None = None,
    config: Model | Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> tuple[Any, dict[str, np.ndarray]]:
    """(configuration, parameters) of a checkpoint, whoever wrote it.

    The configuration is a ViTConfig; a MaeConfig where `config` is one, or config.json describes one in pre-training.

    Args:
        path: a safetensors, npz or torch file, or a folder with `config.json` and `model.safetensors` (or its shards).
        layout: whose names the tensors have, e.g. "timm", "huggingface", "google"; None: told from the names.
        config: a whole ViTConfig, or a dict of those fields that neither the file nor the shapes tell.
        dtype: of the parameters; None: as stored, where float16 and bfloat16 become float32, exactly, and of
            several the widest.

    The arrays are writable, C-contiguous, and in the machine's byte order.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint; a tensor is missing, unknown or misshapen; the
            configuration contradicts the tensors; or something that shapes cannot tell is not known.
    """
    if config is not None and not isinstance(config, (ViTConfig, MaeConfig, Mapping)):
        raise CheckpointError(f"config={config!r}: give a ViTConfig, as ViTConfig.from_timm(name) or ViTConfig.preset"
                              f"(name) make one, or a dict of its fields")  # fmt: skip
    wanted = _dtype(dtype)
    file = read_tensors(path)
    if not file.tensors:
        raise CheckpointError(f"{path} holds no tensors")
    try:
        chosen = get_layout(layout, _whole(config), file.tensors) if layout else find_layout(file.tensors)
        check_unmixed(chosen, file.tensors)
        tensors = chosen.plain_names(file.tensors)
        _check_numbers(tensors)
        found = find_config(config, _settings(file), file.name, chosen, tensors)
        params = chosen.load(tensors, found.config, found.name)
    except VitError as error:
        raise CheckpointError(f"{path}: {error}") from error
    kind = wanted or np.result_type(*{p.dtype for p in params.values()}, np.float32)
    if kind.kind != "f":
        raise CheckpointError(f"{path}: parameters of dtype {kind} cannot be used; choose np.float32 or np.float64")
    return found.config, {name: np.array(p, dtype=kind, order="C") for name, p in params.items()}


def read_extra(path: str | os.PathLike) -> dict[str, Any]:
    """What `save_checkpoint` was given as `extra`; empty for checkpoints of others."""
    metadata, settings = read_descriptions(path)
    try:
        extra = (settings or {}).get("extra") or json.loads(metadata.get("extra", "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: what was saved beside the model is not legal JSON ({error})") from error
    return extra if isinstance(extra, dict) else {}


def _settings(file: TensorFile) -> dict[str, Any] | None:
    """config.json, or the configuration embedded in the file itself."""
    if file.settings is not None or "vit_config" not in file.metadata:
        return file.settings
    if len(file.metadata["vit_config"]) > MAX_CONFIG:
        raise CheckpointError(f"{file.name}: the embedded configuration is longer than {MAX_CONFIG} bytes; refused")
    try:
        return {"vit_config": json.loads(file.metadata["vit_config"])}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name}: the embedded configuration is not legal JSON ({error})") from error


def _whole(config: Any) -> Model | None:
    return config if isinstance(config, (ViTConfig, MaeConfig)) else None


def _dtype(given: Any) -> np.dtype | None:
    try:
        return None if given is None else np.dtype(given)
    except TypeError as error:
        raise CheckpointError(f"dtype={given!r} is none of NumPy's; choose np.float32 or np.float64") from error


def _plain_array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that requires grad, or is on a device
        raise DtypeError(f"parameter {name} is no NumPy array ({error}); use tensor.detach().cpu()") from error
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DtypeError(f"parameter {name} holds {array.dtype}, which a file cannot; give it as float32 or float64")
    return array


def _check_numbers(tensors: Mapping[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "c" or (tensor.dtype.kind == "U"):
            raise CheckpointError(f"tensor {name} holds {tensor.dtype}, not real numbers")
