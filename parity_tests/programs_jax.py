"""Programs written in JAX: google-research/vision_transformer and google-research/big_vision.

Their files are npz; vision_transformer's carry the numbers that modules had before Flax linen, or linen's.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from parity_tests.programs import Array, Run, blank, source

GOOGLE = {"patches": {"size": (8, 8)}, "hidden_size": 36, "classifier": "token", "representation_size": None,
          "transformer": {"mlp_dim": 100, "num_heads": 3, "num_layers": 2, "attention_dropout_rate": 0.0,
                          "dropout_rate": 0.0}}  # fmt: skip
GOOGLE_CASES: dict[str, dict[str, Any]] = {
    "token": {}, "gap": {"classifier": "gap"}, "unpooled": {"classifier": "unpooled"},
    "token_unpooled": {"classifier": "token_unpooled", "representation_size": 9},
    "representation": {"representation_size": 20},
    "gap, representation": {"classifier": "gap", "representation_size": 9}, "no head": {"num_classes": 0},
    "one head": {"transformer": {**GOOGLE["transformer"], "num_heads": 1}},
    "not square": {"image_size": (32, 24), "patches": {"size": (8, 6)}}, "one patch": {"image_size": (8, 8)},
    "uneven": {"image_size": (35, 29)}, "one channel": {"channels": 1},
    "three blocks": {"transformer": {**GOOGLE["transformer"], "num_layers": 3, "mlp_dim": 144}},
    "four heads": {"hidden_size": 24, "transformer": {**GOOGLE["transformer"], "num_heads": 4, "num_layers": 1}},
}  # fmt: skip
BIG_VISION = {"num_classes": 10, "patch_size": (8, 8), "width": 36, "depth": 2, "mlp_dim": 100, "num_heads": 3}
BIG_VISION_CASES: dict[str, dict[str, Any]] = {
    "gap": {}, "tok": {"pool_type": "tok"}, "map": {"pool_type": "map"},
    "none": {"pool_type": "none"}, "none, scan": {"pool_type": "none", "scan": True},
    "sincos2d": {"posemb": "sincos2d"},
    "map, sincos2d": {"pool_type": "map", "posemb": "sincos2d"},
    "tok, sincos2d": {"pool_type": "tok", "posemb": "sincos2d"},
    "rep_size": {"rep_size": 20}, "rep_size of the width": {"rep_size": True},
    "map, rep_size": {"rep_size": 7, "pool_type": "map"}, "tok, rep_size": {"rep_size": True, "pool_type": "tok"},
    "mlp_dim by default": {"mlp_dim": None}, "scan": {"scan": True}, "scan, map": {"scan": True, "pool_type": "map"},
    "scan, tok": {"scan": True, "pool_type": "tok"}, "no head": {"num_classes": None, "pool_type": "map"},
    "not square": {"image_size": (32, 24), "patch_size": (8, 6)},
    "not square, sincos2d": {"image_size": (16, 40), "patch_size": (4, 8), "posemb": "sincos2d"},
    "variant": {"variant": "mu/16", "image_size": (32, 48)}, "one head": {"num_heads": 1},
    "one patch": {"image_size": (8, 8), "pool_type": "tok"}, "uneven": {"image_size": (35, 29), "pool_type": "map"},
    "two channels": {"channels": 2, "depth": 1},
}  # fmt: skip


def observe(model: Any, images: Array, given: dict[str, Any], forward: Callable, old: bool = False) -> Run:
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    rng = np.random.default_rng(1)
    pictures = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), pictures)["params"]
    flat = {}
    for name, leaf in flatten_dict(shapes, sep="/").items():
        draw = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5)
        flat[name] = draw + 1.0 if name.endswith("scale") else draw

    def run(params: Any, x: Any) -> Any:
        return forward(model.apply({"params": unflatten_dict(params, sep="/")}, x, train=False))

    upstream = np.random.default_rng(3).normal(size=jax.eval_shape(run, flat, pictures)[0].shape)

    @jax.jit
    def both(params: Any, x: Any) -> Any:
        out, back, seen = jax.vjp(run, params, x, has_aux=True)
        return out, seen, *back(upstream)

    out, seen, grads, gx = both(flat, pictures)
    rename = _before_linen if old else dict
    slopes = rename({name: np.asarray(g) for name, g in grads.items()})
    return Run(rename(flat), ".npz", given, images, upstream, np.asarray(out), np.asarray(gx).transpose(0, 3, 1, 2),
               slopes, {name: np.asarray(a) for name, a in seen.items()})  # fmt: skip


def _before_linen(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Modules of a block counted all together."""
    for linen, old in (("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
                       ("LayerNorm_1", "LayerNorm_2"), ("MlpBlock_0", "MlpBlock_3")):  # fmt: skip
        tensors = {re.sub(rf"(encoderblock_\d+)/{linen}", rf"\1/{old}", n): t for n, t in tensors.items()}
    return dict(tensors)


def pictures(size: tuple[int, int], channels: int) -> Array:
    return np.random.default_rng(2).normal(size=(2, channels, *size))


@cache
def exact() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # each small model is compiled once and run once


def google(changes: dict[str, Any], old: bool = False) -> Run:
    exact()
    module = source("vision_transformer", "vit_jax/models_vit.py", {"jnp.float32": "jnp.float64"},
                    vit_jax=blank(models_resnet=None))  # fmt: skip
    given = {**GOOGLE, "num_classes": 10, **changes}
    size, channels = given.pop("image_size", (32, 32)), given.pop("channels", 3)
    model = module.VisionTransformer(**{**given, "patches": blank(**given["patches"])})
    shown = given if size[0] == size[1] else {**given, "image_size": size}
    return observe(model, pictures(size, channels), shown, lambda out: (out, {}), old)


@cache
def big_vision_file() -> ModuleType:
    exact()
    package = blank(utils=None, models=None)
    common = source("big_vision", "big_vision/models/common.py", {}, big_vision=package, big_vision__utils=blank())
    package = blank(utils=None, models=blank(common=common))
    return source("big_vision", "big_vision/models/vit.py", {"float32": "float64"}, big_vision=package,
                  big_vision__models=package.models)  # fmt: skip


def big_vision(changes: dict[str, Any]) -> Run:
    module = big_vision_file()
    given = {"variant": changes["variant"], "num_classes": 10} if "variant" in changes else BIG_VISION
    given = {**given, **changes}
    size, channels = given.pop("image_size", (32, 32)), given.pop("channels", 3)
    model = module.Model(**given)
    plain = size[0] == size[1] and given.get("posemb") != "sincos2d"

    def forward(result: Any) -> Any:
        out, inside = result
        blocks = {f"blocks.{i}": inside["encoder"][f"block{i:02d}"]["+mlp"] for i in range(given.get("depth", 1))}
        return out, {"pooled": inside.get("head_input", inside["encoded"]), **blocks}

    return observe(model, pictures(size, channels), given if plain else {**given, "image_size": size}, forward)


PROGRAMS: dict[str, tuple[Callable[[dict[str, Any]], Run], dict[str, dict[str, Any]]]] = {
    "vision_transformer": (google, GOOGLE_CASES),
    "vision_transformer, before linen": (lambda changes: google(changes, old=True), GOOGLE_CASES),
    "big_vision": (big_vision, BIG_VISION_CASES),
}  # fmt: skip
