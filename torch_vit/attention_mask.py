r"""Attention mask: which keys a query may read, as numbers added to the scores."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_vit.patch_dropout import kept_places
from vit_common.errors import DtypeError, RangeError, ShapeError, check_shape


def masks_of_kept(
    masks: Mapping[str, Tensor], prefix: int, patches: int, batch: int
) -> tuple[Tensor | None, Tensor | None]:
    """`attn_mask` of all P + N tokens and `padding_mask` (B, N) of all patches, of B images -> the same, or where
    `patch_drop` is there, of what it keeps: (B, NH or 1, T', T') and (B, N').

    Raises:
        ShapeError: a mask that is not of all the tokens, or of another number of images; padding of one is not for all.
        DtypeError, RangeError: as of `kept_places`.
    """
    mask, padding, tokens = masks.get("attn_mask"), masks.get("padding_mask"), prefix + patches
    if mask is not None and (mask.ndim not in (2, 4) or tuple(mask.shape[-2:]) != (tokens, tokens)):
        found = tuple(mask.shape)
        raise ShapeError(f"attn_mask has shape {found}, expected (T, T) or (B or 1, NH or 1, T, T), T = {tokens}")
    if mask is not None and mask.ndim == 4:
        check_shape("attn_mask", mask, (batch if len(mask) > 1 else 1, "NH", tokens, tokens))
    if padding is not None:
        check_shape("padding_mask", padding, (batch, patches))
    if "patch_drop" not in masks:
        return mask, padding
    check_shape("patch_drop mask", masks["patch_drop"], (batch, patches))
    keep = kept_places(masks["patch_drop"])  # (B, N')
    first = torch.arange(prefix, device=keep.device).expand(len(keep), -1)
    places = torch.cat((first, prefix + keep), dim=1)  # (B, T')
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))
        mask = mask.take_along_dim(places[:, None, :, None], dim=2)  # queries
        mask = mask.take_along_dim(places[:, None, None, :], dim=3)  # keys
    return mask, None if padding is None else padding.gather(1, keep)


def attention_mask_bias(mask: Tensor | None, padding: Tensor | None, prefix: int, dtype: torch.dtype) -> Tensor | None:
    """mask (B or 1, NH or 1, T, T) or (T, T), bool (True = may read) or real, added to the scores; padding (B, N) of
    bool, True = a patch that is there -> bias (B, NH, T, T) to broadcast, or None.

    Raises:
        ShapeError: the padding is not (B, N).
        DtypeError: a mask of whole numbers, which could mean either; padding that is not bool.
        RangeError: a query that may read no key at all, for which the softmax is undefined.
    """
    bias = None
    if mask is not None:
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise DtypeError(f"attn_mask has dtype {mask.dtype}, expected torch.bool (True = may read) or real (added)")
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
