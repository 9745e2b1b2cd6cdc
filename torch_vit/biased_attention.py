r"""Scaled dot-product attention with a bias on the scores: masks, and relative positions."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from torch_vit.attention import softmax_forward
from torch_vit.dropout import dropout_forward
from vit_common.errors import check_shape


def _untapped(name: str, value: Tensor) -> Tensor:
    return value


def biased_attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    drop_mask: Tensor | None = None,
    drop_rate: float = 0.0,
    training: bool = False,
    tap: Callable[[str, Tensor], Tensor] | None = _untapped,
) -> Tensor:
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, VD), bias (B or 1, NH or 1, T or 1, S or 1) -> (B, NH, T, VD).

    With `tap=None` and nothing to drop, torch's fused kernel, which never writes the scores to memory.

    Raises:
        ShapeError: q, k, v, the bias or the drop mask do not fit each other.
        DtypeError, RangeError: as of `dropout_forward`.
    """
    check_shape("q", q, ("B", "NH", "T", "HD"))
    check_shape("k", k, (*q.shape[:2], "S", q.shape[3]))
    check_shape("v", v, (*q.shape[:2], k.shape[2], "VD"))
    full = (*q.shape[:3], k.shape[2])
    if bias is not None:
        check_shape("attention bias", bias, ("B", "NH", "T", "S"))
        check_shape("attention bias", bias, tuple(n if m != 1 else 1 for n, m in zip(full, bias.shape, strict=True)))
    if tap is None and drop_mask is None and not (training and drop_rate):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.expand(full))
    tap = tap or _untapped
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    probs = tap("probs", softmax_forward(tap("scores", scores)))
    return dropout_forward(probs, drop_mask, drop_rate, training) @ v
