"""Inputs of every variant stage: what it is called with, in both engines, and how its gradients are named.

A case's functions take arrays or tensors alike: `numpy` returns (y, cache), `torch` y; `back` names the gradients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np

import numpy_vit as nv
import torch_vit as tv
from vit_common import ViTConfig
from vit_common.assembled_spec import BLOCKS as BLOCK_SPECS
from vit_common.assembled_spec import attention_spec, mlp_spec, norms, patch_spec, pool_spec, token_spec
from vit_common.params import ParamSpec
from vit_common.variant import ResizeRule

Array = np.ndarray
RULES = list(get_args(ResizeRule))


class VariantCase(NamedTuple):
    arrays: dict[str, Array]  # differentiable inputs, float64
    numpy: Callable[..., Any]
    torch: Callable[..., Any]
    back: Callable[[Any, Any], dict[str, Array]]
    analytic: bool = True


def small_config(rng: np.random.Generator, **fields: Any) -> ViTConfig:
    """A small model, not square, with the fields given."""
    heads = int(rng.integers(1, 4))
    plain = {"image_size": (8, 12), "patch_size": (4, 4), "in_channels": 2, "num_classes": 3, "embed_dim": 4 * heads,
             "depth": 2, "num_heads": heads, "mlp_ratio": 1.5}  # fmt: skip
    return ViTConfig(**{**plain, **fields})


def draw(rng: np.random.Generator, spec: dict[str, ParamSpec]) -> dict[str, Array]:
    """Parameters that hide nothing: no ones, no zeros."""
    return {name: (p.init == "ones") + 0.5 * rng.normal(size=p.shape) for name, p in spec.items()}


def leaf(name: str, arrays: dict[str, Array], *options: Any, back: Any = None, analytic: bool = True) -> VariantCase:
    """`x_forward(*arrays, *options)`; the gradients in the order of the arrays, unless `back` says otherwise."""
    forward, backward = getattr(nv, f"{name}_forward"), getattr(nv, f"{name}_backward")

    def by_order(dy: Any, cache: Any) -> dict[str, Array]:
        result = backward(dy, cache)
        return dict(zip(arrays, result if isinstance(result, tuple) else (result,), strict=True))

    def by_name(dy: Any, cache: Any) -> dict[str, Array]:
        dx, grads = backward(dy, cache)
        return {next(iter(arrays)): dx, **grads}

    return VariantCase(
        arrays, lambda a: forward(*a.values(), *(like(o, next(iter(a.values()))) for o in options)),
        lambda t: getattr(tv, f"{name}_forward")(*t.values(), *map(tensors, options)),
        {"order": by_order, "name": by_name, None: by_order}[back], analytic,
    )  # fmt: skip


def composite(name: str, rng: np.random.Generator, spec: dict[str, ParamSpec], x: Array, *options: Any) -> VariantCase:
    """`x_forward(params, x, *options)` with `x_backward(dy, cache) -> dx, ..., grads`."""
    forward, backward = getattr(nv, f"{name}_forward"), getattr(nv, f"{name}_backward")

    def back(dy: Any, cache: Any) -> dict[str, Array]:
        dx, *_, grads = backward(dy, cache)
        return {"x": dx, **grads}

    def split(a: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        return {n: v for n, v in a.items() if n != "x"}, a["x"]

    return VariantCase(
        {"x": x, **draw(rng, spec)}, lambda a: forward(*split(a), *(like(o, a["x"]) for o in options)),
        lambda t: getattr(tv, f"{name}_forward")(*split(t), *map(tensors, options)), back,
    )  # fmt: skip


def like(value: Any, x: Array) -> Any:
    """Floating-point arrays inside an option in the precision of x."""
    if isinstance(value, nv.Positions):
        return nv.Positions(*(like(v, x) for v in value))
    floating = isinstance(value, np.ndarray) and value.dtype == np.float64
    return value.astype(x.real.dtype) if floating else value


def tensors(value: Any) -> Any:
    """Arrays inside an option as tensors; Positions as those of the torch engine."""
    import torch

    if isinstance(value, nv.Positions):
        return tv.Positions(*(tensors(v) for v in value))
    if isinstance(value, nv.BranchNames):
        return tv.BranchNames(*value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return {k: tensors(v) for k, v in value.items()} if isinstance(value, dict) else value


def activation(name: str) -> Callable[[np.random.Generator], VariantCase]:
    scale = 10.0
    return lambda rng: leaf(name, {"x": scale ** rng.uniform(-3, 1) * rng.normal(size=(2, 5))})


def keep_mask(rng: np.random.Generator, batch: int, patches: int, keep: int) -> Array:
    return rng.random((batch, patches)).argsort(axis=1) < keep


def rope_case(rng: np.random.Generator) -> VariantCase:
    shape = int(rng.choice([1, 2])), int(rng.choice([1, 3])), 5, 4
    angles = rng.normal(size=shape)
    arrays = {"x": rng.normal(size=(2, 3, 7, 8)), "sin": np.sin(angles), "cos": np.cos(angles)}
    return leaf("rope", arrays, 2, bool(rng.integers(2)))


def biased_case(rng: np.random.Generator) -> VariantCase:
    q, k, v = (rng.normal(size=(2, 3, n, w)) for n, w in ((4, 5), (6, 5), (6, 2)))
    bias = rng.normal(size=(int(rng.choice([1, 2])), int(rng.choice([1, 3])), 4, 6))
    drop = (None, 0.0) if rng.integers(2) else (rng.random((2, 3, 4, 6)) > 0.3, 0.3)
    return leaf("biased_attention", {"q": q, "k": k, "v": v, "bias": bias}, *drop)


def diff_case(rng: np.random.Generator) -> VariantCase:
    case_spec = {f"lambda_{n}": ParamSpec((4,), "zeros") for n in ("q1", "k1", "q2", "k2")}
    arrays = {n: rng.normal(size=(2, h, 5, w)) for n, h, w in (("q", 4, 4), ("k", 4, 4), ("v", 2, 8))}
    params = draw(rng, case_spec | {"sub_norm.weight": ParamSpec((8,), "ones")})
    layer = int(rng.integers(4))

    def call(engine: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda a: engine.diff_attention_forward(
            {n: a[n] for n in params}, a["q"], a["k"], a["v"], layer
        )  # fmt: skip

    def back(dy: Any, cache: Any) -> dict[str, Array]:
        dq, dk, dv, _, grads = nv.diff_attention_backward(dy, cache)
        return {"q": dq, "k": dk, "v": dv, **grads}

    return VariantCase({**arrays, **params}, call(nv), call(tv), back)


def attention_case(rng: np.random.Generator) -> VariantCase:
    fields: dict[str, Any] = [
        {"qkv": "split", "num_kv_heads": 1, "num_heads": 3, "embed_dim": 12, "qkv_bias": "qv"}, {"attention": "diff"},
        {"qk_norm": True, "attn_norm": True, "rope": "axial", "norm": "rms"},
        {"rel_pos_bias": "block", "qkv_bias": "qv"},
        {"attn_head_dim": 8, "proj_bias": False, "qkv_bias": "none"}, {"attn_proj": False},
    ][int(rng.integers(6))]  # fmt: skip
    config = small_config(rng, **fields)
    sin, cos = nv.rope_table(config) if config.rope == "axial" else (None, None)
    positions = nv.Positions(1, sin, cos, rng.normal(size=(1, 1, config.num_tokens, config.num_tokens)))
    x = rng.normal(size=(2, config.num_tokens, config.embed_dim))
    return composite("assembled_attention", rng, attention_spec(config, 1), x, config, positions)


def block_case(name: str, *choices: dict[str, Any]) -> Callable[[np.random.Generator], VariantCase]:
    def build(rng: np.random.Generator) -> VariantCase:
        config = small_config(rng, **choices[int(rng.integers(len(choices)))])
        x = rng.normal(size=(2, config.num_tokens, config.embed_dim))
        return composite(name, rng, BLOCK_SPECS[config.block](config, 1), x, config, nv.Positions(1))

    return build


def mlp_case(name: str, **fields: Any) -> Callable[[np.random.Generator], VariantCase]:
    def build(rng: np.random.Generator) -> VariantCase:
        act = str(rng.choice(["gelu", "gelu_tanh", "quick_gelu", "silu"]))
        norm, bias = bool(rng.integers(2)), bool(rng.integers(2))
        packed = {"mlp": "glu_packed"} if fields and rng.integers(2) else {}
        config = small_config(rng, **{**fields, **packed, "activation": act, "mlp_norm": norm, "mlp_bias": bias})
        return composite(name, rng, mlp_spec(config), rng.normal(size=(2, 5, config.embed_dim)), config)

    return build


def patch_stem_case(rng: np.random.Generator) -> VariantCase:
    fields = {"image_size": (9, 14), "patch_crop": True} if rng.integers(2) else {}
    kind = str(rng.choice(["none", "layer", "rms"]))
    config = small_config(
        rng, patch_norm=kind, patch_norm_in=bool(rng.integers(2)), patch_bias=bool(rng.integers(2)), **fields
    )
    images = rng.normal(size=(2, config.in_channels, *config.image_size))
    return composite("patch_stem", rng, patch_spec(config), images, config)


def token_stem_case(rng: np.random.Generator) -> VariantCase:
    fields: dict[str, Any] = [
        {"reg_tokens": 2, "pos_embed_prefix": False}, {"dist_token": True, "pos_grid": (3, 2)},
        {"pos_embed": "sincos_2d"},
        {"reg_tokens": 2, "pos_embed_registers": False}, {"class_token": False, "pool": "mean", "reg_tokens": 1},
    ][int(rng.integers(5))]  # fmt: skip
    config = small_config(rng, **fields)
    masks = {"patch_drop": keep_mask(rng, 2, config.num_patches, 4)} if rng.integers(2) else {}
    return composite("token_stem", rng, token_spec(config), rng.normal(size=(2, 6, config.embed_dim)), config, masks)


def attention_pool_case(rng: np.random.Generator) -> VariantCase:
    config = small_config(rng, pool="map", norm=str(rng.choice(["layer", "rms"])))
    return composite("attention_pool", rng, pool_spec(config), rng.normal(size=(2, 5, config.embed_dim)), config)


def norm_case(rng: np.random.Generator) -> VariantCase:
    config = small_config(rng, norm=str(rng.choice(["layer", "rms"])))
    x = rng.normal(size=(3, config.embed_dim))
    return composite("norm", rng, norms(config, config.embed_dim), x, config.norm, 1e-5)


def pos_resize_case(rng: np.random.Generator) -> VariantCase:
    rule = str(rng.choice(RULES))
    new = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    return leaf("pos_resize", {"pos_embed": rng.normal(size=(1, 2 + 12, 3))}, (3, 4), new, rule, 2)


def patch_resize_case(rng: np.random.Generator) -> VariantCase:
    rule = str(rng.choice(RULES))
    return leaf("patch_resize", {"weight": rng.normal(size=(3, 2, 4, 3))}, (int(rng.integers(2, 7)), 5), rule)


def mae_loss_case(rng: np.random.Generator) -> VariantCase:
    images, mask, norm_pix = rng.normal(size=(2, 2, 4, 6)), keep_mask(rng, 2, 6, 2), bool(rng.integers(2))
    case = leaf("mae_loss", {"prediction": rng.normal(size=(2, 6, 8)), "images": images}, mask, (2, 2), norm_pix)
    names = ("prediction", "images")
    return case._replace(back=lambda dy, c: dict(zip(names, nv.mae_loss_backward(c, dy), strict=True)))


CASES: dict[str, Callable[[np.random.Generator], VariantCase]] = {
    "rms_norm": lambda r: leaf("rms_norm", {"x": r.normal(size=(2, 3, 7)), "weight": r.normal(size=7)}, 1e-5,
                               back="name"),
    "norm": norm_case,
    "gelu_tanh": activation("gelu_tanh"), "silu": activation("silu"), "quick_gelu": activation("quick_gelu"),
    "relu": activation("relu"),
    "activation": lambda r: leaf("activation", {"x": r.normal(size=(3, 4))}, str(r.choice(["gelu", "relu", "silu"]))),
    "layer_scale": lambda r: leaf("layer_scale", {"x": r.normal(size=(2, 3, 5)), "gamma": r.normal(size=5)},
                                  back="name"),
    "rope": rope_case,
    "biased_attention": biased_case,
    "grouped_query": lambda r: leaf("grouped_query", {"x": r.normal(size=(2, 2, 3, 4))}, 2 * int(r.integers(1, 4))),
    "diff_attention": diff_case,
    "assembled_attention": attention_case,
    "activated_mlp": mlp_case("activated_mlp"),
    "gated_mlp": mlp_case("gated_mlp", mlp="glu"),
    "assembled_block": block_case("assembled_block", {"layer_scale": 0.1}, {"block": "res_post", "norm": "rms"},
                                  {"layer_scale": 0.1, "layer_scale_names": "gamma", "layer_scale_mlp": False}),
    "parallel_block": block_case("parallel_block", {"block": "parallel", "qk_norm": True}, {"block": "diff_parallel"},
                                 {"block": "parallel", "qkv_bias": "none", "layer_scale": 0.1}),
    "parallel_things_block": block_case("parallel_things_block", {"block": "parallel_things", "layer_scale": 0.2}),
    "patch_dropout": lambda r: leaf("patch_dropout", {"x": r.normal(size=(2, 8, 3))}, keep_mask(r, 2, 6, 3), 2),
    "patch_stem": patch_stem_case,
    "token_stem": token_stem_case,
    "pos_resize": pos_resize_case,
    "patch_resize": patch_resize_case,
    "attention_pool": attention_pool_case,
    "token_pool": lambda r: leaf("token_pool", {"x": r.normal(size=(2, 6, 3))},
                                 str(r.choice(["cls", "mean", "max", "avg_max", "cls_mean"])), 2, bool(r.integers(2))),
    "mask_tokens": lambda r: leaf(
        "mask_tokens", {"x": r.normal(size=(2, 4, 3)), "mask_token": r.normal(size=(1, 1, 3))},
        keep_mask(r, 2, 6, 3), 1, back="name"),
    "mae_loss": mae_loss_case,
    "rel_pos_bias": lambda r: leaf("rel_pos_bias", {"table": r.normal(size=(18, 3))}, (2, 3)),
    "rope_mixed": lambda r: leaf("rope_mixed", {"freqs": r.normal(size=(2, 2, 3, 4))}, r.normal(size=(5, 2)),
                                 back="order"),
}  # fmt: skip
