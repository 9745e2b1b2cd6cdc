"""timm's four modules of plain Vision Transformers: how to read the table of their names, one row an architecture.

A row: name, patch/image size in pixels, width x depth x heads, classes of the pre-trained head (0: none), then what
differs from the defaults of its module's class: a `key=value` or a bundle of OPTIONS, the later overriding the earlier.
All words are timm's constructor arguments; `timm_config.py` translates those into the fields of ViTConfig.
"""

from fractions import Fraction
from typing import Any

from vit_common.errors import ConfigError, nearest
from vit_common.timm_table import TABLE

OPTIONS: dict[str, dict[str, Any]] = {
    "gap": {"class_token": False, "global_pool": "avg"},
    "gap_no_fc": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "map_pool": {"class_token": False, "global_pool": "map"},
    "patch_pos": {"no_embed_class": True},
    "clip": {"pre_norm": True, "norm_layer": "layernorm_1e-5"},
    "swiglu": {"act_layer": "silu", "mlp_layer": "swiglu_packed"},
    "aimv2": {
        "act_layer": "silu", "class_token": False, "embed_norm_layer": "rmsnorm_1e-5", "fc_norm": False,
        "global_pool": "avg", "mlp_layer": "swiglu", "norm_layer": "rmsnorm_1e-5", "proj_bias": False,
        "qkv_bias": False,
    },
    "beit3": {"global_pool": "avg", "norm_layer": "layernorm_1e-5", "scale_attn_norm": True, "scale_mlp_norm": True},
    "xp": {
        "block_fn": "parallel", "no_embed_class": True, "norm_layer": "rmsnorm_1e-6", "pre_norm": True, "qk_norm": True,
        "qkv_bias": False,
    },
    "eva02": {"mlp_ratio": 8 / 3, "ref_feat_shape": (16, 16), "swiglu_mlp": True, "use_rot_pos_emb": True},
    "rope_vit": {
        "attn_type": "rope", "global_pool": "token", "init_values": 1e-5, "rope_grid_indexing": "xy",
        "rope_temperature": 100.0, "use_rot_pos_emb": True,
    },
    "mixed": {"rope_type": "mixed", "rope_temperature": 10.0},
    "no_ape": {"use_abs_pos_emb": False},
    "rope_gap": {
        "class_token": False, "init_values": 1e-5, "ref_feat_shape": (16, 16), "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
    },
    "dinov3": {
        "dynamic_img_size": True, "init_values": 1e-5, "norm_layer": "layernorm_1e-5", "num_reg_tokens": 4,
        "rope_rotate_half": True, "rope_temperature": 100.0, "rope_type": "dinov3", "use_abs_pos_emb": False,
        "use_fc_norm": False, "use_rot_pos_emb": True,
    },
    "sapiens2": {
        "attn_only_layer_scale": True, "attn_type": "rope", "dynamic_img_size": True, "global_pool": "token",
        "init_values": 1.0, "norm_layer": "rmsnorm_1e-6", "num_reg_tokens": 8, "qk_norm": True, "qkv_fused": False,
        "rope_rescale_coords": 2.0, "rope_rotate_half": True, "rope_temperature": 100.0, "rope_type": "dinov3",
        "swiglu_mlp": True, "use_abs_pos_emb": False, "use_fc_norm": False, "use_rot_pos_emb": True,
    },
    "pe": {
        "attn_type": "rope", "norm_layer": "layernorm_1e-5", "rope_grid_indexing": "xy",
        "use_pre_transformer_norm": True, "use_rot_pos_emb": True,
    },
    "pe_map": {"attn_pool_mlp_ratio": 4.0, "attn_pool_num_heads": 8, "global_pool": "map"},
    "no_norm": {"use_fc_norm": False, "use_post_transformer_norm": False},
    "beit": {"use_abs_pos_emb": False, "use_rel_pos_bias": True},
    "no_cls": {"class_token": False},
    "no_qkv_bias": {"qkv_bias": False},
    "no_final_norm": {"final_norm": False},
    "split_qkv": {"qkv_fused": False},
    "dynamic": {"dynamic_img_size": True},
    "swiglu_align8": {"swiglu_mlp": True, "swiglu_align_to": 8},
    "swiglu_align64": {"swiglu_mlp": True, "swiglu_align_to": 64},
}  # fmt: skip

# Short words of the table.
KEYS = {
    "act": "act_layer", "attn": "attn_layer", "block": "block_fn", "kv": "num_kv_heads", "ls": "init_values",
    "mlp": "mlp_ratio", "norm": "norm_layer", "offset": "rope_grid_offset", "pool": "global_pool",
    "ref": "ref_feat_shape", "reg": "reg_tokens",
}  # fmt: skip


def timm_args(name: str) -> tuple[str, dict[str, Any]]:
    """The class ("vit", "deit", "eva", "beit") and the constructor arguments of a timm architecture.

    Raises:
        ConfigError: the name is not in the table; the message says the nearest.
    """
    family = ""
    for line in TABLE.splitlines():
        if line[:1].strip():
            family = line
        elif line.split()[:1] == [name]:
            return family, _row_args(family, line.split()[1:])
    raise ConfigError(f"{name!r} is not one of timm's plain Vision Transformers; {nearest(name, timm_names())}")


def timm_names() -> list[str]:
    """All names of the table."""
    return [line.split()[0] for line in TABLE.splitlines() if line.startswith("  ")]


def _row_args(family: str, row: list[str]) -> dict[str, Any]:
    sizes, shape, classes, *words = row
    patch, image = sizes.split("/")
    width, depth, heads = map(int, shape.split("x"))
    args: dict[str, Any] = {
        "patch_size": int(patch), "img_size": _value(image), "embed_dim": width, "depth": depth, "num_heads": heads,
        "num_classes": int(classes),
    }  # fmt: skip
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            args |= OPTIONS.get(key, {key: True})
            continue
        key = KEYS.get(key, key)
        args["num_reg_tokens" if key == "reg_tokens" and family == "eva" else key] = _value(text)
    return args


def _value(text: str) -> Any:
    if "+" in text:  # runs: 16x8+8x16 is 16 eight times, then 8 sixteen times
        return tuple(value for run in text.split("+") for value in [int(run.split("x")[0])] * int(run.split("x")[1]))
    if "x" in text and text.replace("x", "").isdigit():
        return tuple(map(int, text.split("x")))
    try:
        number = float(Fraction(text)) if "/" in text else float(text)
    except ValueError:
        return text
    return int(number) if text.isdigit() else number
