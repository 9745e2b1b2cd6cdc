"""lucidrains/vit-pytorch: ViT, through the names it has had since 2021, and SimpleViT.

Patches are flattened as (P_h, P_w, C); query, key and value have no bias; the inner width of attention is free.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from vit_common.layouts.arguments import Arguments, image_size, patch_size, rates
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import PATCH_LAST, PATCH_VECTOR, SAME, constant, drop_axes, rows

PATCHES = (
    (("patch_embed.norm_in.weight", "patch_embed.norm_in.bias"),
     ("to_patch_embedding.1.weight", "to_patch_embedding.1.bias"), PATCH_VECTOR, 1),
    ("patch_embed.proj.weight", "to_patch_embedding.2.weight", PATCH_LAST, 2),
    ("patch_embed.proj.bias", "to_patch_embedding.2.bias"),
    ("patch_embed.norm.*", "to_patch_embedding.3.*"),
    ("patch_embed.proj.weight", "to_patch_embedding.1.weight", PATCH_LAST, 2),  # until 2022: the linear map alone
    ("patch_embed.proj.bias", "to_patch_embedding.1.bias"),
    ("patch_embed.proj.weight", "patch_to_embedding.weight", PATCH_LAST, 2),
    ("patch_embed.proj.bias", "patch_to_embedding.bias"),
)  # fmt: skip
LAYER = "transformer.layers.{i}."
ATTENTION = (
    ("norm1.*", "0.norm.*"), ("attn.qkv.*", "0.to_qkv.*"), ("attn.proj.*", "0.to_out.0.*"), ("norm2.*", "1.net.0.*"),
    ("mlp.fc1.*", "1.net.1.*"), ("mlp.fc2.*", "1.net.4.*"),
    # until 2023: norms in a PreNorm around; until 2021: that in a Residual
    ("attn.qkv.*", "0.fn.to_qkv.*"), ("attn.proj.*", "0.fn.to_out.0.*"), ("norm2.*", "1.norm.*"),
    ("mlp.fc1.*", "1.fn.net.0.*"), ("mlp.fc2.*", "1.fn.net.3.*"),
    ("norm1.*", "0.fn.norm.*"), ("attn.qkv.*", "0.fn.fn.to_qkv.*"), ("attn.proj.*", "0.fn.fn.to_out.0.*"),
    ("norm2.*", "1.fn.norm.*"), ("mlp.fc1.*", "1.fn.fn.net.0.*"), ("mlp.fc2.*", "1.fn.fn.net.3.*"),
)  # fmt: skip
ARGUMENTS = Arguments("vit-pytorch", {
    "image_size": image_size, "patch_size": patch_size, "channels": "in_channels", "dim": "embed_dim",
    "heads": "num_heads", "dim_head": "head_dim", "mlp_dim": "mlp_dim",
    "dropout": rates("attn_drop_rate", "proj_drop_rate"), "emb_dropout": rates("pos_drop_rate"),
}, {"pool": "cls", "activation": "gelu", "in_channels": 3})  # fmt: skip


def table(c: Any) -> tuple:
    """A norm in the head stands behind the pooling, which is the same only where one token is read."""
    head: tuple[tuple, ...] = (("norm.*", "transformer.norm.*"), ("head.*", "mlp_head.*"))
    head += (("norm.*", "mlp_head.0.*"), ("head.*", "mlp_head.1.*"))
    if getattr(c, "fc_norm", False):
        head = (("fc_norm.*", "mlp_head.0.*"), ("head.*", "mlp_head.1.*"))
    nothing = constant(lambda config: None if config.class_token else np.zeros((0, config.embed_dim), np.float32))
    return rows(
        ("cls_token", "cls_token", drop_axes(1), 2), ("cls_token", "cls_token", SAME, 3), ((), "cls_token", nothing),
        ("pos_embed", "pos_embedding", drop_axes(1), 2), ("pos_embed", "pos_embedding", SAME, 3), *PATCHES,
        *((f"blocks.{{i}}.{ours}", LAYER + theirs) for ours, theirs in ATTENTION), *head,
    )  # fmt: skip


def facts(tensors: Tensors) -> dict[str, Any]:
    """Since 2025 a model that pools by the mean has no class token, so the class token tells the pooling."""
    token = tensors.get("cls_token")
    if token is not None and token.ndim and 0 in token.shape[:-1]:
        return {"class_token": False, "pool": "mean"}
    return {"pool": "cls"} if token is not None and token.ndim == 2 else {}


def settle(known: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Until 2025 the mean was that of all tokens, the class token too, and until 2023 it was normed after pooling."""
    if known.get("pool") != "mean":
        return {}
    older = "mlp_head.1.weight" in tensors
    return {"pool_include_prefix": known.get("class_token", True), "fc_norm": older, "final_norm": not older}


LUCIDRAINS = Layout(
    name="lucidrains",
    title="lucidrains/vit-pytorch ViT",
    table=table,
    marks=("cls_token", "pos_embedding", "transformer.layers.0.*"),
    fixed={"norm_eps": 1e-5},
    needs=("num_heads", "activation", "pool"),
    facts=facts,
    settle=settle,
    flat=("to_patch_embedding.2.weight", "to_patch_embedding.1.weight", "patch_to_embedding.weight"),
    arguments=ARGUMENTS,
    options={"activation": ("gelu",), "pool": ("cls", "mean")},
)

SIMPLE = (
    ("norm1.*", "0.norm.*"), ("attn.qkv.*", "0.to_qkv.*"), ("attn.proj.*", "0.to_out.*"), ("norm2.*", "1.net.0.*"),
    ("mlp.fc1.*", "1.net.1.*"), ("mlp.fc2.*", "1.net.3.*"),
)  # fmt: skip
SIMPLE_VIT = Layout(
    name="simple_vit",
    title="lucidrains/vit-pytorch SimpleViT",
    table=rows(
        *PATCHES, *((f"blocks.{{i}}.{ours}", LAYER + theirs) for ours, theirs in SIMPLE),
        ("norm.*", "transformer.norm.*"), ("head.*", "linear_head.*"), ("fc_norm.*", "linear_head.0.*"),
        ("head.*", "linear_head.1.*"),
    ),
    marks=("transformer.layers.0.0.to_out.weight",),
    unmarks=("pos_embedding",),
    fixed={
        "norm_eps": 1e-5, "activation": "gelu", "pool": "mean", "class_token": False,
        "pos_embed": "sincos_2d_inclusive",
    },
    needs=("num_heads",),
    flat=LUCIDRAINS.flat,
    arguments=replace(ARGUMENTS, defaults={"in_channels": 3}),
)  # fmt: skip
