"""What both engines obey: configuration, parameters, randomness, data, checkpoints. NumPy only at import."""

from vit_common.checkpoint import load_checkpoint, save_checkpoint
from vit_common.config import PRESETS, ViTConfig
from vit_common.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DtypeError,
    MissingDependencyError,
    RangeError,
    ShapeError,
    VitError,
    check_finite,
)
from vit_common.masks import keyed_rng, make_masks
from vit_common.params import ParamSpec, check_params, init_params, param_spec, sub, under

__all__ = [
    "PRESETS", "CheckpointError", "ConfigError", "DataError", "DtypeError", "MissingDependencyError", "ParamSpec",
    "RangeError", "ShapeError", "ViTConfig", "VitError", "check_finite", "check_params", "init_params", "keyed_rng",
    "load_checkpoint", "make_masks", "param_spec", "save_checkpoint", "sub", "under",
]
