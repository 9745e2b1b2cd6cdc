r"""Pre-norm encoder block: attention and MLP, each on a normalised copy, each added back to the stream."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.dropout import DropoutCache, drop_path_backward, drop_path_forward
from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.mlp import MlpCache, mlp_backward, mlp_forward
from numpy_vit.multi_head import MultiHeadCache, multi_head_backward, multi_head_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub, under
from vit_common.part_names import ENCODER_BLOCK
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class EncoderBlockCache(NamedTuple):
    norm1: LayerNormCache
    attn: MultiHeadCache
    drop_path1: DropoutCache
    norm2: LayerNormCache
    mlp: MlpCache
    drop_path2: DropoutCache


def encoder_block_forward(
    params: Mapping[str, Array],
    x: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    drop_path_rate: float = 0.0,
    tape: Tape = None,
) -> tuple[Array, EncoderBlockCache]:
    r"""(B, T, D) -> (B, T, D).

    $$z = x + \operatorname{MHA}(\operatorname{LN}_1(x)), \qquad y = z + \operatorname{MLP}(\operatorname{LN}_2(z))$$

    Dosovitskiy et al. 2021, eq. 2 and 3; in training a branch may be dropped for an image (stochastic depth), masks
    `drop_path1`, `drop_path2` (B,). Parameters: `norm1.*`, `attn.*`, `norm2.*`, `mlp.*`.

    **Backward**: a value that forks gets the sum of what comes back both ways, $dz = dy + (\text{through the MLP})$,
    $dx = dz + (\text{through the attention})$: the residual stream carries the gradient past every block.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ShapeError: a parameter or mask does not fit x.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_names("encoder_block", params, ENCODER_BLOCK)
    masks = masks or {}
    n1, c_norm1 = layer_norm_forward(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    note(tape, norm1=n1)
    a, c_attn = multi_head_forward(sub(params, "attn"), n1, config, sub(masks, "attn"), scope(tape, "attn"))
    a_kept, c_path1 = drop_path_forward(a, masks.get("drop_path1"), drop_path_rate)
    z = x + a_kept
    n2, c_norm2 = layer_norm_forward(z, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    note(tape, attn=a, residual=z, norm2=n2)
    m, c_mlp = mlp_forward(sub(params, "mlp"), n2, config, sub(masks, "mlp"), scope(tape, "mlp"))
    m_kept, c_path2 = drop_path_forward(m, masks.get("drop_path2"), drop_path_rate)
    y = z + m_kept
    note(tape, mlp=m)
    return y, EncoderBlockCache(c_norm1, c_attn, c_path1, c_norm2, c_mlp, c_path2)


def encoder_block_backward(dy: Array, cache: EncoderBlockCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the block's parameters."""
    dm = drop_path_backward(dy, cache.drop_path2)  # y = z + drop_path(m)
    note(tape, mlp=dm)
    dn2, g_mlp = mlp_backward(dm, cache.mlp, scope(tape, "mlp"))  # m = mlp(n2)
    dz, g_norm2 = layer_norm_backward(dn2, cache.norm2)  # n2 = layer_norm(z)
    dz += dy  # y = z + ...: z forks
    da = drop_path_backward(dz, cache.drop_path1)  # z = x + drop_path(a)
    note(tape, norm2=dn2, residual=dz, attn=da)
    dn1, g_attn = multi_head_backward(da, cache.attn, scope(tape, "attn"))  # a = multi_head(n1)
    dx, g_norm1 = layer_norm_backward(dn1, cache.norm1)  # n1 = layer_norm(x)
    dx += dz  # z = x + ...: x forks
    note(tape, norm1=dn1)
    return dx, {**under("norm1", g_norm1), **under("attn", g_attn), **under("norm2", g_norm2), **under("mlp", g_mlp)}
