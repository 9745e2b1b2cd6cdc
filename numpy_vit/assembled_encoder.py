r"""Encoder of variants: the blocks one after the other, and the positions that their attention shares."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from numpy_vit.assembled_block import assembled_block_backward, assembled_block_forward
from numpy_vit.attention_mask import attention_mask_bias, masks_of_kept
from numpy_vit.parallel_block import parallel_block_backward, parallel_block_forward
from numpy_vit.parallel_things_block import parallel_things_block_backward, parallel_things_block_forward
from numpy_vit.patch_dropout import kept_places
from numpy_vit.positions import Positions, TableBiasCache, table_bias_backward, table_bias_forward
from numpy_vit.rope_mixed import RopeMixedCache, rope_mixed_backward, rope_mixed_forward
from numpy_vit.rope_table import patch_grid, rope_table
from vit_common.config import ViTConfig
from vit_common.masks import drop_path_rates
from vit_common.params import sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray

BLOCKS: dict[str, tuple[Any, Any]] = {
    "pre_norm": (assembled_block_forward, assembled_block_backward),
    "res_post": (assembled_block_forward, assembled_block_backward),
    "parallel": (parallel_block_forward, parallel_block_backward),
    "diff_parallel": (parallel_block_forward, parallel_block_backward),
    "parallel_things": (parallel_things_block_forward, parallel_things_block_backward),
}


class AssembledEncoderCache(NamedTuple):
    kind: str
    blocks: list[Any]
    mixed: RopeMixedCache | None
    keep: Array | None  # (B, N'), the patches that patch dropout kept
    table: TableBiasCache | None


def assembled_encoder_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, masks: Mapping[str, Array], tape: Tape = None
) -> tuple[Array, AssembledEncoderCache]:
    r"""(B, T, D) -> (B, T, D), $x_{\ell+1} = \operatorname{block}_\ell(x_\ell;\, \mathrm{positions}_\ell)$.

    Parameters: `blocks.*`, and what all blocks share: `rope.freqs`, `rel_pos_bias.relative_position_bias_table`. Masks:
    those of the blocks, `patch_drop` (B, N), `attn_mask` (see `attention_mask`), `padding_mask` (B, N). **Backward**:
    the blocks in reverse order; what is shared gets the sum over the blocks.
    """
    keep = kept_places(masks["patch_drop"]) if "patch_drop" in masks else None
    sin = cos = mixed = table = None
    if config.rope == "mixed":
        points = patch_grid(config.grid_size, config.rope_grid_indexing, config.rope_grid_offset)
        (sin, cos), mixed = rope_mixed_forward(params["rope.freqs"], points.astype(x.dtype))  # (L, NH, N, HD/2)
    elif config.rope != "none":
        sin, cos = (t.astype(x.dtype) for t in rope_table(config))  # (1, 1, N, HD/2)
    prefix = config.num_prefix_tokens
    bias = attention_mask_bias(*masks_of_kept(masks, prefix, config.num_patches, len(x)), prefix, x.dtype)
    if config.rel_pos_bias in ("shared", "both"):
        shared, table = table_bias_forward(params["rel_pos_bias.relative_position_bias_table"], config)
        bias = shared if bias is None else bias + shared
    caches = []
    for i, rate in enumerate(drop_path_rates(config)):
        s, c = (None if t is None else _kept(t[i : i + 1] if mixed else t, keep) for t in (sin, cos))
        places = Positions(i, s, c, bias, config.grid_size)
        block = sub(params, f"blocks.{i}"), x, config, places, sub(masks, f"blocks.{i}")
        x, cache = BLOCKS[config.block][0](*block, rate, scope(tape, f"blocks.{i}"))
        note(tape, **{f"blocks.{i}": x})
        caches.append(cache)
    return x, AssembledEncoderCache(config.block, caches, mixed, keep, table)


def assembled_encoder_backward(
    dy: Array, cache: AssembledEncoderCache, tape: Tape = None
) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the parameters."""
    grads: dict[str, Array] = {}
    turns: dict[int, list[Any]] = {}
    dbias = None
    for i, block in reversed(list(enumerate(cache.blocks))):
        note(tape, **{f"blocks.{i}": dy})
        dy, dpositions, g = BLOCKS[cache.kind][1](dy, block, scope(tape, f"blocks.{i}"))  # x = block(x)
        grads |= under(f"blocks.{i}", g)
        every = dpositions if isinstance(dpositions, list) else [dpositions]
        turns[i] = [_sum([getattr(p, name) for p in every]) for name in ("sin", "cos")]
        dbias = _sum([dbias, *(p.bias for p in every)])
    if cache.mixed is not None:
        dsin, dcos = (_spread([turns[i][j] for i in sorted(turns)], cache.keep, cache.mixed.sin) for j in (0, 1))
        grads["rope.freqs"] = rope_mixed_backward(dsin, dcos, cache.mixed)
    if cache.table is not None and dbias is not None:
        grads["rel_pos_bias.relative_position_bias_table"] = table_bias_backward(dbias, cache.table)
    return dy, grads


def _kept(table: Array, keep: Array | None) -> Array:
    """Of a rotary table (1, NH or 1, N, HD/2) the patches kept, (B, NH or 1, N', HD/2)."""
    return table if keep is None else table[0][:, keep].swapaxes(0, 1)


def _spread(parts: list[Array], keep: Array | None, like: Array) -> Array:
    """The adjoint of `_kept`, for every block: (L, NH, N, HD/2)."""
    if keep is None:
        return np.concatenate(parts)
    out = np.zeros_like(like)
    for block, part in zip(out, parts, strict=True):  # (NH, N, HD/2), (B, NH, N', HD/2)
        np.add.at(block.swapaxes(0, 1), keep, part.swapaxes(1, 2))  # an image's row goes back to its patch
    return out


def _sum(parts: list[Array | None]) -> Array | None:
    present = [p for p in parts if p is not None]
    return sum(present[1:], present[0]) if present else None
