"""The vision towers of Hugging Face's two-tower models, CLIP and SigLIP."""

from typing import Any

from vit_common.layouts.huggingface_rows import CLASSIFIER, HEADS, NEEDS, attention, prefixed, zeros
from vit_common.layouts.layout import Layout
from vit_common.layouts.rules import JOINED, constant, drop_axes, rows

TOWER = (
    ("cls_token", "embeddings.class_embedding", drop_axes(2)),
    ("pos_embed", "embeddings.position_embedding.weight", drop_axes(1)),
    ("patch_embed.proj.*", "embeddings.patch_embedding.*"),
    ("norm_pre.*", "pre_layrnorm.*"), ("norm.*", "post_layernorm.*"),
    *attention("encoder.layers.{i}.self_attn.", "q_proj", "k_proj", "v_proj", "encoder.layers.{i}.self_attn.out_proj"),
    *((f"blocks.{{i}}.{ours}", f"encoder.layers.{{i}}.{theirs}") for ours, theirs in (
        ("norm1.*", "layer_norm1.*"), ("norm2.*", "layer_norm2.*"), ("mlp.fc1.*", "mlp.fc1.*"),
        ("mlp.fc2.*", "mlp.fc2.*"))),
)  # fmt: skip
# What a two-tower file holds besides.
TEXT = r"^(text_model\.|text_projection|logit_scale$|logit_bias$)|(^|\.)position_ids$"


def _clip(c: Any) -> tuple:
    """With projection the head is a matrix; a classifier reads the patches and leaves the final norm unused."""
    idle = [] if getattr(c, "final_norm", True) else [
        ((), f"post_layernorm.{leaf}", constant(zeros("D"))) for leaf in ("weight", "bias")]  # fmt: skip
    projection = [("head.weight", "visual_projection.weight")] if not c.head_bias else [CLASSIFIER]
    return rows(*TOWER, *idle, *projection)


CLIP = Layout(
    name="huggingface_clip",
    title="Hugging Face CLIP's vision tower",
    table=_clip,
    marks=("embeddings.patch_embedding.weight", "pre_layrnorm.weight"),
    prefixes=("vision_model.",),
    prefix=prefixed("vision_model."),
    bare=HEADS,
    needs=(*NEEDS, "pool"),
    facts=lambda tensors: (
        {"head_bias": True, "final_norm": False, "pool": "mean"} if "classifier.weight" in tensors
        else {"head_bias": False, "pool": "cls"}
    ),
    ignored=TEXT,
)  # fmt: skip

POOLING = (
    ("attn_pool.latent", "head.probe"),
    (("attn_pool.q.weight", "attn_pool.kv.weight"), "head.attention.in_proj_weight", JOINED),
    (("attn_pool.q.bias", "attn_pool.kv.bias"), "head.attention.in_proj_bias", JOINED),
    ("attn_pool.proj.*", "head.attention.out_proj.*"), ("attn_pool.norm.*", "head.layernorm.*"),
    ("attn_pool.mlp.fc1.*", "head.mlp.fc1.*"), ("attn_pool.mlp.fc2.*", "head.mlp.fc2.*"),
)  # fmt: skip


POOLING_SHAPES = {
    "probe": ("1", "1", "D"), "attention.in_proj_weight": ("3D", "D"), "attention.in_proj_bias": ("3D",),
    "attention.out_proj.weight": ("D", "D"), "attention.out_proj.bias": ("D",), "layernorm.weight": ("D",),
    "layernorm.bias": ("D",), "mlp.fc1.weight": ("M", "D"), "mlp.fc1.bias": ("M",), "mlp.fc2.weight": ("D", "M"),
    "mlp.fc2.bias": ("D",),
}  # fmt: skip


def _siglip(c: Any) -> tuple:
    """A classifier reads the mean of the patches; the pooling that its file holds is there, and left aside."""
    idle = tuple(((), f"head.{name}", constant(zeros(*shape))) for name, shape in POOLING_SHAPES.items())
    return rows(*TOWER, *(idle if getattr(c, "num_classes", 0) else POOLING), CLASSIFIER)


SIGLIP = Layout(
    name="huggingface_siglip",
    title="Hugging Face SigLIP's vision tower",
    table=_siglip,
    marks=("embeddings.patch_embedding.weight", "post_layernorm.weight"),
    unmarks=("pre_layrnorm.weight",),
    prefixes=("vision_model.",),
    prefix=prefixed("vision_model."),
    bare=HEADS,
    needs=NEEDS,
    facts=lambda tensors: {"pool": "mean"} if "classifier.weight" in tensors else {},
    ignored=TEXT + r"|^head\.",
)  # fmt: skip
