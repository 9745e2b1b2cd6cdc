r"""MLP: two linear maps with GELU between, applied to each token alone."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.gelu import GeluCache, gelu_backward, gelu_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import under
from vit_common.part_names import MLP
from vit_common.tape import Tape, note

Array = np.ndarray


class MlpCache(NamedTuple):
    fc1: LinearCache
    act: GeluCache
    drop1: DropoutCache
    fc2: LinearCache
    drop2: DropoutCache


def mlp_forward(
    params: Mapping[str, Array],
    x: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    tape: Tape = None,
) -> tuple[Array, MlpCache]:
    r"""(B, T, D) -> (B, T, D).

    $$y = \operatorname{drop}\bigl(\operatorname{drop}(\operatorname{GELU}(x W_1^\top + b_1))\, W_2^\top + b_2\bigr)$$

    Dosovitskiy et al. 2021, section 3.1. Parameters: `fc1.weight` (M, D), `fc1.bias` (M,), `fc2.weight` (D, M),
    `fc2.bias` (D,). Masks: `drop1` (B, T, M), `drop2` (B, T, D). **Backward**: the stages in reverse order.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ShapeError: a parameter or mask does not fit x.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_names("mlp", params, MLP)
    masks = masks or {}
    hidden, c_fc1 = linear_forward(x, params["fc1.weight"], params["fc1.bias"])  # (B, T, M)
    act, c_act = gelu_forward(hidden)
    dropped, c_drop1 = dropout_forward(act, masks.get("drop1"), config.proj_drop_rate)
    out, c_fc2 = linear_forward(dropped, params["fc2.weight"], params["fc2.bias"])  # (B, T, D)
    y, c_drop2 = dropout_forward(out, masks.get("drop2"), config.proj_drop_rate)
    note(tape, fc1=hidden, act=act, fc2=out)
    return y, MlpCache(c_fc1, c_act, c_drop1, c_fc2, c_drop2)


def mlp_backward(dy: Array, cache: MlpCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the four parameters."""
    dout = dropout_backward(dy, cache.drop2)  # y = drop(out)
    ddropped, g_fc2 = linear_backward(dout, cache.fc2)  # out = dropped @ fc2.T + bias
    dact = dropout_backward(ddropped, cache.drop1)  # dropped = drop(act)
    dhidden = gelu_backward(dact, cache.act)  # act = gelu(hidden)
    dx, g_fc1 = linear_backward(dhidden, cache.fc1)  # hidden = x @ fc1.T + bias
    note(tape, fc2=dout, act=dact, fc1=dhidden)
    return dx, {**under("fc1", g_fc1), **under("fc2", g_fc2)}
