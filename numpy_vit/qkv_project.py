r"""Query, key and value of the tokens: one fused linear map, or three; biases for all, for none, or not for the key."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.multi_head import merge_heads, split_heads
from vit_common.errors import check_shape
from vit_common.params import under
from vit_common.tape import Tape, note

Array = np.ndarray
NAMES = ("q_proj", "k_proj", "v_proj")


class QkvProjectCache(NamedTuple):
    linears: tuple[LinearCache, ...]  # one, fused, or three
    bias_names: tuple[str, ...]  # the parameters that hold the fused bias
    shapes: tuple[tuple[int, ...], ...]  # of q, k and v


def qkv_project_forward(
    params: Mapping[str, Array], x: Array, heads: tuple[int, int, int], tape: Tape = None
) -> tuple[tuple[Array, Array, Array], QkvProjectCache]:
    r"""(B, T, D), heads of q, k and v -> q, k, v (B, heads, T, width) each, $[Q, K, V] = x W^\top + b$.

    Fused: `qkv.weight` (3A, D), A = NH * HD, with `qkv.bias` (3A,), or with `q_bias` and `v_bias` (A,): a key bias adds
    one number to a whole row of scores, which softmax cancels, and BEiT (Bao et al. 2021) has none. Apart: `q_proj.*`,
    `k_proj.*`, `v_proj.*`, where fewer heads of keys and values make narrower maps. Which it is, the parameters say.
    **Backward**: that of the linear maps; where three read the same x, their gradients add up.

    Raises:
        ShapeError: a parameter does not fit x.
    """
    if "qkv.weight" not in params:
        stages = [linear_forward(x, params[f"{n}.weight"], params.get(f"{n}.bias")) for n in NAMES]
        parts, linears = [y for y, _ in stages], tuple(cache for _, cache in stages)
        note(tape, **dict(zip(NAMES, parts, strict=True)))
        qkv = _heads(parts, heads)
        return qkv, QkvProjectCache(linears, (), tuple(part.shape for part in qkv))
    bias = params.get("qkv.bias")
    names: tuple[str, ...] = ("qkv.bias",) if "qkv.bias" in params else ()
    if "q_bias" in params:
        bias = np.concatenate((params["q_bias"], np.zeros_like(params["q_bias"]), params["v_bias"]))
        names = ("q_bias", "v_bias")
    fused, linear = linear_forward(x, params["qkv.weight"], bias)  # (B, T, 3A)
    if names != ("q_bias", "v_bias"):
        note(tape, qkv=fused)
    qkv = _heads(np.split(fused, 3, axis=-1), heads)
    return qkv, QkvProjectCache((linear,), names, tuple(part.shape for part in qkv))


def qkv_project_backward(
    dq: Array, dk: Array, dv: Array, cache: QkvProjectCache, tape: Tape = None
) -> tuple[Array, dict[str, Array]]:
    """Gradients of q, k, v -> dx (B, T, D), gradients of the parameters."""
    for name, d, shape in zip("qkv", (dq, dk, dv), cache.shapes, strict=True):
        check_shape(f"d{name} of qkv_project", d, shape)
    parts = [merge_heads(d) for d in (dq, dk, dv)]
    if len(cache.linears) == 3:
        note(tape, **dict(zip(NAMES, parts, strict=True)))
        back = [linear_backward(d, linear) for d, linear in zip(parts, cache.linears, strict=True)]
        grads = {k: g for n, (_, gs) in zip(NAMES, back, strict=True) for k, g in under(n, gs).items()}
        return back[0][0] + back[1][0] + back[2][0], grads  # q, k and v read the same x
    dqkv = np.concatenate(parts, axis=-1)  # q, k, v = split(qkv)
    if cache.bias_names != ("q_bias", "v_bias"):
        note(tape, qkv=dqkv)
    dx, g = linear_backward(dqkv, cache.linears[0])
    grads = {"qkv.weight": g["weight"]}
    if cache.bias_names == ("qkv.bias",):
        grads["qkv.bias"] = g["bias"]
    elif cache.bias_names:
        grads["q_bias"], _, grads["v_bias"] = np.split(g["bias"], 3)  # bias = [q_bias, 0, v_bias]
    return dx, grads


def _heads(parts: list[Array], heads: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    q, k, v = (split_heads(part, n) for part, n in zip(parts, heads, strict=True))
    return q, k, v
