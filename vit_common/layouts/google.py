"""google-research/vision_transformer (before and after Flax linen) and google-research/big_vision."""

import math
from collections.abc import Mapping
from typing import Any

from vit_common.layouts.arguments import Arguments, choice, ignored, image_size, nested, only, patch_size, rates
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import (
    APART,
    HWIO,
    THIRDS,
    TRANSPOSE,
    chain,
    heads_bias,
    heads_in,
    heads_out,
    model_heads,
    pool_heads,
    rows,
)  # fmt: skip

FIXED = {"norm_eps": 1e-6, "activation": "gelu_tanh"}  # flax's LayerNorm, and its gelu, which is the tanh form
# Weights go from these programs to timm and back with the exact GELU there and its tanh form here: that alone is let
# pass, the file says which it is, and `convert` says that the other side computes another.
OPTIONS = {"pool": ("none",), "activation": ("gelu",)}


def norm(ours: str, theirs: str) -> tuple[tuple, ...]:
    return ((ours + ".weight", theirs + "/scale"), (ours + ".bias", theirs + "/bias"))


def dense(ours: str, theirs: str, op: Any = TRANSPOSE) -> tuple[tuple, ...]:
    return ((ours + ".weight", theirs + "/kernel", op), (ours + ".bias", theirs + "/bias"))


def block(start: str, numbers: tuple[str, str, str, str]) -> tuple[tuple, ...]:
    """One encoder block; `numbers` are those of its four modules, which linen counts anew for each kind."""
    first, attn, second, mlp = numbers
    heads = f"{start}MultiHeadDotProductAttention_{attn}/"
    apart = tuple(heads + name for name in ("query", "key", "value"))
    ours = "blocks.{i}.attn."
    return (
        *norm("blocks.{i}.norm1", f"{start}LayerNorm_{first}"),
        (ours + "qkv.weight", tuple(name + "/kernel" for name in apart), chain(THIRDS, heads_out(model_heads))),
        (ours + "qkv.bias", tuple(name + "/bias" for name in apart), chain(THIRDS, heads_bias(model_heads))),
        (ours + "proj.weight", heads + "out/kernel", heads_in(model_heads)),
        (ours + "proj.bias", heads + "out/bias"),
        *norm("blocks.{i}.norm2", f"{start}LayerNorm_{second}"),
        *dense("blocks.{i}.mlp.fc1", f"{start}MlpBlock_{mlp}/Dense_0"),
        *dense("blocks.{i}.mlp.fc2", f"{start}MlpBlock_{mlp}/Dense_1"),
    )


POOL = "MAPHead_0/MultiHeadDotProductAttention_0/"
AROUND = (
    ("cls_token", "cls"),
    *dense("patch_embed.proj", "embedding", HWIO),
    *norm("norm", "Transformer/encoder_norm"),
    *dense("pre_logits.fc", "pre_logits"),
    *dense("head", "head"),
    ("attn_pool.latent", "MAPHead_0/probe"),
    (("attn_pool.q.weight", "attn_pool.kv.weight"), tuple(f"{POOL}{n}/kernel" for n in ("query", "key", "value")),
     chain(APART, heads_out(pool_heads))),
    (("attn_pool.q.bias", "attn_pool.kv.bias"), tuple(f"{POOL}{n}/bias" for n in ("query", "key", "value")),
     chain(APART, heads_bias(pool_heads))),
    ("attn_pool.proj.weight", POOL + "out/kernel", heads_in(pool_heads)),
    ("attn_pool.proj.bias", POOL + "out/bias"),
    *norm("attn_pool.norm", "MAPHead_0/LayerNorm_0"),
    *dense("attn_pool.mlp.fc1", "MAPHead_0/MlpBlock_0/Dense_0"),
    *dense("attn_pool.mlp.fc2", "MAPHead_0/MlpBlock_0/Dense_1"),
)  # fmt: skip
OLD, LINEN = ("0", "1", "2", "3"), ("0", "0", "1", "0")
EACH, ALL = "Transformer/encoderblock_{i}/", "Transformer/encoderblock/"
INSIDE = ("pos_embed", "Transformer/posembed_input/pos_embedding")


