r"""Attention within the segments of a packed row: tokens of several images, of which each reads its own image."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from torch_vit.attention import check_qkv, fused_attention_forward
from vit_common.errors import ShapeError

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None
LOW = (torch.float16, torch.bfloat16)


def packed_attention_forward(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """(B, NH, T, HD) three times, lengths with sum T -> (B, NH, T, HD): attention of each segment by itself.

    In 16 bits on a GPU one kernel does all segments (`varlen_attn`: torch 2.10 and compute capability 8.0 or newer,
    B = 1, HD <= 256). Otherwise one call a segment, which computes the same blocks and nothing between them; a mask
    would compute all T^2 scores.

    Raises:
        ShapeError: q, k, v do not fit each other, or the lengths are not positive numbers whose sum is T.
    """
    check_qkv(q, k, v)
    if min(lengths, default=0) < 1 or sum(lengths) != q.shape[2] or k.shape[2] != q.shape[2]:
        raise ShapeError(f"segments of {list(lengths)} tokens do not make a row of {q.shape[2]}; each has at least one")
    if serves_varlen(q) and not too_old(q.device):
        return _varlen(q, k, v, lengths)
    parts = zip(*(t.split(list(lengths), dim=2) for t in (q, k, v)), strict=True)
    return torch.cat([fused_attention_forward(*part) for part in parts], dim=2)


def serves_varlen(q: Tensor) -> bool:
    """Whether torch has its kernel for rows of segments, and it takes this tensor."""
    width = q.shape[3]
    return q.is_cuda and q.dtype in LOW and len(q) == 1 and width % 8 == 0 and width <= 256 and HAS_VARLEN


def too_old(device: torch.device) -> bool:
    """Whether it is a GPU that the kernel is not made for."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)


def _varlen(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, pin_memory=q.is_cuda)
    ends = ends.to(q.device, non_blocking=True)
    q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))  # (T, NH, HD) each
    return cast(Tensor, varlen_attn(q, k, v, ends, ends, max(lengths), max(lengths))).transpose(0, 1)[None]
