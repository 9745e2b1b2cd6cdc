"""The visual tower of OpenAI's CLIP, and of open_clip, which keeps its names."""

from typing import Any

from vit_common.errors import ConfigError, nearest
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import TRANSPOSE, drop_axes, rows

BLOCK = (
    ("norm1.*", "ln_1.*"), ("attn.qkv.weight", "attn.in_proj_weight"), ("attn.qkv.bias", "attn.in_proj_bias"),
    ("attn.proj.*", "attn.out_proj.*"), ("ls1.gamma", "ls_1.gamma"), ("norm2.*", "ln_2.*"),
    ("mlp.fc1.*", "mlp.c_fc.*"), ("mlp.fc2.*", "mlp.c_proj.*"), ("ls2.gamma", "ls_2.gamma"),
)  # fmt: skip
TABLE = rows(
    ("cls_token", "class_embedding", drop_axes(2)), ("pos_embed", "positional_embedding", drop_axes(1)),
    ("patch_embed.proj.*", "conv1.*"), ("norm_pre.*", "ln_pre.*"),
    *((f"blocks.{{i}}.{ours}", f"transformer.resblocks.{{i}}.{theirs}") for ours, theirs in BLOCK),
    ("norm.*", "ln_post.*"), ("fc_norm.*", "ln_post.*"), ("head.weight", "proj", TRANSPOSE),
)  # fmt: skip
ACTIVATIONS = {"quickgelu": "quick_gelu", "gelu": "gelu", "quick_gelu": "quick_gelu"}
POOLS = {"tok": "cls", "avg": "mean"}
KNOWN = {"image_size", "patch_size", "width", "layers", "heads", "mlp_ratio", "output_dim", "act_layer", "pool_type",
         "head_width", "quick_gelu", "ls_init_value", "final_ln_after_pool", "no_ln_pre"}  # fmt: skip


def arguments(values: dict[str, Any]) -> dict[str, Any] | None:
    """open_clip's own constructor arguments, or the `vision_cfg` of its configuration file."""
    if not values.keys() & {"width", "layers", "heads", "head_width"}:
        return None
    if not values.keys() <= KNOWN:
        strange = sorted(values.keys() - KNOWN)[0]
        raise ConfigError(f"open_clip's argument {strange!r} has no counterpart here; {nearest(strange, KNOWN)}")
    act = str(values.get("act_layer", "quick_gelu" if values.get("quick_gelu") else "gelu")).lower()
    if act not in ACTIVATIONS:
        raise ConfigError(f"open_clip's act_layer={act!r} is unknown; {nearest(act, ACTIVATIONS)}")
    fields: dict[str, Any] = {"activation": ACTIVATIONS[act], "pool": POOLS.get(values.get("pool_type", "tok"), "cls")}
    fields["num_heads"] = values.get("heads") or values["width"] // values.get("head_width", 64)
    if values.get("final_ln_after_pool"):
        fields |= {"final_norm": False, "fc_norm": True}
    return fields | {name: values[name] for name in ("image_size",) if name in values}


def facts(tensors: Tensors) -> dict[str, Any]:
    return {"patch_bias": "conv1.bias" in tensors}


OPEN_CLIP = Layout(
    name="open_clip",
    title="open_clip's and OpenAI CLIP's visual tower",
    table=TABLE,
    marks=("conv1.weight", "transformer.resblocks.0.ln_1.weight", "class_embedding"),
    prefixes=("visual.",),
    only="visual.",  # the text tower beside it has the same names without the prefix
    fixed={
        "norm_eps": 1e-5,
        "head_bias": False,
        "pool": "cls",
    },  # open_clip's own default; pool_type "avg" is pool="mean"
    needs=("num_heads", "activation"),
    facts=facts,
    arguments=arguments,
)
