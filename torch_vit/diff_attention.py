r"""Differential attention: two softmax attentions, the second subtracted, which cancels what both read in common."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from torch_vit.biased_attention import biased_attention_forward
from torch_vit.rms_norm import rms_norm_forward
from vit_common.errors import check_shape

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
EPS = 1e-5  # of the norm of each head


def lambda_start(layer: int) -> float:
    r"""$\lambda_\mathrm{init} = 0.8 - 0.6\, e^{-0.3 \ell}$ for block $\ell = 0, 1, \dots$"""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


def diff_attention_forward(
    params: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, layer: int, bias: Tensor | None = None,
    drop_mask: Tensor | None = None, drop_rate: float = 0.0, training: bool = False,
    tap: Callable[[str, Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """q, k (B, 2NH, T, HD), v (B, NH, T, 2HD) -> (B, NH, T, 2HD); head h's pair is heads 2h and 2h + 1 of q and k.

    Parameters: `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2` (HD,), `sub_norm.weight` (2HD,).
    """
    parts = []
    for i, name in enumerate(("first", "second")):
        drop = None if drop_mask is None else drop_mask[:, i::2]
        inside = None if tap is None else _inside(tap, name)
        parts.append(biased_attention_forward(q[:, i::2], k[:, i::2], v, bias, drop, drop_rate, training, inside))
    for name in LAMBDAS:
        check_shape(name, params[name], q.shape[3:])
    q1, k1, q2, k2 = (params[name] for name in LAMBDAS)
    start = lambda_start(layer)
    o = parts[0] - (torch.exp(q1 @ k1) - torch.exp(q2 @ k2) + start) * parts[1]
    o = o if tap is None else tap("difference", o)
    return rms_norm_forward(o, params["sub_norm.weight"], EPS) * (1.0 - start)


def _inside(tap: Callable[[str, Tensor], Tensor], name: str) -> Callable[[str, Tensor], Tensor]:
    return lambda inner, value: tap(f"{name}.{inner}", value)
