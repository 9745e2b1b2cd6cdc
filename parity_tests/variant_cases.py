"""Inputs of every variant stage: sizes, options and numbers, of any choice (see `choices`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

import numpy_vit as nv
from parity_tests.choices import Build, Choice
from parity_tests.strategies import Array, Case, random_params
from vit_common import ViTConfig
from vit_common.assembled_masks import block_sites
from vit_common.assembled_spec import BLOCKS as BLOCK_SPECS
from vit_common.assembled_spec import assembled_spec, attention_spec, mlp_spec, norms, patch_spec, pool_spec, token_spec
from vit_common.masks import drop_path_rates
from vit_common.params import ParamSpec, block_spec, under
from vit_common.variant import Activation, ResizeRule

RULES, ACTIVATIONS, FLAGS = list(get_args(ResizeRule)), list(get_args(Activation)), (False, True)
NORMS, ANY_EPS, RATE = ("layer", "rms"), (1e-6, 1e-5, 0.1), 0.3


# ---- leaves ----------------------------------------------------------------------------------------------------


def elementwise(most: str = "wide") -> Build:
    return lambda c: Case({"x": c.array(c.size(), c.size(), scale=most)}, {})


def activation(c: Choice) -> Case:
    return Case({"x": c.array(c.size(), c.size(), scale="any")}, {"name": c.of(ACTIVATIONS)})


def rms_norm(c: Choice) -> Case:
    width = c.size(1, 9)
    arrays = {"x": c.array(c.size(), c.size(), width, scale="any"), "weight": c.array(width)}
    return Case(arrays, {"eps": c.of(ANY_EPS)})


def layer_scale(c: Choice) -> Case:
    width = c.size()
    return Case({"x": c.array(c.size(), c.size(), width, scale="any"), "gamma": c.array(width, scale="any")}, {})


def rope(c: Choice) -> Case:
    batch, heads, prefix, patches, pairs = c.size(), c.size(), c.size(0, 2), c.size(), c.size()
    x = c.array(batch, heads, prefix + patches, 2 * pairs, scale="any")
    shape = c.of((1, batch)), c.of((1, heads)), patches, pairs
    arrays = {"x": x, "sin": c.array(*shape, scale="any"), "cos": c.array(*shape, scale="any")}
    return Case(arrays, {"prefix": prefix, "half": c.of(FLAGS)})


def rope_mixed(c: Choice) -> Case:
    freqs = c.array(2, c.size(), c.size(), c.size())
    grid = c.size(), c.size()
    return Case({"freqs": freqs}, {"points": nv.patch_grid(grid, "ij", c.of((0.0, 0.5)))})


def biased_attention(c: Choice) -> Case:
    batch, heads, queries, keys, width = c.size(), c.size(), c.size(), c.size(), c.size()
    arrays = {"q": c.array(batch, heads, queries, width), "k": c.array(batch, heads, keys, width),
              "v": c.array(batch, heads, keys, c.size(), scale="wide")}  # fmt: skip
    if c.of((True, True, False)):
        arrays["bias"] = c.array(c.of((1, batch)), c.of((1, heads)), queries, keys)
    return Case(arrays, drop(c, (batch, heads, queries, keys)))


def grouped_query(c: Choice) -> Case:
    kept = c.size()
    return Case({"x": c.array(c.size(), kept, c.size(), c.size(), scale="wide")}, {"num_heads": kept * c.size()})


def diff_attention(c: Choice) -> Case:
    batch, heads, tokens, width = c.size(), c.size(1, 3), c.size(), c.size(1, 3)
    arrays = {"q": c.array(batch, 2 * heads, tokens, width), "k": c.array(batch, 2 * heads, tokens, width),
              "v": c.array(batch, heads, tokens, 2 * width)}  # fmt: skip
    lambdas = {f"lambda_{n}": ParamSpec((width,), "zeros") for n in ("q1", "k1", "q2", "k2")}
    params = random_params(lambdas | {"sub_norm.weight": ParamSpec((2 * width,), "ones")}, c.seed())
    masks = drop(c, (batch, 2 * heads, tokens, tokens))
    return Case({**arrays, **params}, {"layer": c.of(range(4)), "bias": None, **masks})


def rel_pos_bias(c: Choice) -> Case:
    height, width = grid = c.size(1, 3), c.size(1, 3)
    return Case({"table": c.array((2 * height - 1) * (2 * width - 1) + 3, c.size(), scale="wide")}, {"grid": grid})


def token_pool(c: Choice) -> Case:
    prefix, pool = c.size(1, 2), c.of(nv.token_pool.POOLS)
    x = c.array(c.size(), prefix + c.size(), c.size(), scale="wide")
    return Case({"x": x}, {"pool": pool, "prefix": prefix, "include_prefix": c.of(FLAGS)})


def refined_pool(c: Choice) -> Case:
    heads = c.size(1, 3)
    return Case({"x": c.array(c.size(), c.size(), heads * c.size())}, {"heads": heads, "first": c.of(FLAGS)})


def patch_dropout(c: Choice) -> Case:
    batch, prefix, patches = c.size(), c.size(0, 2), c.size()
    x = c.array(batch, prefix + patches, c.size(), scale="wide")
    return Case({"x": x}, {"mask": keep_mask(c, batch, patches), "prefix": prefix})


def mask_tokens(c: Choice) -> Case:
    batch, prefix, patches, width = c.size(), c.size(0, 2), c.size(), c.size()
    mask = keep_mask(c, batch, patches)
    x = c.array(batch, prefix + int(mask[0].sum()), width, scale="wide")
    return Case({"x": x, "mask_token": c.array(1, 1, width, scale="wide")}, {"mask": mask, "prefix": prefix})


def mae_loss(c: Choice) -> Case:
    batch, channels, patch = c.size(), c.size(1, 3), (c.size(1, 3), c.size(2, 3))
    grid = c.size(1, 3), c.size(2, 3)
    images = c.array(batch, channels, grid[0] * patch[0], grid[1] * patch[1])
    prediction = c.array(batch, grid[0] * grid[1], channels * patch[0] * patch[1])
    mask = keep_mask(c, batch, grid[0] * grid[1], hidden=1)
    return Case({"prediction": prediction, "images": images},
                {"mask": mask, "patch_size": patch, "norm_pix": c.of(FLAGS)})  # fmt: skip


def pos_resize(c: Choice) -> Case:
    old, new, prefix = (c.size(1, 4), c.size(1, 4)), (c.size(1, 5), c.size(1, 5)), c.size(0, 2)
    table = c.array(1, prefix + old[0] * old[1], c.size(), scale="wide")
    return Case({"pos_embed": table}, {"old": old, "new": new, "rule": c.of(RULES), "prefix": prefix})


def table_resize(c: Choice) -> Case:
    old, new = (c.size(1, 4), c.size(1, 4)), (c.size(1, 4), c.size(1, 4))
    table = c.array((2 * old[0] - 1) * (2 * old[1] - 1) + 3, c.size(), scale="wide")
    rules = get_args(ViTConfig.__dataclass_fields__["table_resize"].type)
    return Case({"table": table}, {"old": old, "new": new, "rule": c.of(rules)})


def patch_resize(c: Choice) -> Case:
    weight = c.array(c.size(), c.size(), c.size(2, 4), c.size(2, 4), scale="wide")
    return Case({"weight": weight}, {"new": (c.size(2, 6), c.size(2, 6)), "rule": c.of(RULES)})


# ---- composites ------------------------------------------------------------------------------------------------

Fields = dict[str, Any]


def norm(c: Choice) -> Case:
    config = small_config(c, norm=c.of(NORMS))
    x = c.array(c.size(), c.size(), config.embed_dim, scale="any")
    return filled(c, norms(config, config.embed_dim), x, kind=config.norm, eps=c.of(ANY_EPS))


ATTENTIONS: list[Fields] = [
    {"qkv": "split", "num_kv_heads": 1, "num_heads": 3, "embed_dim": 12, "qkv_bias": "qv"}, {"attention": "diff"},
    {"qk_norm": True, "attn_norm": True, "rope": "axial", "norm": "rms"}, {"qk_norm": True},
    {"rel_pos_bias": "block", "qkv_bias": "qv"}, {"attn_head_dim": 8, "proj_bias": False, "qkv_bias": "none"},
    {"attn_proj": False, "qkv": "split"}, {"rope": "axial", "rope_half": True, "reg_tokens": 2},
]  # fmt: skip


def assembled_attention(c: Choice) -> Case:
    config = small_config(c, **c.of(ATTENTIONS), **rates(c))
    x = c.array(c.size(), config.num_tokens, config.embed_dim)
    masks = block_masks(c, config.replace(block="pre_norm"), len(x), "attn.")
    return filled(c, attention_spec(config, 1), x, config=config, positions=positions(c, config), masks=masks)


def block(*choices: Fields) -> Build:
    def build(c: Choice) -> Case:
        config = small_config(c, **c.of(choices), **rates(c))
        x = c.array(c.size(), config.num_tokens, config.embed_dim)
        return filled(c, BLOCK_SPECS[config.block](config, 1), x, config=config, positions=positions(c, config),
                      masks=block_masks(c, config, len(x)), drop_path_rate=config.drop_path_rate)  # fmt: skip

    return build


def mlp(*kinds: str) -> Build:
    def build(c: Choice) -> Case:
        config = small_config(c, mlp=c.of(kinds), activation=c.of(ACTIVATIONS), mlp_norm=c.of(FLAGS),
                              mlp_bias=c.of(FLAGS), norm=c.of(NORMS), **rates(c))  # fmt: skip
        x = c.array(c.size(), config.num_tokens, config.embed_dim)
        masks = block_masks(c, config, len(x), "mlp.")
        return filled(c, mlp_spec(config), x, config=config, masks=masks)

    return build


def patch_stem(c: Choice) -> Case:
    edge = c.of(({}, {"image_size": (9, 14), "patch_crop": True}, {"image_size": (9, 14), "patch_pad": True}))
    config = small_config(c, patch_norm=c.of(("none", *NORMS)), patch_norm_in=c.of(FLAGS), patch_bias=c.of(FLAGS),
                          patch_norm_eps=c.of((None, 1e-3)), in_channels=c.size(1, 3), **edge)  # fmt: skip
    images = c.array(c.size(), config.in_channels, *config.image_size)
    return filled(c, patch_spec(config), images, config=config)


STEMS: list[Fields] = [
    {"reg_tokens": 2, "pos_embed_prefix": False}, {"dist_token": True, "pos_grid": (3, 2)}, {"pos_embed": "none"},
    {"pos_embed": "sincos_2d"}, {"reg_tokens": 2, "pos_embed_registers": False}, {"pos_embed": "sincos_1d"},
    {"class_token": False, "pool": "mean", "reg_tokens": 1}, {"dist_token": True, "reg_tokens": 1},
]  # fmt: skip


def token_stem(c: Choice) -> Case:
    config = small_config(c, **c.of(STEMS), pos_drop_rate=c.of((0.0, RATE)))
    x = c.array(c.size(), config.num_patches, config.embed_dim)
    masks = drop_masks(c, [("pos_drop", config.pos_drop_rate, (len(x), config.num_tokens, config.embed_dim))])
    if c.of(FLAGS):
        masks["patch_drop"] = keep_mask(c, len(x), config.num_patches)
    return filled(c, token_spec(config), x, config=config, masks=masks)


def attention_pool(c: Choice) -> Case:
    config = small_config(c, pool="map", norm=c.of(NORMS), activation=c.of(ACTIVATIONS),
                          attn_pool_activation=c.of((None, *ACTIVATIONS)))  # fmt: skip
    return filled(c, pool_spec(config), c.array(c.size(), c.size(), config.embed_dim), config=config)


ENCODERS: list[Fields] = [
    {}, {"rope": "axial"}, {"rope": "dinov3", "rope_half": True, "reg_tokens": 1}, {"block": "parallel_things"},
    {"block": "parallel", "qk_norm": True}, {"block": "res_post", "norm": "rms"},
    {"attention": "diff", "layer_scale": 0.1},
]  # fmt: skip


def assembled_encoder(c: Choice) -> Case:
    """Two blocks; masks of what a query may read and of patches that are not there, some patches dropped."""
    config = small_config(c, **c.of(ENCODERS), **rates(c))
    batch, tokens, masks = c.size(1, 3), config.num_tokens, dict[str, Array]()
    if c.of(FLAGS):
        masks["patch_drop"] = keep_mask(c, batch, config.num_patches)
        tokens = config.num_prefix_tokens + int(masks["patch_drop"][0].sum())
    x, rng = c.array(batch, tokens, config.embed_dim), np.random.default_rng(c.seed())
    for i, rate in enumerate(drop_path_rates(config)):
        masks |= drop_masks(c, [(f"blocks.{i}.{n}", r, s) for n, r, s in block_sites(config, batch, tokens, rate)])
    if c.of(FLAGS):
        masks["attn_mask"] = rng.random((len(x), 1, config.num_tokens, config.num_tokens)) > RATE
        masks["attn_mask"][..., 0] = True  # the class token is always read: padding may hide all else
    if c.of(FLAGS):
        masks["padding_mask"] = rng.random((len(x), config.num_patches)) > RATE
    spec = {}
    for i in range(config.depth):
        spec |= under(f"blocks.{i}", BLOCK_SPECS[config.block](config, i))
    return filled(c, spec, x, config=config, masks=masks)


HEADS: list[Fields] = [
    {"dist_token": True, "dist_head": True}, {"pool": "map"}, {"pool": "mean", "fc_norm": True, "pre_logits": 3},
    {"pool": "avg_max", "pool_include_prefix": True, "head_bias": False}, {"pool": "cls_mean", "head_softmax": True},
    {"pool": "max", "reg_tokens": 2, "fc_norm": True, "norm": "rms"}, {"num_classes": 0, "pool": "mean"},
]  # fmt: skip


def assembled_head(c: Choice) -> Case:
    config = small_config(c, **c.of(HEADS))
    spec = {n: p for n, p in assembled_spec(config).items() if n.startswith(("attn_pool.", "fc_norm.", "pre_", "head"))}
    return filled(c, spec, c.array(c.size(), config.num_tokens, config.embed_dim), config=config)


def packed_attention(c: Choice) -> Case:
    lengths = tuple(c.size(1, 5) for _ in range(c.size()))
    shape = c.size(), c.size(), sum(lengths), c.size()
    return Case({name: c.array(*shape) for name in "qkv"}, {"lengths": lengths})


def packed_block(c: Choice) -> Case:
    config, lengths = small_config(c), tuple(c.size(1, 5) for _ in range(c.size()))
    x = c.array(1, sum(lengths), config.embed_dim)
    return filled(c, block_spec(config), x, lengths=lengths, config=config)


CASES: dict[str, Build] = {
    "rms_norm": rms_norm, "norm": norm, "silu": elementwise(), "quick_gelu": elementwise(), "relu": elementwise(),
    "gelu_tanh": elementwise("any"), "activation": activation, "layer_scale": layer_scale, "rope": rope,
    "rope_mixed": rope_mixed, "biased_attention": biased_attention, "grouped_query": grouped_query,
    "diff_attention": diff_attention, "rel_pos_bias": rel_pos_bias, "token_pool": token_pool,
    "refined_pool": refined_pool, "table_resize": table_resize,
    "patch_dropout": patch_dropout, "mask_tokens": mask_tokens, "mae_loss": mae_loss, "pos_resize": pos_resize,
    "patch_resize": patch_resize, "assembled_attention": assembled_attention, "activated_mlp": mlp("mlp"),
    "gated_mlp": mlp("glu", "glu_packed"), "patch_stem": patch_stem, "token_stem": token_stem,
    "attention_pool": attention_pool,
    "assembled_block": block({"layer_scale": 0.1}, {"block": "res_post", "norm": "rms"}, {"mlp": "glu"},
                             {"layer_scale": 0.1, "layer_scale_names": "gamma", "layer_scale_mlp": False}),
    "parallel_block": block({"block": "parallel", "qk_norm": True}, {"block": "diff_parallel"},
                            {"block": "parallel", "qkv_bias": "none", "layer_scale": 0.1, "rope": "axial"}),
    "parallel_things_block": block({"block": "parallel_things", "layer_scale": 0.2}, {"block": "parallel_things"}),
    "assembled_encoder": assembled_encoder, "assembled_head": assembled_head, "packed_attention": packed_attention,
    "packed_block": packed_block,
}  # fmt: skip


# ---- parts -----------------------------------------------------------------------------------------------------


def small_config(c: Choice, **fields: Any) -> ViTConfig:
    """A small model, not square, with the fields given."""
    heads, grid, patch = c.size(1, 3), (c.size(1, 3), c.size(1, 3)), (c.size(1, 3), c.size(1, 3))
    plain = {"image_size": (grid[0] * patch[0], grid[1] * patch[1]), "patch_size": patch, "in_channels": 2,
             "num_classes": 3, "embed_dim": 4 * heads, "depth": 2, "num_heads": heads, "mlp_ratio": 1.5}  # fmt: skip
    if "image_size" in fields:
        plain["patch_size"] = (4, 5)
    return ViTConfig(**{**plain, **fields})


def rates(c: Choice) -> Fields:
    return dict.fromkeys(("attn_drop_rate", "proj_drop_rate", "drop_path_rate"), c.of((0.0, RATE)))


def filled(c: Choice, spec: dict[str, ParamSpec], x: Array, **options: Any) -> Case:
    return Case({"x": x, **random_params(spec, c.seed())}, options)


def positions(c: Choice, config: ViTConfig) -> nv.Positions:
    """Rotary tables where the configuration turns; perhaps a bias on the scores."""
    tokens, pairs = config.num_tokens, config.head_dim // 2
    sin = cos = None
    if config.rope != "none":
        sin, cos = (c.array(1, 1, config.num_patches, pairs, scale="one") for _ in range(2))
    bias = c.array(1, 1, tokens, tokens, scale="one") if c.of(FLAGS) else None
    return nv.Positions(1, sin, cos, bias)


def block_masks(c: Choice, config: ViTConfig, batch: int, prefix: str = "") -> dict[str, Array]:
    """The masks of a block's sites below the prefix."""
    sites = block_sites(config, batch, config.num_tokens, config.drop_path_rate)
    return drop_masks(c, [(n[len(prefix) :], rate, s) for n, rate, s in sites if n.startswith(prefix)])


def drop_masks(c: Choice, sites: Sequence[tuple[str, float, tuple[int, ...]]]) -> dict[str, Array]:
    if not c.of((True, True, False)):  # rates without masks: nothing is dropped
        return {}
    rng = np.random.default_rng(c.seed())
    return {name: rng.random(shape) >= rate for name, rate, shape in sites if rate}


def drop(c: Choice, shape: tuple[int, ...]) -> dict[str, Any]:
    rate = c.of((0.0, RATE))
    mask = np.random.default_rng(c.seed()).random(shape) >= rate if rate else None
    return {"drop_mask": mask, "drop_rate": rate}


def keep_mask(c: Choice, batch: int, patches: int, hidden: int = 0) -> Array:
    """True = keep, as many in each row; at least so many are not kept."""
    keep = c.size(1, patches - hidden)
    return np.random.default_rng(c.seed()).random((batch, patches)).argsort(axis=1) < keep
