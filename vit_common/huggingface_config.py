"""From a Hugging Face `config.json` to the fields of ViTConfig: a table of words, and a rule for each model type.

Which head stands on top is in `architectures` (`...ForImageClassification`, `...WithProjection`); without it the model
returns its pooled features and `num_classes` is 0.
"""

from collections.abc import Mapping
from typing import Any

from vit_common.errors import ConfigError, nearest

ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
    "silu": "silu", "swish": "silu",
}  # fmt: skip

# Library defaults, for the keys that a config.json may leave out.
COMMON = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16,
          "num_channels": 3, "hidden_act": "gelu"}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"layer_norm_eps": 1e-12},
    "deit": {"layer_norm_eps": 1e-12},
    "vit_mae": {"layer_norm_eps": 1e-12},
    "beit": {"layer_norm_eps": 1e-12},
    "dinov2": {"layer_norm_eps": 1e-6, "patch_size": 14},
    "dinov2_with_registers": {"layer_norm_eps": 1e-6, "num_register_tokens": 4},
    "dinov3_vit": {"layer_norm_eps": 1e-5, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6},
    "clip_vision_model": {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "patch_size": 32},
    "siglip_vision_model": {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
}
# Models that take images of any size without being asked to, and those whose heads may have a width of their own.
ANY_SIZE = ("beit", "dinov2", "dinov2_with_registers", "dinov3_vit")
OWN_HEAD_DIM = ("vit", "deit", "beit", "vit_mae", "dinov2", "dinov2_with_registers")


