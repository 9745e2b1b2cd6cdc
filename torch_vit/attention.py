r"""Scaled dot-product attention, written out and fused, and the softmax inside it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_vit.dropout import dropout_forward
from vit_common.errors import check_shape


def softmax_forward(x: Tensor) -> Tensor:
    """(..., T) -> (..., T), over the last axis."""
    return torch.softmax(x, dim=-1)


def _untapped(name: str, value: Tensor) -> Tensor:
    return value


def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    drop_mask: Tensor | None = None,
    drop_rate: float = 0.0,
    training: bool = False,
    tap: Callable[[str, Tensor], Tensor] = _untapped,
) -> Tensor:
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD): written out, scores and probabilities in sight.

    `tap(name, value)` sees each intermediate and returns it, or what shall stand in its place.

    Raises:
        ShapeError: q, k, v or the drop mask do not fit each other.
    """
    check_qkv(q, k, v)
    scores = tap("scores", q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]))  # (B, NH, T, S)
    probs = tap("probs", softmax_forward(scores))
    return dropout_forward(probs, drop_mask, drop_rate, training) @ v


def fused_attention_forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same function in one kernel, which never writes the (B, NH, T, S) scores to memory.

    Raises:
        ShapeError: q, k, v do not fit each other.
    """
    check_qkv(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    check_shape("q", q, ("B", "NH", "T", "HD"))
    check_shape("k", k, (*q.shape[:2], "S", q.shape[3]))
    check_shape("v", v, (*q.shape[:2], k.shape[2], "HD"))
