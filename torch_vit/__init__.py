"""The engine to run: the same stages in PyTorch, from a laptop CPU to many GPUs."""

from torch_vit.activated_mlp import activated_mlp_forward
from torch_vit.activation import activation_forward
from torch_vit.assembled import assembled_features_forward, assembled_forward
from torch_vit.assembled_attention import assembled_attention_forward
from torch_vit.assembled_block import assembled_block_forward
from torch_vit.assembled_encoder import assembled_encoder_forward
from torch_vit.assembled_head import assembled_head_forward
from torch_vit.attention import attention_forward, fused_attention_forward, softmax_forward
from torch_vit.attention_mask import attention_mask_bias
from torch_vit.attention_pool import attention_pool_forward
from torch_vit.biased_attention import biased_attention_forward
from torch_vit.branch import BranchNames, branch_forward
from torch_vit.class_token import class_token_forward
from torch_vit.diff_attention import diff_attention_forward
from torch_vit.dropout import drop_path_forward, dropout_forward
from torch_vit.encoder import Encoder, encoder_forward
from torch_vit.encoder_block import EncoderBlock, encoder_block_forward
from torch_vit.gated_mlp import gated_mlp_forward
from torch_vit.gelu import erf, gelu_forward
from torch_vit.gelu_tanh import gelu_tanh_forward
from torch_vit.grouped_query import grouped_query_forward
from torch_vit.head import head_forward, pool_forward
from torch_vit.layer_norm import LayerNorm, layer_norm_forward
from torch_vit.layer_scale import layer_scale_forward
from torch_vit.linear import linear_forward
from torch_vit.loss import cross_entropy_forward
from torch_vit.mae import mae_forward
from torch_vit.mae_loss import mae_loss_forward
from torch_vit.mask_tokens import mask_tokens_forward
from torch_vit.mlp import Mlp, mlp_forward
from torch_vit.model import VisionTransformer, to_numpy, to_torch, vit_forward
from torch_vit.multi_head import ManualMultiHead, MultiHead, merge_heads, multi_head_forward, split_heads
from torch_vit.norm import norm_forward
from torch_vit.optimizer import adamw_init, adamw_step, clip_grad_norm, parameter_groups, sgd_init, sgd_step
from torch_vit.packed_attention import packed_attention_forward
from torch_vit.packed_block import packed_block_forward
from torch_vit.packed_tokens import packed_tokens_forward
from torch_vit.packing import packed_forward
from torch_vit.parallel_block import parallel_block_forward
from torch_vit.parallel_things_block import parallel_things_block_forward
from torch_vit.patch_dropout import patch_dropout_forward
from torch_vit.patch_embed import patch_embed_forward, patchify, unpatchify
from torch_vit.patch_resize import patch_resize_forward
from torch_vit.patch_stem import patch_stem_forward
from torch_vit.pos_embed import pos_embed_forward, sincos_1d, sincos_2d
from torch_vit.pos_resize import pos_resize_forward
from torch_vit.positions import Positions, block_bias_forward, qk_positions_forward, table_bias_forward
from torch_vit.prefix_tokens import prefix_tokens_forward
from torch_vit.qkv_project import qkv_project_forward
from torch_vit.quick_gelu import quick_gelu_forward
from torch_vit.refined_pool import refined_pool_forward
from torch_vit.rel_pos_bias import rel_pos_bias_forward
from torch_vit.relu import relu_forward
from torch_vit.resize_matrix import resize_matrix
from torch_vit.rms_norm import rms_norm_forward
from torch_vit.rope import rope_forward
from torch_vit.rope_mixed import rope_mixed_forward
from torch_vit.rope_table import centred_grid, patch_grid, pixel_grid, rope_table
from torch_vit.serve import Serving, serve
from torch_vit.silu import silu_forward
from torch_vit.table_resize import table_matrix, table_resize_forward
from torch_vit.tape import Tap, Tape
from torch_vit.token_pool import token_pool_forward
from torch_vit.token_stem import token_stem_forward

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
    "STAGES", "VARIANTS", "BranchNames", "Encoder", "EncoderBlock", "LayerNorm", "ManualMultiHead", "Mlp", "MultiHead",
    "Positions", "Serving", "Tap", "Tape", "VisionTransformer", "activated_mlp_forward", "activation_forward",
    "adamw_init", "adamw_step", "assembled_attention_forward", "assembled_block_forward", "assembled_encoder_forward",
    "assembled_features_forward", "assembled_forward", "assembled_head_forward", "attention_forward",
    "attention_mask_bias", "attention_pool_forward", "biased_attention_forward", "block_bias_forward",
    "branch_forward", "centred_grid", "class_token_forward", "clip_grad_norm", "cross_entropy_forward",
    "diff_attention_forward", "drop_path_forward", "dropout_forward", "encoder_block_forward", "encoder_forward",
    "erf", "fused_attention_forward", "gated_mlp_forward", "gelu_forward", "gelu_tanh_forward",
    "grouped_query_forward", "head_forward", "layer_norm_forward", "layer_scale_forward", "linear_forward",
    "mae_forward", "mae_loss_forward", "mask_tokens_forward", "merge_heads", "mlp_forward", "multi_head_forward",
    "norm_forward", "packed_attention_forward", "packed_block_forward", "packed_forward", "packed_tokens_forward",
    "parallel_block_forward", "parallel_things_block_forward", "parameter_groups", "patch_dropout_forward",
    "patch_embed_forward", "patch_grid", "patch_resize_forward", "patch_stem_forward", "patchify", "pixel_grid",
    "pool_forward", "pos_embed_forward", "pos_resize_forward", "prefix_tokens_forward", "qk_positions_forward",
    "qkv_project_forward", "quick_gelu_forward", "refined_pool_forward", "rel_pos_bias_forward", "relu_forward",
    "resize_matrix", "rms_norm_forward", "rope_forward", "rope_mixed_forward", "rope_table", "serve", "sgd_init",
    "sgd_step", "silu_forward", "sincos_1d", "sincos_2d", "softmax_forward", "split_heads", "table_bias_forward",
    "table_matrix", "table_resize_forward", "to_numpy", "to_torch", "token_pool_forward", "token_stem_forward",
    "unpatchify", "vit_forward",
]  # fmt: skip
