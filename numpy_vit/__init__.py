"""The engine to read: every stage of a Vision Transformer in NumPy, forward and hand-written backward side by side."""

from numpy_vit.activated_mlp import activated_mlp_backward, activated_mlp_forward
from numpy_vit.activation import activation_backward, activation_forward
from numpy_vit.assembled import (
    assembled_backward,
    assembled_features_backward,
    assembled_features_forward,
    assembled_forward,
)
from numpy_vit.assembled_attention import assembled_attention_backward, assembled_attention_forward
from numpy_vit.assembled_block import assembled_block_backward, assembled_block_forward
from numpy_vit.assembled_encoder import assembled_encoder_backward, assembled_encoder_forward
from numpy_vit.assembled_head import assembled_head_backward, assembled_head_forward
from numpy_vit.attention import attention_backward, attention_forward, softmax_backward, softmax_forward
from numpy_vit.attention_mask import attention_mask_bias
from numpy_vit.attention_pool import attention_pool_backward, attention_pool_forward
from numpy_vit.biased_attention import biased_attention_backward, biased_attention_forward
from numpy_vit.branch import BranchNames, branch_backward, branch_forward
from numpy_vit.class_token import class_token_backward, class_token_forward
from numpy_vit.diff_attention import diff_attention_backward, diff_attention_forward
from numpy_vit.dropout import drop_path_backward, drop_path_forward, dropout_backward, dropout_forward
from numpy_vit.encoder import encoder_backward, encoder_forward
from numpy_vit.encoder_block import encoder_block_backward, encoder_block_forward
from numpy_vit.gated_mlp import gated_mlp_backward, gated_mlp_forward
from numpy_vit.gelu import erf, gelu_backward, gelu_forward
from numpy_vit.gelu_tanh import gelu_tanh_backward, gelu_tanh_forward
from numpy_vit.grouped_query import grouped_query_backward, grouped_query_forward
from numpy_vit.head import head_backward, head_forward, pool_backward, pool_forward
from numpy_vit.layer_norm import layer_norm_backward, layer_norm_forward
from numpy_vit.layer_scale import layer_scale_backward, layer_scale_forward
from numpy_vit.linear import linear_backward, linear_forward
from numpy_vit.loss import cross_entropy_backward, cross_entropy_forward
from numpy_vit.mae import mae_backward, mae_forward
from numpy_vit.mae_loss import mae_loss_backward, mae_loss_forward
from numpy_vit.mask_tokens import mask_tokens_backward, mask_tokens_forward
from numpy_vit.mlp import mlp_backward, mlp_forward
from numpy_vit.model import vit_backward, vit_forward
from numpy_vit.multi_head import merge_heads, multi_head_backward, multi_head_forward, split_heads
from numpy_vit.norm import norm_backward, norm_forward
from numpy_vit.optimizer import adamw_init, adamw_step, clip_grad_norm, sgd_init, sgd_step
from numpy_vit.packed_attention import packed_attention_backward, packed_attention_forward
from numpy_vit.packed_block import packed_block_backward, packed_block_forward
from numpy_vit.packed_tokens import packed_tokens_backward, packed_tokens_forward
from numpy_vit.packing import packed_backward, packed_forward
from numpy_vit.parallel_block import parallel_block_backward, parallel_block_forward
from numpy_vit.parallel_things_block import parallel_things_block_backward, parallel_things_block_forward
from numpy_vit.patch_dropout import patch_dropout_backward, patch_dropout_forward
from numpy_vit.patch_embed import patch_embed_backward, patch_embed_forward, patchify, unpatchify
from numpy_vit.patch_resize import patch_resize_backward, patch_resize_forward
from numpy_vit.patch_stem import patch_stem_backward, patch_stem_forward
from numpy_vit.pos_embed import pos_embed_backward, pos_embed_forward, sincos_1d, sincos_2d
from numpy_vit.pos_resize import pos_resize_backward, pos_resize_forward
from numpy_vit.positions import (
    Positions,
    block_bias_backward,
    block_bias_forward,
    qk_positions_backward,
    qk_positions_forward,
    table_bias_backward,
    table_bias_forward,
)
from numpy_vit.prefix_tokens import prefix_tokens_backward, prefix_tokens_forward
from numpy_vit.qkv_project import qkv_project_backward, qkv_project_forward
from numpy_vit.quick_gelu import quick_gelu_backward, quick_gelu_forward
from numpy_vit.refined_pool import refined_pool_backward, refined_pool_forward
from numpy_vit.rel_pos_bias import rel_pos_bias_backward, rel_pos_bias_forward
from numpy_vit.relu import relu_backward, relu_forward
from numpy_vit.resize_matrix import resize_matrix
from numpy_vit.rms_norm import rms_norm_backward, rms_norm_forward
from numpy_vit.rope import rope_backward, rope_forward
from numpy_vit.rope_mixed import rope_mixed_backward, rope_mixed_forward
from numpy_vit.rope_table import centred_grid, patch_grid, pixel_grid, rope_table
from numpy_vit.serve import predict, serve
from numpy_vit.silu import silu_backward, silu_forward
from numpy_vit.table_resize import table_matrix, table_resize_backward, table_resize_forward
from numpy_vit.token_pool import token_pool_backward, token_pool_forward
from numpy_vit.token_stem import token_stem_backward, token_stem_forward

