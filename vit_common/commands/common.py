"""What several verbs share: which data, which model. What only some verbs need is imported where it is used."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_common.config import ViTConfig
from vit_common.engine import Engine, EngineFactory
from vit_common.errors import CheckpointError, check_finite
from vit_common.recipe import config_for_data
from vit_common.run_folder import RunInfo, find_run

if TYPE_CHECKING:
    from vit_common.data import Dataset


@dataclass(frozen=True)
class DataOptions:
    """Which pictures."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, or a folder with one subfolder of pictures for each class"""
    data_dir: Path | None = None
    """where the dataset's files are, or shall be downloaded to (default: the user's cache folder)"""


def data_name(text: str) -> str:
    """The dataset's name for one of its aliases; a folder's path as it is."""
    from vit_common.data import ALIASES, DATASETS

    name = text.lower().replace("_", "-")
    name = ALIASES.get(name, name)
    return name if name in DATASETS else text


def default_model(data: str, preset: str) -> ViTConfig:
    """The model for a dataset; for a folder, with as many classes as the folder has."""
    from vit_common.data import DATASETS

    overrides = {}
    if data_name(data) not in DATASETS and Path(data).expanduser().is_dir():
        from vit_common.image_folder import find_images

        overrides["num_classes"] = len(find_images(Path(data).expanduser()).class_names)
    return config_for_data(data_name(data), preset, **overrides)


def load_data(options: DataOptions, config: ViTConfig, run: RunInfo | None = None) -> "Dataset":
    """The dataset, in the model's size and channels; normalised as in the run, if there is one."""
    from vit_common.data import load_dataset

    data = load_dataset(data_name(options.data), options.data_dir, config.image_size, config.in_channels)
    if run is not None and run.mean:
        data = dataclasses.replace(data, mean=np.array(run.mean), std=np.array(run.std))
    return data


def open_checkpoint(path: Path) -> tuple[ViTConfig, dict[str, np.ndarray], RunInfo | None]:
    """(config, params, the run it came from if that is known)."""
    from vit_common.checkpoint import load_checkpoint

    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; give a file of weights, or the folder of a run")
    config, params = load_checkpoint(path)
    return config, params, find_run(path)


def load_engine(
    factory: EngineFactory, options: object, config: ViTConfig, params: dict[str, np.ndarray], dtype: str, finite: bool
) -> Engine:
    """An engine with the parameters in `dtype`; with `finite`, raise RangeError if one is NaN or infinite."""
    if finite:
        check_finite(**{name: array for name, array in params.items() if array.dtype.kind == "f"})
    engine = factory(options)
    engine.load(config, params, dtype)
    return engine
