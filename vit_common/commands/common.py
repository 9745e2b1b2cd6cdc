"""What several verbs share: which data, which model. What only some verbs need is imported where it is used."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_common.cli import peek
from vit_common.config import ViTConfig
from vit_common.engine import Engine, EngineFactory
from vit_common.errors import CheckpointError, ConfigError, DataError, check_finite
from vit_common.layouts.layout import Model
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
    """The model for a dataset; for a folder, with as many classes as the folder has. DataError if it is neither."""
    from vit_common.data import known_name

    overrides = {}
    if known_name(data) is None:
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


def checkpoint_flag(argv: Sequence[str]) -> Path | None:
    """What stands behind --checkpoint, before the rest is parsed; None: the flag was not given.

    Raises:
        DataError: nothing stands there, as when a shell's variable is not set.
    """
    absent = "\0"  # no argument can hold it
    given = peek(argv, "--checkpoint", absent)
    if not given.strip():
        raise DataError("--checkpoint is empty (a variable that is not set?); name a run's folder or a file of weights")
    return None if given == absent else Path(given)


def open_checkpoint(path: Path) -> tuple[ViTConfig, dict[str, np.ndarray], RunInfo | None]:
    """(config, params, the run it came from if that is known). Raises CheckpointError if it is no classifier's kind."""
    config, params = read_checkpoint(path)
    if not isinstance(config, ViTConfig):
        raise CheckpointError(
            f"{path} is a masked autoencoder, which this verb cannot run: it needs a Vision Transformer as it "
            f"classifies. Take the encoder out of it, in Python: config, params = load_checkpoint({str(path)!r}); "
            f"save_checkpoint('encoder', config.encoder, {{name: params[name] for name in param_spec(config.encoder)}})"
        )
    return config, params, find_run(path)


def read_checkpoint(path: Path, config: ViTConfig | None = None) -> tuple[Model, dict[str, np.ndarray]]:
    """(config, params) of any checkpoint; errors are worded for the command line."""
    from vit_common.checkpoint import load_checkpoint

    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; give a file of weights, or the folder of a run")
    try:
        return load_checkpoint(path, config=config)
    except CheckpointError as error:
        if "config=" not in str(error):
            raise
        raise CheckpointError(
            f"{error}. That is for Python; on the command line, write the checkpoint anew with its configuration: "
            f"convert {path} FOLDER --layout timm --architecture NAME, NAME being timm's for the model"
        ) from error


def load_engine(
    factory: EngineFactory, options: object, config: ViTConfig, params: dict[str, np.ndarray], dtype: str, finite: bool
) -> Engine:
    """An engine with the parameters in `dtype`; with `finite`, raise RangeError if one is NaN or infinite."""
    if finite:
        check_finite(**{name: array for name, array in params.items() if array.dtype.kind == "f"})
    engine = make_engine(factory, options)
    engine.load(config, params, dtype)
    return engine


def make_engine(factory: EngineFactory, options: object) -> Engine:
    """The engine; ConfigError, of one line, if its device is none that computes."""
    try:
        engine = factory(options)
    except ConfigError as error:  # torch tells of a device it was built without in a page
        first, *more = str(error).splitlines()
        raise ConfigError(f"{first.split('. ')[0]}; {more[-1].lstrip('; ')}" if more else first) from error
    if str(getattr(engine, "device", "")).startswith("meta"):
        raise ConfigError("device 'meta' cannot be used: it has shapes but no numbers; try --device cpu")
    return engine


def on_host(engine: Engine) -> bool:
    """Whether the engine computes in this machine's own memory; one that names no device does."""
    return str(getattr(engine, "device", "cpu")).partition(":")[0] == "cpu"