def huggingface_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ViTConfig for the contents of a `config.json`.

    Raises:
        ConfigError: an unknown `model_type` (the message says the nearest), or an option without a counterpart here.
    """
    model_type = values.get("model_type")
    if isinstance(values.get("vision_config"), Mapping):  # the two-tower CLIP and SigLIP: their visual tower
        outer = {k: values[k] for k in ("architectures", "projection_dim", "id2label", "num_labels") if k in values}
        values = {**values["vision_config"], **outer}  # the tower's own projection_dim is not the model's
        model_type = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}.get(str(model_type), model_type)
    if model_type not in DEFAULTS:
        raise ConfigError(f"model_type={model_type!r} is unknown here; {nearest(str(model_type), DEFAULTS)}")
    values = {**COMMON, **DEFAULTS[model_type], **values}
    if values["hidden_act"] not in ACTIVATIONS:
        act = values["hidden_act"]
        raise ConfigError(f"hidden_act={act!r} is unknown; {nearest(str(act), ACTIVATIONS)}")
    width, architecture = values["hidden_size"], (values.get("architectures") or [""])[0]
    fields: dict[str, Any] = {
        "image_size": _size(values["image_size"]), "patch_size": _size(values["patch_size"]),
        "in_channels": values["num_channels"], "embed_dim": width, "depth": values["num_hidden_layers"],
        "num_heads": values["num_attention_heads"], "norm_eps": values["layer_norm_eps"],
        "activation": ACTIVATIONS[values["hidden_act"]], "pos_resize": "huggingface_bicubic",
        "table_resize": "huggingface_bilinear", "dynamic_image_size": model_type in ANY_SIZE,
        "num_classes": _labels(values) if "ForImageClassification" in architecture else 0,
    }  # fmt: skip
    sizes = zip(_pair(values["image_size"]), _pair(values["patch_size"]), strict=True)
    fields["patch_crop"] = any(size % patch for size, patch in sizes)
    if not values.get("qkv_bias", True):
        fields["qkv_bias"] = "none"
    inner = values.get("head_dim") if model_type in OWN_HEAD_DIM else None
    if inner and inner * fields["num_heads"] != width:
        fields["attn_head_dim"] = inner
    if "mlp_ratio" in values or "intermediate_size" not in values:
        fields["mlp_ratio"] = float(values.get("mlp_ratio", 4.0))
    else:
        fields |= _hidden(width, values["intermediate_size"])
    return fields | RULES[model_type](values, architecture, fields)


def _deit(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    teacher = architecture == "DeiTForImageClassificationWithTeacher"
    return {"dist_token": True, "dist_head": teacher and bool(fields["num_classes"])}


def _beit(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    own = values.get("use_relative_position_bias", False)
    shared = values.get("use_shared_relative_position_bias", False)
    mean, scale = values.get("use_mean_pooling", True), values.get("layer_scale_init_value", 0.1)
    return {
        "qkv_bias": "qv", "layer_scale": scale if scale and scale > 0 else None, "layer_scale_names": "gamma",
        "rel_pos_bias": "both" if own and shared else "block" if own else "shared" if shared else "none",
        "pos_embed": "learned" if values.get("use_absolute_position_embeddings", False) else "none",
        "pool": "mean" if mean else "cls", "final_norm": not mean, "fc_norm": bool(mean),
    }  # fmt: skip


def _dinov2(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"layer_scale": values.get("layerscale_value", 1.0)}
    registers = values.get("num_register_tokens", 0)
    if registers:
        out |= {"reg_tokens": registers, "pos_embed_registers": False}
    if "ForImageClassification" in architecture:
        out["pool"] = "cls_mean"
    if values.get("use_swiglu_ffn", False):
        hidden = (int(int(values["hidden_size"] * values.get("mlp_ratio", 4)) * 2 / 3) + 7) // 8 * 8
        out |= {"mlp": "glu_packed", "activation": "silu", **_hidden(values["hidden_size"], hidden)}
    return out


def _registers(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {**_dinov2(values, architecture, fields), "pos_resize": "timm_bicubic"}  # alone of these, with antialias


def _dinov3(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    there = "".join(n[0] for n, default in (("query", 1), ("key", 0), ("value", 1)) if values.get(f"{n}_bias", default))
    biases = {"qkv": "all", "": "none"}.get(there, there)
    return {
        "qkv_bias": biases, "qkv": "fused" if biases in ("all", "none", "qv") else "split",
        "proj_bias": values.get("proj_bias", True), "mlp_bias": values.get("mlp_bias", True),
        "mlp": "glu" if values.get("use_gated_mlp", False) else "mlp", "pos_embed": "none", "rope": "dinov3",
        "rope_half": True, "rope_temperature": float(values.get("rope_theta", 100.0)),
        "reg_tokens": values.get("num_register_tokens", 0), "layer_scale": values.get("layerscale_value", 1.0),
        "layer_scale_names": "gamma",
    }  # fmt: skip


def _clip(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"patch_bias": False, "pre_norm": True}
    if architecture in ("CLIPVisionModelWithProjection", "CLIPModel"):
        return out | {"num_classes": values.get("projection_dim", 512), "head_bias": False}
    if fields["num_classes"]:  # CLIPForImageClassification reads the patches before the final norm
        return out | {"pool": "mean", "final_norm": False}
    return out


def _siglip(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    bare = "map" if values.get("vision_use_head", True) else "none"  # without a head the library hands out tokens
    return {"class_token": False, "pool": "mean" if fields["num_classes"] else bare}


def _plain(values: Mapping[str, Any], architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {}


RULES = {
    "vit": _plain, "vit_mae": _plain, "deit": _deit, "beit": _beit, "dinov2": _dinov2,
    "dinov2_with_registers": _registers, "dinov3_vit": _dinov3, "clip_vision_model": _clip,
    "siglip_vision_model": _siglip,
}  # fmt: skip


def _hidden(width: int, hidden: int) -> dict[str, Any]:
    """`mlp_ratio` where it gives the hidden width back exactly, else `mlp_hidden` too."""
    ratio = hidden / width
    return {"mlp_ratio": ratio} if int(width * ratio) == hidden else {"mlp_ratio": ratio, "mlp_hidden": hidden}


def _labels(values: Mapping[str, Any]) -> int:
    if values.get("id2label") is not None:
        return len(values["id2label"])
    return int(values.get("num_labels", 2))  # the library's own default


def _pair(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, (list, tuple)) else (value, value)
    return height, width


def _size(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
