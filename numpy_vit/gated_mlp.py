r"""Gated MLP (GLU, SwiGLU): one linear map of the token, activated, is multiplied into another."""

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


class GatedMlpCache(NamedTuple):
    fc1: tuple[LinearCache, ...]  # gate and value, or both in one
    act: ActivationCache
    gate: Array  # (B, T, M), activated
    value: Array  # (B, T, M)
    drop1: DropoutCache
    norm: NormCache | None
    fc2: LinearCache
    drop2: DropoutCache


def gated_mlp_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig,
    masks: Mapping[str, Array] | None = None, tape: Tape = None,
) -> tuple[Array, GatedMlpCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D).

    $$y = \operatorname{norm}\bigl(\phi(x W_g^\top + b_g) \odot (x W_v^\top + b_v)\bigr) W_2^\top + b_2$$

    Shazeer 2020, eq. 5 and 6; $\phi$ = SiLU makes it SwiGLU. Parameters: `fc1_g.*` and `fc1_x.*` (M, D), or stacked in
    that order in `fc1.*` (2M, D); `fc2.*`, and `norm.*` if there is one. Masks: `drop1` (B, T, M), `drop2` (B, T, D).
    **Backward** of the product: each factor gets the gradient times the other.

    Raises:
        ShapeError: a parameter or mask does not fit x.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    masks = masks or {}
    names = ("fc1",) if "fc1.weight" in params else ("fc1_g", "fc1_x")
    stages = [linear_forward(x, params[f"{n}.weight"], params.get(f"{n}.bias")) for n in names]
    raw, value = np.split(stages[0][0], 2, axis=-1) if len(stages) == 1 else (stages[0][0], stages[1][0])  # (B, T, M)
    gate, c_act = activation_forward(raw, config.activation)
    inner, c_drop1 = dropout_forward(gate * value, masks.get("drop1"), config.proj_drop_rate)
    c_norm = None
    if "norm.weight" in params:
        inner, c_norm = norm_forward(sub(params, "norm"), inner, config.norm, config.norm_eps)
        note(tape, norm=inner)
    out, c_fc2 = linear_forward(inner, params["fc2.weight"], params.get("fc2.bias"))  # (B, T, D)
    y, c_drop2 = dropout_forward(out, masks.get("drop2"), config.proj_drop_rate)
    note(tape, **{n: h for n, (h, _) in zip(names, stages, strict=True)}, act=gate, fc2=out)
    return y, GatedMlpCache(tuple(c for _, c in stages), c_act, gate, value, c_drop1, c_norm, c_fc2, c_drop2)


def gated_mlp_backward(dy: Array, cache: GatedMlpCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the parameters."""
    dout = dropout_backward(dy, cache.drop2)
    dinner, g_fc2 = linear_backward(dout, cache.fc2)  # out = inner @ fc2.T + bias
    grads = under("fc2", g_fc2)
    if cache.norm is not None:
        note(tape, norm=dinner)
        dinner, g_norm = norm_backward(dinner, cache.norm)
        grads |= under("norm", g_norm)
    dproduct = dropout_backward(dinner, cache.drop1)
    dgate = dproduct * cache.value  # product = gate * value
    dvalue = dproduct * cache.gate
    draw = activation_backward(dgate, cache.act)  # gate = phi(raw)
    note(tape, act=dgate, fc2=dout)
    if len(cache.fc1) == 1:
        dboth = np.concatenate((draw, dvalue), axis=-1)  # raw, value = split(fc1)
        note(tape, fc1=dboth)
        dx, g_fc1 = linear_backward(dboth, cache.fc1[0])
        return dx, grads | under("fc1", g_fc1)
    note(tape, fc1_g=draw, fc1_x=dvalue)
    dx_gate, g_gate = linear_backward(draw, cache.fc1[0])
    dx_value, g_value = linear_backward(dvalue, cache.fc1[1])
    return dx_gate + dx_value, grads | under("fc1_g", g_gate) | under("fc1_x", g_value)  # both read x
