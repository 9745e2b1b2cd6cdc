"""From anybody's checkpoint to anybody's layout."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.checkpoint import load_checkpoint
from vit_common.config import ViTConfig
from vit_common.config_source import find_config
from vit_common.errors import CheckpointError, VitError
from vit_common.files import write_arrays, write_atomically, write_json
from vit_common.huggingface_settings import huggingface_settings
from vit_common.layouts import LAYOUTS, Layout, export_layout, get_layout
from vit_common.read_tensors import NPZ_CONFIG


def convert(
    src: str | os.PathLike, dst: str | os.PathLike, layout: str, config: ViTConfig | Mapping[str, Any] | None = None
) -> str:
    """Write the checkpoint `src` in another library's layout; returns that layout's name.

    Hugging Face layouts become a folder with `config.json` and `model.safetensors`, which that library's
    `from_pretrained` loads. Others become one file: npz if `dst` ends in `.npz`, safetensors if in `.safetensors`; any
    other `dst` is a folder. The configuration is kept inside, unless the names and shapes tell it anyway. Everything is
    loaded back in memory and compared to the bit before anything is written.

    Raises:
        CheckpointError: `src` cannot be read, or the layout cannot hold this model.
        ConfigError: the library has no such model.
        DataError: `dst` cannot be written.
    """
    own, params = load_checkpoint(src, config=config)
    chosen = get_layout(layout, own)
    tensors = export_layout(params, own, chosen.name)
    back = chosen.load(chosen.plain_names(tensors), own)
    changed = [name for name in params if not np.array_equal(params[name], back[name], equal_nan=True)]
    if changed:
        raise CheckpointError(f"the {chosen.name} layout cannot hold these tensors unchanged: {', '.join(changed[:6])}")
    path = Path(dst)
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


def tells_itself(layout: Layout, tensors: Mapping[str, np.ndarray], config: ViTConfig) -> bool:
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
