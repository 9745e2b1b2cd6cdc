r"""MLP with any activation, and a norm of the hidden values where the parameters bring one."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.activation import ActivationCache, activation_backward, activation_forward
from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from vit_common.config import ViTConfig
from vit_common.params import sub, under
from vit_common.tape import Tape, note

Array = np.ndarray


class ActivatedMlpCache(NamedTuple):
    fc1: LinearCache
    act: ActivationCache
    drop1: DropoutCache
    norm: NormCache | None
    fc2: LinearCache
    drop2: DropoutCache


def activated_mlp_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig,
    masks: Mapping[str, Array] | None = None, tape: Tape = None,
) -> tuple[Array, ActivatedMlpCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D).

    $$y = \operatorname{norm}\bigl(\phi(x W_1^\top + b_1)\bigr) W_2^\top + b_2$$

    with dropout after $\phi$ and at the end. The norm (Wang et al. 2022, Magneto, section 2.1) applies if `norm.weight`
    is among the parameters; biases likewise. Masks: `drop1` (B, T, M), `drop2` (B, T, D). **Backward**: the stages in
    reverse order.

    Raises:
        ShapeError: a parameter or mask does not fit x.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    masks = masks or {}
    hidden, c_fc1 = linear_forward(x, params["fc1.weight"], params.get("fc1.bias"))  # (B, T, M)
    act, c_act = activation_forward(hidden, config.activation)
    inner, c_drop1 = dropout_forward(act, masks.get("drop1"), config.proj_drop_rate)
    c_norm = None
    if "norm.weight" in params:
        inner, c_norm = norm_forward(sub(params, "norm"), inner, config.norm, config.norm_eps)
        note(tape, norm=inner)
    out, c_fc2 = linear_forward(inner, params["fc2.weight"], params.get("fc2.bias"))  # (B, T, D)
    y, c_drop2 = dropout_forward(out, masks.get("drop2"), config.proj_drop_rate)
    note(tape, fc1=hidden, act=act, fc2=out)
    return y, ActivatedMlpCache(c_fc1, c_act, c_drop1, c_norm, c_fc2, c_drop2)


def activated_mlp_backward(dy: Array, cache: ActivatedMlpCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the parameters."""
    dout = dropout_backward(dy, cache.drop2)
    dinner, g_fc2 = linear_backward(dout, cache.fc2)  # out = inner @ fc2.T + bias
    g_norm: dict[str, Array] = {}
    if cache.norm is not None:
        note(tape, norm=dinner)
        dinner, g_norm = norm_backward(dinner, cache.norm)
    dact = dropout_backward(dinner, cache.drop1)
    dhidden = activation_backward(dact, cache.act)  # act = phi(hidden)
    dx, g_fc1 = linear_backward(dhidden, cache.fc1)  # hidden = x @ fc1.T + bias
    note(tape, fc1=dhidden, act=dact, fc2=dout)
    return dx, {**under("fc1", g_fc1), **under("norm", g_norm), **under("fc2", g_fc2)}
