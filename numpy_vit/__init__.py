"""The engine to read: every stage of a Vision Transformer in NumPy, forward and hand-written backward side by side."""

from numpy_vit.attention import attention_backward, attention_forward, softmax_backward, softmax_forward
from numpy_vit.class_token import class_token_backward, class_token_forward
from numpy_vit.dropout import drop_path_backward, drop_path_forward, dropout_backward, dropout_forward
from numpy_vit.encoder import encoder_backward, encoder_forward
from numpy_vit.encoder_block import encoder_block_backward, encoder_block_forward
from numpy_vit.gelu import erf, gelu_backward, gelu_forward
from numpy_vit.head import head_backward, head_forward, pool_backward, pool_forward
from numpy_vit.layer_norm import layer_norm_backward, layer_norm_forward
from numpy_vit.linear import linear_backward, linear_forward
from numpy_vit.loss import cross_entropy_backward, cross_entropy_forward
from numpy_vit.mlp import mlp_backward, mlp_forward
from numpy_vit.model import vit_backward, vit_forward
from numpy_vit.multi_head import merge_heads, multi_head_backward, multi_head_forward, split_heads
from numpy_vit.optimizer import adamw_init, adamw_step, clip_grad_norm, sgd_init, sgd_step
from numpy_vit.patch_embed import patch_embed_backward, patch_embed_forward, patchify, unpatchify
from numpy_vit.pos_embed import pos_embed_backward, pos_embed_forward, sincos_1d, sincos_2d

# The stage files in reading order; documentation, tests and benchmarks follow it.
STAGES = (
    "linear", "patch_embed", "class_token", "pos_embed", "layer_norm", "gelu", "dropout", "attention", "multi_head",
    "mlp", "encoder_block", "encoder", "head", "loss", "optimizer", "model",
)  # fmt: skip

__all__ = [
    "STAGES", "adamw_init", "adamw_step", "attention_backward", "attention_forward", "class_token_backward",
    "class_token_forward", "clip_grad_norm", "cross_entropy_backward", "cross_entropy_forward", "drop_path_backward",
    "drop_path_forward", "dropout_backward", "dropout_forward", "encoder_backward", "encoder_block_backward",
    "encoder_block_forward", "encoder_forward", "erf", "gelu_backward", "gelu_forward", "head_backward", "head_forward",
    "layer_norm_backward", "layer_norm_forward", "linear_backward", "linear_forward", "merge_heads", "mlp_backward",
    "mlp_forward", "multi_head_backward", "multi_head_forward", "patch_embed_backward", "patch_embed_forward",
    "patchify", "pool_backward", "pool_forward", "pos_embed_backward", "pos_embed_forward", "sgd_init", "sgd_step",
    "sincos_1d", "sincos_2d", "softmax_backward", "softmax_forward", "split_heads", "unpatchify", "vit_backward",
    "vit_forward",
]  # fmt: skip
