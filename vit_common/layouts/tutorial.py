"""The small tutorial model that this project grew from: every head maps its own slice of the token, there is no output
projection and no final norm, positions are sin/cos, and the head ends in a softmax.

Its program trains and tests with the cross-entropy of these probabilities as if they were logits. So do `train` and
`eval` here, and the loss of the two can be compared; `classify` takes them for the probabilities they are.
"""

from collections.abc import Mapping
from typing import Any

from vit_common.layouts.arguments import Arguments
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import BLOCK_DIAGONAL, PATCH_FIRST, constant, drop_axes, rows


def table(c: Any) -> tuple:
    maps = tuple(f"blocks.{{i}}.mhsa.{kind}_mappings.{h}.*" for kind in "qkv" for h in range(c.num_heads))
    stored = ("pos_embed", "pos_embed", drop_axes(1)), ("pos_embed", "positional_embeddings", drop_axes(1))
    fixed = tuple(((), name, constant(lambda _: None)) for name in ("pos_embed", "positional_embeddings"))
    return rows(
        ("cls_token", "class_token", drop_axes(1)),
        *(stored if getattr(c, "pos_embed", "learned") == "learned" else fixed),
        ("patch_embed.proj.weight", "linear_mapper.weight", PATCH_FIRST),
        ("patch_embed.proj.bias", "linear_mapper.bias"),
        ("blocks.{i}.norm1.*", "blocks.{i}.norm1.*"), ("blocks.{i}.attn.qkv.*", maps, BLOCK_DIAGONAL),
        ("blocks.{i}.norm2.*", "blocks.{i}.norm2.*"), ("blocks.{i}.mlp.fc1.*", "blocks.{i}.mlp.0.*"),
        ("blocks.{i}.mlp.fc2.*", "blocks.{i}.mlp.2.*"), ("head.*", "mlp.0.*"),
    )  # fmt: skip


def _chw(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"in_channels": value[0], "image_size": tuple(value[1:])}


def _n_patches(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Patches along each side."""
    return {"patch_size": tuple(side // value for side in values["chw"][1:])}


ARGUMENTS = Arguments("the tutorial", {
    "chw": _chw, "n_patches": _n_patches, "n_blocks": "depth", "hidden_d": "embed_dim", "n_heads": "num_heads",
    "out_d": "num_classes",
})  # fmt: skip


def facts(tensors: Tensors) -> dict[str, Any]:
    heads = sum(name.startswith("blocks.0.mhsa.q_mappings.") and name.endswith(".weight") for name in tensors)
    stored = "pos_embed" in tensors or "positional_embeddings" in tensors
    return {"num_heads": max(heads, 1), "pos_embed": "learned" if stored else "sincos_1d"}


TUTORIAL = Layout(
    name="tutorial",
    title="the tutorial model (MyViT)",
    table=table,
    marks=("class_token", "linear_mapper.weight", "blocks.0.mhsa.q_mappings.0.weight"),
    fixed={
        "norm_eps": 1e-5, "activation": "gelu", "pool": "cls", "attn_proj": False, "final_norm": False,
        "head_softmax": True,
    },
    needs=(),
    facts=facts,
    flat=("linear_mapper.weight",),
    arguments=ARGUMENTS,
)  # fmt: skip
