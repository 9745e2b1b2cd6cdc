r"""Encoder of variants: the blocks one after the other, and the positions that their attention shares."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled_block import AssembledBlock
from torch_vit.attention_mask import attention_mask_bias, masks_of_kept
from torch_vit.multi_head import AttentionPath
from torch_vit.parallel_block import ParallelBlock
from torch_vit.parallel_things_block import ParallelThingsBlock
from torch_vit.patch_dropout import kept_places
from torch_vit.positions import Positions, table_bias_forward
from torch_vit.rope_mixed import rope_mixed_forward
from torch_vit.rope_table import patch_grid, rope_table
from vit_common.config import ViTConfig
from vit_common.masks import drop_path_rates
from vit_common.params import sub

BLOCKS: dict[str, type[nn.Module]] = {
    "pre_norm": AssembledBlock,
    "res_post": AssembledBlock,
    "parallel": ParallelBlock,
    "diff_parallel": ParallelBlock,
    "parallel_things": ParallelThingsBlock,
}


class AssembledEncoder(nn.ModuleList):
    """Parameters and masks: `0.*` to `{L-1}.*`, those of the configuration's block."""

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused"):
        rates = enumerate(drop_path_rates(config))
        super().__init__(BLOCKS[config.block](config, i, rate, attention) for i, rate in rates)

    def forward(
        self, x: Tensor, positions: list[Positions], masks: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        for i, (block, place) in enumerate(zip(self, positions, strict=True)):
            x = block(x, place, None if masks is None else sub(masks, str(i)))
        return x


def encoder_positions(
    config: ViTConfig, rope: Callable[[Tensor], tuple[Tensor, Tensor]] | None, table: Tensor | None,
    masks: Mapping[str, Tensor], like: Tensor,
) -> list[Positions]:  # fmt: skip
    """What each block's attention knows of places: its rotary table, and the bias of masks and relative positions."""
    keep = kept_places(masks["patch_drop"]) if "patch_drop" in masks else None
    turns: list[list[Tensor | None]] = [[None, None] for _ in range(config.depth)]
    if rope is not None:
        points = patch_grid(config.grid_size, config.rope_grid_indexing, config.rope_grid_offset)
        tables = rope(points.to(like))  # (L, NH, N, HD/2)
        turns = [[_kept(t[i : i + 1], keep) for t in tables] for i in range(config.depth)]
    elif config.rope != "none":
        turns = [[_kept(t.to(like), keep) for t in rope_table(config)]] * config.depth
    prefix = config.num_prefix_tokens
    bias = attention_mask_bias(*masks_of_kept(masks, prefix, config.num_patches, len(like)), prefix, like.dtype)
    if table is not None:
        shared = table_bias_forward(table, config)
        bias = shared if bias is None else bias + shared
    return [Positions(i, sin, cos, bias, config.grid_size) for i, (sin, cos) in enumerate(turns)]


def _kept(table: Tensor, keep: Tensor | None) -> Tensor:
    """Of a rotary table (1, NH or 1, N, HD/2) the patches kept, (B, NH or 1, N', HD/2)."""
    return table if keep is None else torch.transpose(table[0][:, keep], 0, 1)


def assembled_encoder_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor]
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    rope = None
    with torch.device("meta"):  # shells: the parameters come from outside
        encoder = AssembledEncoder(config, "explicit").eval()
    if config.rope == "mixed":
        rope = partial(rope_mixed_forward, params["rope.freqs"])
    table = params.get("rel_pos_bias.relative_position_bias_table")
    positions = encoder_positions(config, rope, table, masks, x)
    return functional_call(encoder, sub(params, "blocks"), (x, positions, sub(masks, "blocks")), strict=True)
