"""The visual tower of OpenAI's CLIP, and of open_clip, which keeps its names."""

from collections.abc import Mapping
from typing import Any

from vit_common.layouts.arguments import (
    Arguments,
    activation,
    choice,
    ignored,
    image_size,
    norm_eps,
    only,
    patch_size,
    rates,
)
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import TRANSPOSE, drop_axes, rows

BLOCK = (
    ("norm1.*", "ln_1.*"), ("attn.qkv.weight", "attn.in_proj_weight"), ("attn.qkv.bias", "attn.in_proj_bias"),
    ("attn.proj.*", "attn.out_proj.*"), ("ls1.gamma", "ls_1.gamma"), ("norm2.*", "ln_2.*"),
    ("mlp.fc1.*", "mlp.c_fc.*"), ("mlp.fc2.*", "mlp.c_proj.*"), ("ls2.gamma", "ls_2.gamma"),
    # of its custom block
    ("attn.q_norm.*", "attn.ln_q.*"), ("attn.k_norm.*", "attn.ln_k.*"), ("attn.norm.*", "attn.ln_inner.*"),
    ("mlp.norm.*", "mlp.ln.*"),
)  # fmt: skip
TABLE = rows(
    ("cls_token", "class_embedding", drop_axes(2)), ("pos_embed", "positional_embedding", drop_axes(1)),
    ("patch_embed.proj.*", "conv1.*"), ("norm_pre.*", "ln_pre.*"),
    *((f"blocks.{{i}}.{ours}", f"transformer.resblocks.{{i}}.{theirs}") for ours, theirs in BLOCK),
    ("norm.*", "ln_post.*"), ("fc_norm.*", "ln_post.*"), ("head.weight", "proj", TRANSPOSE),
)  # fmt: skip
HEAD_WIDTH = 64


def _quick(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"activation": "quick_gelu"} if value else {}


def _act_kwargs(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"activation": "gelu_tanh"} if value.get("approximate") == "tanh" else {}


def _head_width(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_heads": values["width"] // value}


# open_clip's own arguments, those of the `vision_cfg` in its configuration file, and OpenAI's.
ARGUMENTS = Arguments("open_clip", {
    "image_size": image_size, "patch_size": patch_size, "width": "embed_dim", "layers": "depth", "heads": "num_heads",
    "head_width": _head_width, "output_dim": "num_classes",
    "pool_type": choice("pool_type", {"tok": {"pool": "cls"}, "avg": {"pool": "mean"}, "none": {"pool": "none"}}),
    "final_ln_after_pool": lambda value, _: {"final_norm": not value, "fc_norm": bool(value)},
    "act_layer": activation, "quick_gelu": _quick, "act_kwargs": _act_kwargs, "norm_layer": norm_eps,
    "norm_kwargs": lambda value, _: {"norm_eps": value["eps"]} if "eps" in value else {},
    "patch_dropout": rates("patch_drop_rate"),
    # told by the tensors
    "ls_init_value": ignored, "no_ln_pre": ignored, "pos_embed_type": ignored, "block_type": ignored,
    "qk_norm": ignored, "scale_attn_inner": ignored, "scale_fc": ignored,
    # not built here
    **{name: only(name, False) for name in ("attentional_pool", "scaled_cosine_attn", "scale_heads", "scale_attn")},
    "output_tokens": ignored, "attn_pooler_queries": ignored, "attn_pooler_heads": ignored,
}, {"activation": "gelu", "pool": "cls"})  # fmt: skip
OPENAI = {"input_resolution": "image_size"}


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's words are read as open_clip's, its activation is the quick GELU; a width without heads has 64 a head."""
    if values.keys() & OPENAI.keys():
        values = {"quick_gelu": True} | {OPENAI.get(name, name): value for name, value in values.items()}
    if "width" in values and not values.keys() & {"heads", "head_width", "num_heads"}:
        values = {"head_width": HEAD_WIDTH, **values}
    return ARGUMENTS(values)


def facts(tensors: Tensors) -> dict[str, Any]:
    return {"patch_bias": "conv1.bias" in tensors}


OPEN_CLIP = Layout(
    name="open_clip",
    title="open_clip's and OpenAI CLIP's visual tower",
    table=TABLE,
    marks=("conv1.weight", "transformer.resblocks.0.ln_1.weight", "class_embedding"),
    prefixes=("visual.",),
    only="visual.",  # the text tower beside it has the same names without the prefix
    fixed={"norm_eps": 1e-5, "head_bias": False, "pool": "cls"},  # its own default; pool_type "avg" is pool="mean"
    needs=("num_heads", "activation"),
    facts=facts,
    crops=True,
    arguments=arguments,
    options={"norm_eps": None, "pool": None, "final_norm": None, "fc_norm": None,
             "activation": ("gelu", "quick_gelu", "gelu_tanh")},
)  # fmt: skip
