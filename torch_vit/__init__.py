"""The engine to run: the same stages in PyTorch, from a laptop CPU to many GPUs."""

from torch_vit.attention import attention_forward, fused_attention_forward, softmax_forward
from torch_vit.class_token import class_token_forward
from torch_vit.dropout import drop_path_forward, dropout_forward
from torch_vit.encoder import Encoder, encoder_forward
from torch_vit.encoder_block import EncoderBlock, encoder_block_forward
from torch_vit.gelu import erf, gelu_forward
from torch_vit.head import head_forward, pool_forward
from torch_vit.layer_norm import LayerNorm, layer_norm_forward
from torch_vit.linear import linear_forward
from torch_vit.loss import cross_entropy_forward
from torch_vit.mlp import Mlp, mlp_forward
from torch_vit.model import VisionTransformer, to_numpy, to_torch, vit_forward
from torch_vit.multi_head import ManualMultiHead, MultiHead, merge_heads, multi_head_forward, split_heads
from torch_vit.optimizer import adamw_init, adamw_step, clip_grad_norm, parameter_groups, sgd_init, sgd_step
from torch_vit.patch_embed import patch_embed_forward, patchify, unpatchify
from torch_vit.pos_embed import pos_embed_forward, sincos_1d, sincos_2d
from torch_vit.tape import Tap, Tape

STAGES = (
    "linear", "patch_embed", "class_token", "pos_embed", "layer_norm", "gelu", "dropout", "attention", "multi_head",
    "mlp", "encoder_block", "encoder", "head", "loss", "optimizer", "model",
)  # fmt: skip

__all__ = [
    "STAGES", "Encoder", "EncoderBlock", "LayerNorm", "ManualMultiHead", "Mlp", "MultiHead", "Tap", "Tape",
    "VisionTransformer", "adamw_init", "adamw_step", "attention_forward", "class_token_forward", "clip_grad_norm",
    "cross_entropy_forward", "drop_path_forward", "dropout_forward", "encoder_block_forward", "encoder_forward", "erf",
    "fused_attention_forward", "gelu_forward", "head_forward", "layer_norm_forward", "linear_forward", "merge_heads",
    "mlp_forward", "multi_head_forward", "parameter_groups", "patch_embed_forward", "patchify", "pool_forward",
    "pos_embed_forward", "sgd_init", "sgd_step", "sincos_1d", "sincos_2d", "softmax_forward", "split_heads",
    "to_numpy", "to_torch", "unpatchify", "vit_forward",
]  # fmt: skip
