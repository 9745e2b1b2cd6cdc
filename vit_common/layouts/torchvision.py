"""torchvision's VisionTransformer (vit_b_16 and its kin)."""

from typing import Any

from vit_common.layouts.layout import Layout
from vit_common.layouts.rules import rows

LAYER = "encoder.layers.encoder_layer_{i}."
BLOCK = (
    ("norm1.*", "ln_1.*"), ("attn.qkv.weight", "self_attention.in_proj_weight"),
    ("attn.qkv.bias", "self_attention.in_proj_bias"), ("attn.proj.*", "self_attention.out_proj.*"),
    ("norm2.*", "ln_2.*"), ("mlp.fc1.*", "mlp.0.*"), ("mlp.fc2.*", "mlp.3.*"),
    ("mlp.fc1.*", "mlp.linear_1.*"), ("mlp.fc2.*", "mlp.linear_2.*"),  # until torchvision 0.13
)  # fmt: skip
WORDS = {
    "image_size": "image_size", "patch_size": "patch_size", "num_heads": "num_heads", "hidden_dim": "embed_dim",
    "num_layers": "depth", "num_classes": "num_classes", "mlp_dim": "mlp_hidden", "representation_size": "pre_logits",
}  # fmt: skip


def arguments(values: dict[str, Any]) -> dict[str, Any] | None:
    """torchvision's own constructor arguments."""
    if not values.keys() & {"hidden_dim", "num_layers", "mlp_dim"} or not values.keys() <= WORDS.keys():
        return None
    checked_by_shape = ("hidden_dim", "num_layers", "mlp_dim", "representation_size", "num_classes")
    return {WORDS[name]: value for name, value in values.items() if name not in checked_by_shape}


TORCHVISION = Layout(
    name="torchvision",
    title="torchvision",
    table=rows(
        ("cls_token", "class_token"), ("pos_embed", "encoder.pos_embedding"), ("patch_embed.proj.*", "conv_proj.*"),
        *((f"blocks.{{i}}.{ours}", LAYER + theirs) for ours, theirs in BLOCK),
        ("norm.*", "encoder.ln.*"), ("pre_logits.fc.*", "heads.pre_logits.*"), ("head.*", "heads.head.*"),
    ),
    marks=("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"),
    fixed={"norm_eps": 1e-6, "activation": "gelu", "pool": "cls"},
    arguments=arguments,
)  # fmt: skip
