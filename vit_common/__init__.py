"""What both engines obey: configuration, parameters, randomness, data, checkpoints. NumPy only at import."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from vit_common.checkpoint import load_checkpoint, save_checkpoint

__all__ = [
    "PRESETS", "CheckpointError", "ConfigError", "DataError", "DtypeError", "MissingDependencyError", "ParamSpec",
    "RangeError", "ShapeError", "ViTConfig", "VitError", "check_finite", "check_params", "init_params", "keyed_rng",
    "load_checkpoint", "make_masks", "param_spec", "save_checkpoint", "sub", "under",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Reading other people's files takes twenty modules, which a program that computes need not wait for.
    if name in ("load_checkpoint", "save_checkpoint"):
        from vit_common import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
