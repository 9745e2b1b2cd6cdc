r"""Parameters: one flat dict of dotted names, the names and layouts of timm.

That dict is the torch `state_dict`, the gradient dict and the checkpoint. Weights are (out, in); the patch projection
is (D, C, P_h, P_w).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, ConfigError, ShapeError
from vit_common.masks import keyed_rng

Init = Literal["xavier", "lecun", "normal_02", "normal_1e-6", "normal_1e-1", "ones", "zeros"] | float


@dataclass(frozen=True)
class ParamSpec:
    """Shape of a parameter, how it starts, and whether weight decay applies to it."""

    shape: tuple[int, ...]
    init: Init
    decay: bool = False


def linear_spec(out_features: int, in_features: int, init: Init = "xavier") -> dict[str, ParamSpec]:
    weight = ParamSpec((out_features, in_features), init, decay=True)
    return {"weight": weight, "bias": ParamSpec((out_features,), "zeros")}


def norm_spec(width: int) -> dict[str, ParamSpec]:
    return {"weight": ParamSpec((width,), "ones"), "bias": ParamSpec((width,), "zeros")}


def block_spec(config: ViTConfig) -> dict[str, ParamSpec]:
    """One pre-norm encoder block: norm1, attn.{qkv, proj}, norm2, mlp.{fc1, fc2}."""
    width, hidden = config.embed_dim, config.mlp_dim
    return {
        **under("norm1", norm_spec(width)),
        **under("attn.qkv", linear_spec(3 * width, width)),
        **under("attn.proj", linear_spec(width, width)),
        **under("norm2", norm_spec(width)),
        **under("mlp.fc1", linear_spec(hidden, width)),
        **under("mlp.fc2", linear_spec(width, hidden)),
    }


def param_spec(config: ViTConfig) -> dict[str, ParamSpec]:
    """Name -> ParamSpec of every parameter, in the order of the forward pass.

    Weight decay applies to matrices and to the patch projection; never to norms, biases, class token or positions
    (the field's convention since Dosovitskiy et al. 2021 and timm's `no_weight_decay`).
    """
    if not config.is_plain:
        from vit_common.assembled_spec import assembled_spec

        return assembled_spec(config)
    width = config.embed_dim
    spec: dict[str, ParamSpec] = {}
    if config.class_token:
        spec["cls_token"] = ParamSpec((1, 1, width), "normal_1e-6")
    if config.pos_embed == "learned":
        spec["pos_embed"] = ParamSpec((1, config.num_tokens, width), "normal_02")
    spec["patch_embed.proj.weight"] = ParamSpec((width, config.in_channels, *config.patch_size), "lecun", decay=True)
    spec["patch_embed.proj.bias"] = ParamSpec((width,), "zeros")
    for i in range(config.depth):
        spec |= under(f"blocks.{i}", block_spec(config))
    spec |= under("norm", norm_spec(width))
    if config.num_classes:
        spec |= under("head", linear_spec(config.num_classes, width, init="normal_02"))
    return spec


def init_params(config: ViTConfig, seed: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Fresh parameters, drawn in float64 from a generator keyed by (seed, name) and rounded once to `dtype`.

    Keyed by name: adding a parameter never changes another, and float32 starts as the rounding of float64.
    """
    return draw_params(param_spec(config), seed, dtype)


def draw_params(spec: Mapping[str, ParamSpec], seed: int, dtype: Any) -> dict[str, np.ndarray]:
    """Parameters of any specification, each from its own keyed generator."""
    return {name: _draw(one, keyed_rng(seed, "init", name)).astype(dtype) for name, one in spec.items()}


def _draw(spec: ParamSpec, rng: "np.random.Generator") -> np.ndarray:
    fan_out, fan_in = spec.shape[0], math.prod(spec.shape[1:])
    if isinstance(spec.init, float):
        return np.full(spec.shape, spec.init)
    match spec.init:
        case "ones":
            return np.ones(spec.shape)
        case "zeros":
            return np.zeros(spec.shape)
        case "normal_02":
            return rng.normal(0.0, 0.02, spec.shape)
        case "normal_1e-6":
            return rng.normal(0.0, 1e-6, spec.shape)
        case "normal_1e-1":
            return rng.normal(0.0, 0.1, spec.shape)
        case "lecun":  # variance 1 / fan_in keeps the variance of a patch's embedding at that of its pixels
            return rng.normal(0.0, 1.0 / math.sqrt(fan_in), spec.shape)
        case "xavier":  # Glorot and Bengio 2010, eq. 16
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            return rng.uniform(-bound, bound, spec.shape)
    raise ConfigError(f"unknown init {spec.init!r}")


def sub(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries below `prefix`, with the prefix taken off: sub({"a.b.c": 1}, "a.b") == {"c": 1}."""
    start = prefix + "."
    return {name[len(start):]: value for name, value in params.items() if name.startswith(start)}


def under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `sub`: under("a.b", {"c": 1}) == {"a.b.c": 1}."""
    return {f"{prefix}.{name}": value for name, value in values.items()}


def check_params(params: Mapping[str, Any], config: ViTConfig) -> None:
    """Raise unless `params` has exactly the names and shapes of `param_spec(config)`.

    Raises:
        CheckpointError: a name is missing or not part of the model.
        ShapeError: a parameter has another shape; names it and both shapes.
    """
    check_against(param_spec(config), params, "the configuration")


def check_against(spec: Mapping[str, ParamSpec], params: Mapping[str, Any], model: str) -> None:
    """Raise unless `params` has exactly the names and shapes of `spec`, that of `model` (in words, for the message).

    Raises:
        CheckpointError, ShapeError: as of `check_params`.
    """
    missing = [name for name in spec if name not in params]
    extra = [name for name in params if name not in spec]
    if missing or extra:
        parts = [f"{len(names)} {kind}: {_listing(names)}"
                 for kind, names in (("missing", missing), ("not part of this model", extra)) if names]
        raise CheckpointError(f"parameters do not fit {model}; {'; '.join(parts)}")
    for name, want in spec.items():
        if tuple(params[name].shape) != want.shape:
            raise ShapeError(f"parameter {name} has shape {tuple(params[name].shape)}, expected {want.shape}")


def check_packable(config: ViTConfig, images: int) -> None:
    """Raise ConfigError unless this model's tokens can be packed into one row, and there is an image to pack."""
    if not config.is_plain:
        odd = ", ".join(config.variant_fields()) or f"pool={config.pool!r}, pos_embed={config.pos_embed!r}"
        raise ConfigError(
            f"only the plain model is packed, and this one has {odd}; "
            f"run each image by itself, with config.at_image_size((height, width))"
        )
    if not images:
        raise ConfigError("there is no image to pack; give at least one (C, H, W)")


def _listing(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
