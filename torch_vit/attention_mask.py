r"""Attention mask: which keys a query may read, as numbers added to the scores."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import DtypeError, RangeError, check_shape


def attention_mask_bias(mask: Tensor | None, padding: Tensor | None, prefix: int, dtype: torch.dtype) -> Tensor | None:
    """mask (B or 1, NH or 1, T, T) or (T, T), bool (True = may read) or added to the scores; padding (B, N) of bool,
    True = a patch that is there -> bias (B, NH, T, T) to broadcast, or None.

    Raises:
        ShapeError: the padding is not (B, N).
        DtypeError: padding that is not bool.
        RangeError: a query that may read no key at all, of which no softmax exists.
    """
    bias = None
    if mask is not None:
        bias = _closed(mask, dtype) if mask.dtype == torch.bool else mask.to(dtype)
        bias = bias.reshape((1,) * (4 - bias.ndim) + tuple(bias.shape))
    if padding is not None:
        check_shape("padding mask", padding, ("B", "N"))
        if padding.dtype != torch.bool:
            raise DtypeError(f"padding mask has dtype {padding.dtype}, expected torch.bool, True = a patch is there")
        pad = _closed(F.pad(padding, (prefix, 0), value=True), dtype)[:, None, None, :]
        bias = pad if bias is None else bias + pad
    if bias is not None and torch.isneginf(bias).all(dim=-1).any():
        raise RangeError("a query may read no key at all; let each read at least one, e.g. itself")
    return bias


def _closed(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
