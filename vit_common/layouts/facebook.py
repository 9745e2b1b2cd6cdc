"""facebookresearch/mae and facebookresearch/dino: timm's names, and what stands around them in their files."""

from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.timm import BUFFERS, TIMM

CODE = {"norm_eps": 1e-6, "activation": "gelu"}


def _pool(tensors: Tensors) -> dict[str, str]:
    return {"pool": "mean" if "fc_norm.weight" in tensors else "cls"}


MAE = Layout(
    name="mae",
    title="facebookresearch/mae: the encoder, pre-trained or fine-tuned",
    table=TIMM.table,
    marks=("patch_embed.proj.weight", "decoder_embed.weight"),
    fixed=CODE,
    facts=_pool,
    ignored=BUFFERS + r"|^(decoder_|mask_token$)",
)
DINO = Layout(
    name="dino",
    title="facebookresearch/dino: the backbone, alone or in a training checkpoint",
    table=TIMM.table,
    marks=("patch_embed.proj.weight", "head.last_layer.*"),
    prefixes=("backbone.",),
    fixed={**CODE, "pool": "cls"},
    ignored=BUFFERS + r"|^head\.(mlp|last_layer)\.",
)
