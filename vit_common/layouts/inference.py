"""What shapes tell of a configuration."""

import math
from collections.abc import Mapping
from typing import Any

from vit_common.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def fields_from_shapes(shapes: Shapes, known: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """Fields of ViTConfig that follow from our parameters' names and shapes, `known` given.

    A number of patches that is a square number is taken as a square image; `image_size` in `known` overrides it.
    """
    if len(shapes.get("patch_embed.proj.weight", ())) != 4:
        raise CheckpointError(f"the {layout} checkpoint has no patch projection: it is no Vision Transformer")
    width, channels, *patch = shapes["patch_embed.proj.weight"]
    fields: dict[str, Any] = {
        "embed_dim": width, "in_channels": channels, "patch_size": tuple(patch), "depth": known["depth"],
        "num_classes": shapes["head.weight"][0] if "head.weight" in shapes else 0,
        "class_token": "cls_token" in shapes, "dist_token": "dist_token" in shapes,
        "dist_head": "head_dist.weight" in shapes,
        "reg_tokens": shapes["reg_token"][1] if "reg_token" in shapes else 0,
        "patch_bias": "patch_embed.proj.bias" in shapes, "patch_norm": norm_kind(shapes, "patch_embed.norm") or "none",
        "patch_norm_in": "patch_embed.norm_in.weight" in shapes, "pre_norm": "norm_pre.weight" in shapes,
        "final_norm": "norm.weight" in shapes, "fc_norm": "fc_norm.weight" in shapes,
        "head_bias": "head.bias" in shapes or "head.weight" not in shapes,
        "pre_logits": shapes["pre_logits.fc.weight"][0] if "pre_logits.fc.weight" in shapes else 0,
    }  # fmt: skip
    if not fields["class_token"]:
        fields["pool"] = "mean"
    if "attn_pool.q.weight" in shapes:
        fields["pool"] = "map"
    fields["pos_embed"] = "learned" if "pos_embed" in shapes else "none"
    fields |= block_fields(shapes, width, {**known})
    fields = {**fields, **known}
    fields |= grid_fields(shapes, fields)
    return fields


def decoder_from_shapes(shapes: Shapes, layout: str) -> dict[str, Any]:
    """What the shapes tell of a masked autoencoder's decoder."""
    if "decoder_embed.weight" not in shapes or "decoder_blocks.0.mlp.fc1.weight" not in shapes:
        raise CheckpointError(
            f"the {layout} checkpoint has no decoder: it is no masked autoencoder in pre-training; "
            f"leave out what concerns the decoder"
        )
    width, hidden = shapes["decoder_embed.weight"][0], shapes["decoder_blocks.0.mlp.fc1.weight"][0]
    depth = sum(name.startswith("decoder_blocks.") and name.endswith("norm1.weight") for name in shapes)
    return {"decoder_dim": width, "decoder_depth": depth, "decoder_mlp_ratio": hidden / width}


def block_fields(shapes: Shapes, width: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the first block tells."""
    block = {name.removeprefix("blocks.0."): shape for name, shape in shapes.items() if name.startswith("blocks.0.")}
    if "mlp.fc2.weight" not in block or "norm1.weight" not in block:
        return {}
    fields: dict[str, Any] = {"norm": norm_kind(block, "norm1")}
    hidden = block["mlp.fc2.weight"][1]
    fields |= {"mlp_ratio": hidden / width, "mlp_bias": "mlp.fc2.bias" in block, "mlp_norm": "mlp.norm.weight" in block}
    if int(width * (hidden / width)) != hidden:
        fields["mlp_hidden"] = hidden
    if "mlp.fc1_g.weight" in block:
        fields["mlp"] = "glu"
    elif block.get("mlp.fc1.weight", (hidden,))[0] == 2 * hidden:
        fields["mlp"] = "glu_packed"
    for names, first, second in (("ls", "ls1.gamma", "ls2.gamma"), ("gamma", "gamma_1", "gamma_2")):
        if first in block:  # its initial value is history
            fields |= {"layer_scale": 1e-5, "layer_scale_names": names, "layer_scale_mlp": second in block}
    fields["attn_proj"] = "attn.proj.weight" in block
    fields["proj_bias"] = "attn.proj.bias" in block or not fields["attn_proj"]
    fields["qk_norm"], fields["attn_norm"] = "attn.q_norm.weight" in block, "attn.norm.weight" in block
    if "attn.qkv.weight" in block:
        inner = block["attn.qkv.weight"][0] // 3
        biases = "all" if "attn.qkv.bias" in block else "qv" if "attn.q_bias" in block else "none"
        fields |= {"qkv": "fused", "qkv_bias": biases}
    elif "attn.q_proj.weight" in block:
        inner = block["attn.q_proj.weight"][0]
        there = "".join(letter for letter in "qkv" if f"attn.{letter}_proj.bias" in block)
        fields |= {"qkv": "split", "qkv_bias": {"qkv": "all", "": "none"}.get(there, there)}
    else:
        return fields
    heads = known.get("num_heads")
    if heads and isinstance(heads, int) and inner != width and inner % heads == 0:
        fields["attn_head_dim"] = inner // heads
    table, shared = "attn.relative_position_bias_table" in block, "rel_pos_bias.relative_position_bias_table" in shapes
    fields["rel_pos_bias"] = "both" if table and shared else "block" if table else "shared" if shared else "none"
    return fields


def grid_fields(shapes: Shapes, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Image size, and whether the prefix tokens have positions, from the number of positions."""
    if "pos_embed" not in shapes or fields.get("pos_embed") != "learned":
        return table_fields(shapes, fields)
    count = shapes["pos_embed"][1]
    prefix = int(fields["class_token"]) + int(fields["dist_token"])
    if fields.get("pos_embed_registers", True):
        prefix += fields["reg_tokens"]
    patch_h, patch_w = _pair(fields["patch_size"])
    if "image_size" in fields:
        height, width = _pair(fields["image_size"])
        patches = (height // patch_h) * (width // patch_w)
        return {"pos_embed_prefix": count == patches + prefix} if count in (patches, patches + prefix) else {}
    sides = {covered: math.isqrt(count - covered) for covered in {0, prefix} if count > covered
             and math.isqrt(count - covered) ** 2 == count - covered}  # fmt: skip
    if "pos_embed_prefix" in fields:
        covered = prefix if fields["pos_embed_prefix"] else 0
        sides = {covered: sides[covered]} if covered in sides else {}
    if len(sides) != 1:
        return {}
    ((covered, side),) = sides.items()
    return {"image_size": (side * patch_h, side * patch_w), "pos_embed_prefix": covered == prefix}


def table_fields(shapes: Shapes, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Image size from the rows of a relative position table: (2 h - 1)(2 w - 1) + 3, read as a square."""
    tables = [shape[0] - 3 for name, shape in shapes.items() if name.endswith("relative_position_bias_table")]
    side = math.isqrt(tables[0]) if tables and tables[0] > 0 else 0
    if "image_size" in fields or side % 2 == 0 or side**2 != tables[0]:
        return {}
    patch_h, patch_w = _pair(fields["patch_size"])
    return {"image_size": ((side + 1) // 2 * patch_h, (side + 1) // 2 * patch_w)}


def norm_kind(shapes: Shapes, name: str) -> str | None:
    """LayerNorm has a bias, RMSNorm has none."""
    if name + ".weight" not in shapes:
        return None
    return "layer" if name + ".bias" in shapes else "rms"


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