def facts(tensors: Tensors) -> dict[str, Any]:
    """Kernels keep their heads apart; a class token is there to be read; without positions they are sin/cos."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name.endswith("/query/kernel") and name.startswith("Transformer/encoderblock") and tensor.ndim >= 3:
            found["num_heads"] = tensor.shape[-2]
            break
    if "cls" in tensors:
        found["pool"] = "cls"
    return found


def big_vision_facts(tensors: Tensors) -> dict[str, Any]:
    found = facts(tensors)
    positions = tensors.get("pos_embedding")
    if positions is None or positions.ndim != 3:
        return found | {"pos_embed": "sincos_2d_inclusive", "pos_embed_prefix": "cls" not in tensors}
    if "cls" in tensors:  # until 2022 it had a position of its own: one more than a square number
        patches = positions.shape[1] - 1
        found["pos_embed_prefix"] = patches > 0 and math.isqrt(patches) ** 2 == patches
    return found


def _patches(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """{"size": (16, 16)}, or the sizes themselves."""
    return patch_size(value["size"] if isinstance(value, Mapping) else value, values)


def _rep_size(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {} if isinstance(value, bool) or not value else {"pre_logits": value}


POOLS: dict[str, dict[str, Any]] = {
    "token": {"pool": "cls"}, "tok": {"pool": "cls"}, "gap": {"pool": "mean"}, "map": {"pool": "map"},
    "unpooled": {"pool": "none", "class_token": False}, "token_unpooled": {"pool": "none", "class_token": True},
    "none": {"pool": "none"},
}  # fmt: skip
ENCODER = {
    "num_layers": "depth", "num_heads": "num_heads", "mlp_dim": "mlp_dim",
    "dropout_rate": rates("pos_drop_rate", "proj_drop_rate"), "attention_dropout_rate": rates("attn_drop_rate"),
    "add_position_embedding": only("add_position_embedding", True),
}  # fmt: skip
# The words of both programs, and the short ones that people use for them.
ARGUMENTS = Arguments("google-research", {
    **ENCODER, "patches": _patches, "patch_size": patch_size, "patch": patch_size, "hidden_size": "embed_dim",
    "width": "embed_dim", "dim": "embed_dim", "heads": "num_heads", "mlp": "mlp_dim", "layers": "depth",
    "num_classes": "num_classes", "pool": lambda value, _: POOLS.get(value, {"pool": value}),
    "image_size": image_size, "img_size": image_size, "img": image_size,
    "transformer": nested(ENCODER, "google-research"),
    "classifier": choice("classifier", POOLS), "pool_type": choice("pool_type", POOLS),
    "representation_size": _rep_size, "rep_size": _rep_size,
    "posemb": choice("posemb", {"learn": {"pos_embed": "learned"}, "sincos2d": {"pos_embed": "sincos_2d_inclusive"}}),
    "dropout": rates("pos_drop_rate", "proj_drop_rate"), "resnet": only("resnet", None),
    # told by the tensors, or how the program runs
    **dict.fromkeys(("variant", "head_zeroinit", "head_bias_init", "scan", "remat_policy", "dtype_mm", "model_name",
                     "encoder"), ignored),
})  # fmt: skip


def _layout(name: str, title: str, table: tuple[tuple, ...], marks: tuple[str, ...], **more: Any) -> Layout:
    settings: dict[str, Any] = {
        "prefixes": ("opt/target/", "params/"),
        "fixed": FIXED,
        "needs": ("num_heads",),
        "facts": facts,
        "crops": True,
        "arguments": ARGUMENTS,
        "options": OPTIONS,
    }
    return Layout(name=name, title=title, table=rows(*table), marks=marks, **{**settings, **more})


POSITIONED = "Transformer/posembed_input/pos_embedding"
GOOGLE = _layout(
    "google", "google-research/vision_transformer, released files (numbered as before linen)",
    (*AROUND, INSIDE, *block(EACH, OLD)), (POSITIONED, "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"),
)  # fmt: skip
GOOGLE_LINEN = _layout(
    "google_linen", "google-research/vision_transformer (numbered as by linen)",
    (*AROUND, INSIDE, *block(EACH, LINEN)), (POSITIONED, "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"),
)  # fmt: skip
# Until 2022 the positions stood in the encoder, and the pooling at the top.
OLDER = ((r"^Transformer/pos_embedding$", "pos_embedding"),
         (r"^(probe$|MlpBlock_0/|MultiHeadDotProductAttention_0/|LayerNorm_0/)", r"MAPHead_0/\1"))  # fmt: skip
_TOWERS: dict[str, Any] = {
    "prefixes": ("params/img/", "opt/target/", "params/", "img/"), "prefix": lambda config: "params/",
    "facts": big_vision_facts, "ignored": r"^(txt/|t$|b$)", "unmarks": (POSITIONED,),
    "spellings": OLDER,
}  # fmt: skip
BIG_VISION = _layout(
    "big_vision", "google-research/big_vision",
    (*AROUND, ("pos_embed", "pos_embedding"), *block(EACH, LINEN)),
    ("embedding/kernel", "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"), **_TOWERS,
)  # fmt: skip
BIG_VISION_SCAN = _layout(
    "big_vision_scan", "google-research/big_vision, blocks stacked (scan=True)",
    (*AROUND, ("pos_embed", "pos_embedding"), *block(ALL, LINEN)),
    ("embedding/kernel", "Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"), **_TOWERS,
)  # fmt: skip
GOOGLES = (GOOGLE, GOOGLE_LINEN, BIG_VISION, BIG_VISION_SCAN)
