"""From anybody's checkpoint to anybody's layout."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.checkpoint import load_checkpoint
from vit_common.config_source import find_config
from vit_common.errors import CheckpointError, VitError
from vit_common.expressible import check_expressible
from vit_common.files import write_arrays, write_atomically, write_json
from vit_common.huggingface_settings import huggingface_settings
from vit_common.layouts import LAYOUTS, Layout, export_layout, get_layout
from vit_common.layouts.layout import Model
from vit_common.outputs import check_outputs
from vit_common.read_tensors import NPZ_CONFIG

FILES = ("model.safetensors", "config.json")  # of a folder
FOREIGN = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".tar", ".zip", ".json")


def convert(
    src: str | os.PathLike, dst: str | os.PathLike, layout: str,
    config: Model | Mapping[str, Any] | None = None, overwrite: bool = False,
) -> str:  # fmt: skip
    """Write the checkpoint `src` in another library's layout; returns that layout's name.

    Raises:
        CheckpointError: `src` cannot be read; and whatever `write_layout` raises.
    """
    own, params = load_checkpoint(src, config=config)
    return write_layout(dst, layout, own, params, (src,), overwrite)


def write_layout(
    dst: str | os.PathLike, layout: str, own: Model, params: Mapping[str, np.ndarray],
    inputs: Iterable[str | os.PathLike] = (), overwrite: bool = False,
) -> str:  # fmt: skip
    """Write a model in another library's layout; returns that layout's name.

    Hugging Face layouts become a folder with `config.json` and `model.safetensors`, which that library's
    `from_pretrained` loads. Others become one file: npz if `dst` ends in `.npz`, safetensors if in `.safetensors`; any
    other `dst` is a folder. The configuration is kept inside, unless the names and shapes tell it anyway. Everything is
    loaded back in memory and compared to the bit before anything is written. The library computes what the model
    does, but for one thing: weights with the exact GELU may go to Google's layouts, where it has its tanh form.

    Raises:
        CheckpointError: the layout cannot hold this model, or `dst` has an ending that is not written.
        ConfigError: the library has no such model.
        DataError: `dst` exists and `overwrite` is not given, is one of `inputs`, lies in a run folder, or cannot be
            written.
    """
    path, chosen = Path(dst), get_layout(layout, own)
    if path.suffix.lower() in FOREIGN:
        raise CheckpointError(f"{path}: {path.suffix} is not written; give a folder, or end in .safetensors or .npz")
    single = path.suffix in (".npz", ".safetensors")
    check_outputs([path] if single else [path / name for name in FILES], inputs, overwrite)
    tensors = export_layout(params, own, chosen.name)
    back = chosen.load(chosen.plain_names(tensors), own)
    changed = [name for name in params if not np.array_equal(params[name], back[name], equal_nan=True)]
    if changed:
        raise CheckpointError(f"the {chosen.name} layout cannot hold these tensors unchanged: {', '.join(changed[:6])}")
    check_expressible(own, chosen, chosen.plain_names(tensors))
    if chosen.name.startswith("huggingface_"):
        if path.suffix in (".safetensors", ".npz"):
            raise CheckpointError(f"{path}: a Hugging Face checkpoint is a folder; give a name without {path.suffix}")
        settings = huggingface_settings(own, chosen.name)
        write_arrays(path / "model.safetensors", tensors, {"format": "pt"})
        write_json(path / "config.json", settings)
        return chosen.name
    kept = {} if tells_itself(chosen, tensors, own) else {"vit_config": json.dumps(own.to_dict())}
    if path.suffix == ".npz":
        write_npz(path, {**tensors, **({NPZ_CONFIG: np.array(kept["vit_config"])} if kept else {})})
    elif path.suffix == ".safetensors":
        write_arrays(path, tensors, {"format": "pt", **kept})
    else:
        write_arrays(path / "model.safetensors", tensors, {"format": "pt", **kept})
        write_json(path / "config.json", {"vit_config": own.to_dict()})
    return chosen.name


def tells_itself(layout: Layout, tensors: Mapping[str, np.ndarray], config: Model) -> bool:
    """Whether a reader of these tensors comes to this configuration without being told."""
    try:
        return find_config(None, None, "", layout, layout.plain_names(tensors)).config == config
    except VitError:
        return False


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def layout_table() -> list[tuple[str, str]]:
    """(name, whose it is) of every layout, for help texts."""
    return [(layout.name, layout.title) for layout in LAYOUTS.values()]