# The stage files in reading order; documentation, tests and benchmarks follow it.
STAGES = (
    "linear", "patch_embed", "class_token", "pos_embed", "layer_norm", "gelu", "dropout", "attention", "multi_head",
    "mlp", "encoder_block", "encoder", "head", "loss", "optimizer", "model",
)  # fmt: skip

# Further ideas, one file each, from which `assembled` builds what other people's Vision Transformers have.
VARIANTS = (
    "rms_norm", "norm", "gelu_tanh", "silu", "quick_gelu", "relu", "activation", "layer_scale", "prefix_tokens",
    "resize_matrix", "pos_resize", "table_resize", "patch_resize", "patch_dropout", "patch_stem", "token_stem",
    "rope_table", "rope_mixed", "rope", "rel_pos_bias", "attention_mask", "biased_attention", "grouped_query",
    "diff_attention", "qkv_project", "positions", "assembled_attention", "activated_mlp", "gated_mlp", "branch",
    "assembled_block", "parallel_block", "parallel_things_block", "assembled_encoder", "attention_pool",
    "refined_pool", "token_pool", "assembled_head", "assembled", "mask_tokens", "mae_loss", "mae",
    "packed_attention", "packed_block", "packed_tokens", "packing",
)  # fmt: skip

__all__ = [
    "STAGES", "VARIANTS", "BranchNames", "Positions", "activated_mlp_backward", "activated_mlp_forward",
    "activation_backward", "activation_forward", "adamw_init", "adamw_step", "assembled_attention_backward",
    "assembled_attention_forward", "assembled_backward", "assembled_block_backward", "assembled_block_forward",
    "assembled_encoder_backward", "assembled_encoder_forward", "assembled_features_backward",
    "assembled_features_forward", "assembled_forward", "assembled_head_backward", "assembled_head_forward",
    "attention_backward", "attention_forward", "attention_mask_bias", "attention_pool_backward",
    "attention_pool_forward", "biased_attention_backward", "biased_attention_forward", "block_bias_backward",
    "block_bias_forward", "branch_backward", "branch_forward", "centred_grid", "class_token_backward",
    "class_token_forward", "clip_grad_norm", "cross_entropy_backward", "cross_entropy_forward",
    "diff_attention_backward", "diff_attention_forward", "drop_path_backward", "drop_path_forward", "dropout_backward",
    "dropout_forward", "encoder_backward", "encoder_block_backward", "encoder_block_forward", "encoder_forward", "erf",
    "gated_mlp_backward", "gated_mlp_forward", "gelu_backward", "gelu_forward", "gelu_tanh_backward",
    "gelu_tanh_forward", "grouped_query_backward", "grouped_query_forward", "head_backward", "head_forward",
    "layer_norm_backward", "layer_norm_forward", "layer_scale_backward", "layer_scale_forward", "linear_backward",
    "linear_forward", "mae_backward", "mae_forward", "mae_loss_backward", "mae_loss_forward", "mask_tokens_backward",
    "mask_tokens_forward", "merge_heads", "mlp_backward", "mlp_forward", "multi_head_backward", "multi_head_forward",
    "norm_backward", "norm_forward", "packed_attention_backward", "packed_attention_forward", "packed_backward",
    "packed_block_backward", "packed_block_forward", "packed_forward", "packed_tokens_backward",
    "packed_tokens_forward", "parallel_block_backward", "parallel_block_forward", "parallel_things_block_backward",
    "parallel_things_block_forward", "patch_dropout_backward", "patch_dropout_forward", "patch_embed_backward",
    "patch_embed_forward", "patch_grid", "patch_resize_backward", "patch_resize_forward", "patch_stem_backward",
    "patch_stem_forward", "patchify", "pixel_grid", "pool_backward", "pool_forward", "pos_embed_backward",
    "pos_embed_forward", "pos_resize_backward", "pos_resize_forward", "predict", "prefix_tokens_backward",
    "prefix_tokens_forward", "qk_positions_backward", "qk_positions_forward", "qkv_project_backward",
    "qkv_project_forward", "quick_gelu_backward", "quick_gelu_forward", "refined_pool_backward",
    "refined_pool_forward", "rel_pos_bias_backward", "rel_pos_bias_forward", "relu_backward", "relu_forward",
    "resize_matrix", "rms_norm_backward", "rms_norm_forward", "rope_backward", "rope_forward", "rope_mixed_backward",
    "rope_mixed_forward", "rope_table", "serve", "sgd_init", "sgd_step", "silu_backward", "silu_forward", "sincos_1d",
    "sincos_2d", "softmax_backward", "softmax_forward", "split_heads", "table_bias_backward", "table_bias_forward",
    "table_matrix", "table_resize_backward", "table_resize_forward", "token_pool_backward", "token_pool_forward",
    "token_stem_backward", "token_stem_forward", "unpatchify", "vit_backward", "vit_forward",
]  # fmt: skip
