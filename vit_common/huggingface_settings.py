"""The `config.json` of a Hugging Face model, for a configuration that the library can run."""

from typing import Any

from vit_common.config import Pair, ViTConfig
from vit_common.errors import ConfigError
from vit_common.layouts.huggingface import member
from vit_common.mae_config import MaeConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
               "silu": "silu"}  # fmt: skip
# layout: model_type, class without a head, class with one
CLASSES = {
    "huggingface_vit": ("vit", "ViTModel", "ViTForImageClassification"),
    "huggingface_mae": ("vit_mae", "ViTMAEModel", "ViTMAEModel"),
    "huggingface_deit": ("deit", "DeiTModel", "DeiTForImageClassification"),
    "huggingface_beit": ("beit", "BeitModel", "BeitForImageClassification"),
    "huggingface_dinov2": ("dinov2", "Dinov2Model", "Dinov2ForImageClassification"),
    "huggingface_dinov2_with_registers": ("dinov2_with_registers", "Dinov2WithRegistersModel",
                                          "Dinov2WithRegistersForImageClassification"),
    "huggingface_dinov3": ("dinov3_vit", "DINOv3ViTModel", "DINOv3ViTForImageClassification"),
    "huggingface_clip": ("clip_vision_model", "CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "huggingface_siglip": ("siglip_vision_model", "SiglipVisionModel", "SiglipForImageClassification"),
}  # fmt: skip
# What only training or a fresh start reads, and what says the same in another way.
TRAINING = ("pos_drop_rate", "attn_drop_rate", "proj_drop_rate", "drop_path_rate", "patch_drop_rate", "layer_scale",
            "mlp_ratio", "mlp_hidden", "pos_resize", "table_resize", "dynamic_image_size", "pre_logits")  # fmt: skip


def huggingface_settings(config: ViTConfig | MaeConfig, layout: str | None = None) -> dict[str, Any]:
    """The settings with which the library computes the same function.

    Raises:
        ConfigError: it has no such model; the message names the fields that differ.
    """
    if isinstance(config, MaeConfig):
        return _mae(config)
    layout = layout or member(config)
    model_type, bare, headed = CLASSES[layout]
    if config.dist_head:
        headed = "DeiTForImageClassificationWithTeacher"
    classifies = bool(config.num_classes and config.head_bias)
    if layout == "huggingface_clip" and classifies:
        headed = "CLIPForImageClassification"
    values: dict[str, Any] = {
        "model_type": model_type, "architectures": [headed if config.num_classes else bare],
        "image_size": _side(config.image_size), "patch_size": _side(config.patch_size),
        "num_channels": config.in_channels, "hidden_size": config.embed_dim, "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads, "intermediate_size": config.mlp_dim,
        "hidden_act": ACTIVATIONS[config.activation], "layer_norm_eps": config.norm_eps,
        "qkv_bias": config.qkv_bias != "none", "torch_dtype": "float32",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    if config.attn_head_dim:
        values["head_dim"] = config.attn_head_dim
    if config.pre_logits:  # the pooler, which the file's tensors tell; a classifier has none
        values["pooler_output_size"] = config.pre_logits
    values |= EXTRAS.get(layout, lambda _: {})(config)
    if config.num_classes and not classifies:
        values["projection_dim"] = config.num_classes
    if classifies and layout in ("huggingface_clip", "huggingface_siglip"):  # one tower of two, to the library
        outer = {"model_type": model_type.split("_")[0], "architectures": values.pop("architectures")}
        values = {**outer, "vision_config": values}
    if classifies:
        values["id2label"] = {str(k): f"LABEL_{k}" for k in range(config.num_classes)}
        values["label2id"] = {f"LABEL_{k}": k for k in range(config.num_classes)}
    check_same(config, ViTConfig.from_huggingface(values), f"Hugging Face's {model_type}")
    return values


def _side(size: Pair) -> int | list[int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height if height == width else [height, width]


def check_same(config: ViTConfig, other: ViTConfig, where: str) -> None:
    """Raise unless both compute the same function."""
    fields = [name for name in ViTConfig.__dataclass_fields__ if name not in TRAINING]
    differing = [f"{name}={getattr(config, name)!r} (there {getattr(other, name)!r})" for name in fields
                 if getattr(config, name) != getattr(other, name)]  # fmt: skip
    if (config.layer_scale is None) != (other.layer_scale is None):
        differing.append("layer_scale")
    if config.mlp_dim != other.mlp_dim:
        differing.append(f"mlp_dim={config.mlp_dim} (there {other.mlp_dim})")
    if differing:
        raise ConfigError(f"{where} has no such model: {', '.join(differing)}; choose another layout, e.g. 'timm'")


def _mae(c: MaeConfig) -> dict[str, Any]:
    values = huggingface_settings(c.encoder, "huggingface_mae") | {
        "architectures": ["ViTMAEForPreTraining"], "decoder_hidden_size": c.decoder_dim,
        "decoder_num_hidden_layers": c.decoder_depth, "decoder_num_attention_heads": c.decoder_heads,
        "decoder_intermediate_size": c.decoder.mlp_dim, "mask_ratio": c.mask_ratio, "norm_pix_loss": c.norm_pix,
    }  # fmt: skip
    if MaeConfig.from_huggingface(values).decoder != c.decoder:
        raise ConfigError("Hugging Face's vit_mae has no such decoder; choose layout='mae'")
    return values


def _beit(c: ViTConfig) -> dict[str, Any]:
    height, width = c.grid_size
    if c.rel_pos_bias != "none" and height != width and c.table_resize != "huggingface_bilinear":
        raise ConfigError("Hugging Face's beit mixes up rows and columns of relative positions on a grid not square")
    return {
        "use_relative_position_bias": c.rel_pos_bias in ("block", "both"),
        "use_shared_relative_position_bias": c.rel_pos_bias in ("shared", "both"),
        "use_absolute_position_embeddings": c.pos_embed == "learned", "use_mean_pooling": c.pool == "mean",
        "layer_scale_init_value": c.layer_scale or 0.0, "use_mask_token": False,
    }  # fmt: skip


def _dinov2(c: ViTConfig) -> dict[str, Any]:
    out: dict[str, Any] = {"layerscale_value": c.layer_scale, "use_swiglu_ffn": c.mlp == "glu_packed"}
    out["mlp_ratio"] = int(c.mlp_ratio) if float(c.mlp_ratio).is_integer() else c.mlp_ratio
    if c.mlp == "glu_packed":  # the library takes two thirds of it, and rounds up to a multiple of eight
        out["mlp_ratio"] = next((m for m in range(1, 65) if _swiglu_width(c.embed_dim * m) == c.mlp_dim), c.mlp_ratio)
        out["hidden_act"] = "gelu"  # not read there: SiLU is built in
    return out | ({"num_register_tokens": c.reg_tokens} if c.reg_tokens else {})


def _swiglu_width(hidden: int) -> int:
    return (int(hidden * 2 / 3) + 7) // 8 * 8


def _dinov3(c: ViTConfig) -> dict[str, Any]:
    return {
        **{f"{name}_bias": c.has_bias(name[0]) for name in ("query", "key", "value")},
        "proj_bias": c.proj_bias, "mlp_bias": c.mlp_bias, "use_gated_mlp": c.mlp == "glu",
        "rope_theta": c.rope_temperature, "num_register_tokens": c.reg_tokens, "layerscale_value": c.layer_scale,
    }  # fmt: skip


EXTRAS: dict[str, Any] = {
    "huggingface_beit": _beit, "huggingface_dinov2": _dinov2, "huggingface_dinov2_with_registers": _dinov2,
    "huggingface_dinov3": _dinov3,
    "huggingface_siglip": lambda c: {"vision_use_head": c.pool == "map" or bool(c.num_classes)},
}  # fmt: skip
