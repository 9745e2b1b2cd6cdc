"""timm: its names are ours. facebookresearch/deit, mae and dino follow them, with their own words around."""

from vit_common.layouts.arguments import TIMM_DEFAULTS, TIMM_WORDS, Arguments
from vit_common.layouts.layout import Layout
from vit_common.layouts.rules import rows

NORMS = ("norm_pre.*", "norm.*", "fc_norm.*", "patch_embed.norm.*", "patch_embed.norm_in.*")
ONCE = (
    "cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed.proj.*", *NORMS, "rope.freqs",
    "rel_pos_bias.relative_position_bias_table", "attn_pool.latent", "attn_pool.q.*", "attn_pool.kv.*",
    "attn_pool.proj.*", "attn_pool.norm.*", "attn_pool.mlp.fc1.*", "attn_pool.mlp.fc2.*", "pre_logits.fc.*", "head.*",
    "head_dist.*",
)  # fmt: skip
ATTENTION = (
    "qkv.*", "q_bias", "v_bias", "q_proj.*", "k_proj.*", "v_proj.*", "q_norm.*", "k_norm.*", "norm.*", "proj.*",
    "relative_position_bias_table", "lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "sub_norm.weight",
)  # fmt: skip
MLP = ("fc1.*", "fc1_g.*", "fc1_x.*", "norm.*", "fc2.*")
BLOCK = (
    "norm1.*", "norm2.*", "gamma_1", "gamma_2", "ls1.gamma", "ls2.gamma", *(f"attn.{n}" for n in ATTENTION),
    *(f"mlp.{n}" for n in MLP),
    # parallel blocks
    "in_norm.*", "in_proj.*", "mlp_bias", "attn_out_proj.*", "mlp_out_proj.*", "out_proj.*", "ls.gamma",
    *(n for n in ATTENTION if n.startswith(("q_norm", "k_norm", "lambda", "sub_norm"))),
    *(f"attns.{j}.{n}" for j in (0, 1) for n in ("norm.*", "ls.gamma", *(f"attn.{m}" for m in ATTENTION))),
    *(f"ffns.{j}.{n}" for j in (0, 1) for n in ("norm.*", "ls.gamma", *(f"mlp.{m}" for m in MLP))),
)  # fmt: skip
NAMES = (*ONCE, *(f"blocks.{{i}}.{name}" for name in BLOCK))

# Buffers of older releases, computed from the configuration.
BUFFERS = r"(^|\.)(relative_position_index|relative_coords_table|rope\.(periods|bands|pos_embed.*)|k_bias|attn_mask)$"

TIMM = Layout(
    name="timm",
    title="timm, facebookresearch/deit",
    table=rows(*((name, name) for name in NAMES), ("pre_logits.fc.*", "pre_logits.*")),
    marks=("patch_embed.proj.weight", "blocks.0.*"),
    unmarks=("decoder_embed.weight", "head.last_layer.*", "mask_token"),
    prefixes=("module.", "backbone.", "model.", "_orig_mod."),
    needs=("num_heads", "norm_eps", "activation", "pool"),
    ignored=BUFFERS,
    crops=True,
    arguments=Arguments("timm", TIMM_WORDS, TIMM_DEFAULTS),
)
