r"""Encoder: the blocks, one after the other."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.encoder_block import EncoderBlockCache, encoder_block_backward, encoder_block_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.masks import drop_path_rates
from vit_common.params import sub, under
from vit_common.part_names import encoder_names
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class EncoderCache(NamedTuple):
    blocks: list[EncoderBlockCache]


def encoder_forward(
    params: Mapping[str, Array],
    x: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    tape: Tape = None,
) -> tuple[Array, EncoderCache]:
    r"""(B, T, D) -> (B, T, D).

    $$x_{\ell+1} = \operatorname{block}_\ell(x_\ell), \qquad \ell = 0, \dots, L-1$$

    Parameters and masks: `0.*` to `{L-1}.*`, the names of `encoder_block_forward` below the block's number.
    **Backward**: the blocks in reverse order. With depth 0 both are the identity.

    Raises:
        CheckpointError: a parameter is missing or unknown, as of a block too many.
        ShapeError, DtypeError, RangeError: as of `encoder_block_forward`.
    """
    check_names("encoder", params, encoder_names(config.depth))
    caches = []
    for i, rate in enumerate(drop_path_rates(config)):
        block = sub(params, str(i)), x, config, sub(masks or {}, str(i)), rate, scope(tape, str(i))
        x, cache = encoder_block_forward(*block)
        note(tape, **{str(i): x})
        caches.append(cache)
    return x, EncoderCache(caches)


def encoder_backward(dy: Array, cache: EncoderCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of all blocks."""
    grads: dict[str, Array] = {}
    for i in reversed(range(len(cache.blocks))):
        note(tape, **{str(i): dy})
        dy, g_block = encoder_block_backward(dy, cache.blocks[i], scope(tape, str(i)))  # x = block(x)
        grads |= under(str(i), g_block)
    return dy, grads
