"""google-research/vision_transformer (before and after Flax linen) and google-research/big_vision."""

from typing import Any

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
    if "cls" in tensors:
        found["pos_embed_prefix"] = False
    if "pos_embedding" not in tensors:
        found["pos_embed"] = "sincos_2d_inclusive"
    return found


def _layout(name: str, title: str, table: tuple[tuple, ...], marks: tuple[str, ...], **more: Any) -> Layout:
    settings: dict[str, Any] = {
        "prefixes": ("opt/target/", "params/"),
        "fixed": FIXED,
        "needs": ("num_heads",),
        "facts": facts,
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
_TOWERS: dict[str, Any] = {
    "prefixes": ("params/img/", "opt/target/", "params/", "img/"), "prefix": lambda config: "params/",
    "facts": big_vision_facts, "ignored": r"^(txt/|t$|b$)", "unmarks": (POSITIONED,),
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
