"""facebookresearch/mae, dino and dinov2: timm's names, and what stands around them in their files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_common.layouts.arguments import TIMM_DEFAULTS, TIMM_WORDS, Arguments, ignored, only
from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import constant, rows
from vit_common.layouts.timm import BUFFERS, TIMM
from vit_common.layouts.timm import NAMES as TIMM_NAMES

CODE = {"norm_eps": 1e-6, "activation": "gelu"}


def _pool(tensors: Tensors) -> dict[str, str]:
    return {"pool": "mean" if "fc_norm.weight" in tensors else "cls"}


BLOCK = ("norm1.*", "attn.qkv.*", "attn.proj.*", "norm2.*", "mlp.fc1.*", "mlp.fc2.*")
DECODER = ("decoder_embed.*", "mask_token", "decoder_pos_embed", "decoder_norm.*", "decoder_pred.*",
           *(f"decoder_blocks.{{j}}.{name}" for name in BLOCK))  # fmt: skip


def _decoder_heads(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"decoder_heads": value, "norm_pix": values.get("norm_pix_loss", False)}  # the program's default


MAE_WORDS = TIMM_WORDS | {
    "decoder_embed_dim": "decoder_dim", "decoder_num_heads": _decoder_heads, "norm_pix_loss": "norm_pix",
    **{name: name for name in ("decoder_dim", "decoder_depth", "decoder_heads", "decoder_mlp_ratio", "norm_pix",
                               "mask_ratio")},
}  # fmt: skip
MAE = Layout(
    name="mae",
    title="facebookresearch/mae: the encoder; with a MaeConfig the decoder too",
    table=(*rows(*((name, name) for name in TIMM_NAMES)), *rows(*((name, name) for name in DECODER))),
    marks=("patch_embed.proj.weight", "decoder_embed.weight"),
    fixed=CODE,
    facts=_pool,
    ignored=BUFFERS + r"|^(decoder_|mask_token$)",
    crops=True,
    arguments=Arguments("mae", MAE_WORDS, TIMM_DEFAULTS),
    variants=("qkv_bias", "final_norm", "fc_norm", "patch_crop", "pos_grid"),
)
DINO = Layout(
    name="dino",
    title="facebookresearch/dino: the backbone, alone or in a training checkpoint",
    table=TIMM.table,
    marks=("patch_embed.proj.weight", "head.last_layer.*"),
    prefixes=("backbone.",),
    fixed={**CODE, "pool": "cls"},
    ignored=BUFFERS + r"|^head\.(mlp|last_layer)\.",
    crops=True,
    arguments=Arguments("dino", TIMM_WORDS, TIMM_DEFAULTS),
    variants=("qkv_bias", "patch_crop", "pos_grid"),
)


def _dinov2_facts(tensors: Tensors) -> dict[str, Any]:
    """Registers have no positions; a gated MLP has SiLU."""
    gated = "blocks.0.mlp.w12.weight" in tensors
    known = {"mlp": "glu_packed", "activation": "silu"} if gated else {"activation": "gelu"}
    return {**known, "pos_embed_registers": "register_tokens" not in tensors, "pos_embed_prefix": True}


def _dinov2(c: Any) -> tuple:
    gated = (("blocks.{i}.mlp.fc1.*", "blocks.{i}.mlp.w12.*"), ("blocks.{i}.mlp.fc2.*", "blocks.{i}.mlp.w3.*"))
    return rows(
        ("reg_token", "register_tokens"), *(gated if getattr(c, "mlp", "mlp") != "mlp" else ()),
        *((name, name) for name in TIMM_NAMES),
        ((), "mask_token", constant(lambda config: np.zeros((1, config.embed_dim), np.float32))),
    )  # fmt: skip


DINOV2 = Layout(
    name="dinov2",
    title="facebookresearch/dinov2: the backbone",
    table=_dinov2,
    marks=("patch_embed.proj.weight", "mask_token"),
    unmarks=("decoder_embed.weight",),
    prefixes=("backbone.",),
    spellings=((r"^blocks\.\d+\.(\d+\.)", r"blocks.\1"),),  # blocks in chunks, each at its own number
    fixed={"norm_eps": 1e-6, "pool": "cls"},
    facts=_dinov2_facts,
    crops=True,
    arguments=Arguments("dinov2", TIMM_WORDS | {
        "num_register_tokens": "reg_tokens", "mlp_ratio": ignored, "block_chunks": ignored,
        "ffn_layer": only("ffn_layer", "mlp", "swiglu", "swiglufused"), "drop_path_uniform": ignored,
        "interpolate_antialias": ignored, "interpolate_offset": ignored,
    }),
    variants=("layer_scale", "qkv_bias", "proj_bias", "mlp_bias", "mlp", "activation", "reg_tokens",
              "pos_embed_registers", "patch_crop", "pos_grid"),
)  # fmt: skip
