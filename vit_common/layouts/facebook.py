"""facebookresearch/mae and facebookresearch/dino: timm's names, and what stands around them in their files."""

from vit_common.layouts.layout import Layout, Tensors
from vit_common.layouts.rules import rows
from vit_common.layouts.timm import BUFFERS, TIMM
from vit_common.layouts.timm import NAMES as TIMM_NAMES

CODE = {"norm_eps": 1e-6, "activation": "gelu"}


def _pool(tensors: Tensors) -> dict[str, str]:
    return {"pool": "mean" if "fc_norm.weight" in tensors else "cls"}


BLOCK = ("norm1.*", "attn.qkv.*", "attn.proj.*", "norm2.*", "mlp.fc1.*", "mlp.fc2.*")
DECODER = ("decoder_embed.*", "mask_token", "decoder_pos_embed", "decoder_norm.*", "decoder_pred.*",
           *(f"decoder_blocks.{{j}}.{name}" for name in BLOCK))  # fmt: skip
MAE = Layout(
    name="mae",
    title="facebookresearch/mae: the encoder; with a MaeConfig the decoder too",
    table=(*rows(*((name, name) for name in TIMM_NAMES)), *rows(*((name, name) for name in DECODER))),
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
