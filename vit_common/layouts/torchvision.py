"""torchvision's VisionTransformer (vit_b_16 and its kin)."""

from vit_common.layouts.arguments import Arguments, image_size, norm_eps, only, patch_size, rates
from vit_common.layouts.layout import Layout
from vit_common.layouts.rules import rows

LAYER = "encoder.layers.encoder_layer_{i}."
BLOCK = (
    ("norm1.*", "ln_1.*"), ("attn.qkv.weight", "self_attention.in_proj_weight"),
    ("attn.qkv.bias", "self_attention.in_proj_bias"), ("attn.proj.*", "self_attention.out_proj.*"),
    ("norm2.*", "ln_2.*"), ("mlp.fc1.*", "mlp.0.*"), ("mlp.fc2.*", "mlp.3.*"),
    ("mlp.fc1.*", "mlp.linear_1.*"), ("mlp.fc2.*", "mlp.linear_2.*"),  # until torchvision 0.13
)  # fmt: skip
ARGUMENTS = Arguments("torchvision", {
    "image_size": image_size, "patch_size": patch_size, "num_layers": "depth", "hidden_dim": "embed_dim",
    "mlp_dim": "mlp_dim", "representation_size": "pre_logits", "dropout": rates("pos_drop_rate", "proj_drop_rate"),
    "attention_dropout": rates("attn_drop_rate"), "norm_layer": norm_eps,
    "conv_stem_configs": only("conv_stem_configs", None),
})  # fmt: skip

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
    arguments=ARGUMENTS,
    options={"norm_eps": None},
)  # fmt: skip
