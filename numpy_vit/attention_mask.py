r"""Attention mask: which keys a query may read, as numbers added to the scores."""

from collections.abc import Mapping

import numpy as np

from numpy_vit.patch_dropout import kept_places
from vit_common.errors import DtypeError, RangeError, ShapeError, check_shape

Array = np.ndarray


def masks_of_kept(
    masks: Mapping[str, Array], prefix: int, patches: int, batch: int
) -> tuple[Array | None, Array | None]:
    """`attn_mask` of all P + N tokens and `padding_mask` (B, N) of all patches, of B images -> the same, or where
    `patch_drop` is there, of what it keeps: (B, NH or 1, T', T') and (B, N').

    Raises:
        ShapeError: a mask that is not of all the tokens, or of another number of images; padding of one is not for all.
        DtypeError, RangeError: as of `kept_places`.
    """
    mask, padding, tokens = masks.get("attn_mask"), masks.get("padding_mask"), prefix + patches
    if mask is not None and (mask.ndim not in (2, 4) or mask.shape[-2:] != (tokens, tokens)):
        raise ShapeError(f"attn_mask has shape {mask.shape}, expected (T, T) or (B or 1, NH or 1, T, T), T = {tokens}")
    if mask is not None and mask.ndim == 4:
        check_shape("attn_mask", mask, (batch if len(mask) > 1 else 1, "NH", tokens, tokens))
    if padding is not None:
        check_shape("padding_mask", padding, (batch, patches))
    if "patch_drop" not in masks:
        return mask, padding
    check_shape("patch_drop mask", masks["patch_drop"], (batch, patches))
    keep = kept_places(masks["patch_drop"])  # (B, N')
    places = np.hstack((np.broadcast_to(np.arange(prefix), (len(keep), prefix)), prefix + keep))  # (B, T')
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        mask = np.take_along_axis(mask, places[:, None, :, None], axis=2)  # queries
        mask = np.take_along_axis(mask, places[:, None, None, :], axis=3)  # keys
    return mask, None if padding is None else np.take_along_axis(padding, keep, axis=1)


def attention_mask_bias(mask: Array | None, padding: Array | None, prefix: int, dtype: np.dtype) -> Array | None:
    r"""mask (B or 1, NH or 1, T, T) or (T, T), bool (True = may read) or real, added to the scores; padding (B, N) of
    bool, True = a patch that is there -> bias (B, NH, T, T) to broadcast, or None.

    $$b_{qk} = 0 \text{ where } q \text{ may read } k, \quad -\infty \text{ elsewhere}$$

    of a mask of bool; a real one is $b$ itself. $e^{-\infty} = 0$: the key's probability and gradient vanish exactly.
    Prefix tokens are never padding.

    Raises:
        ShapeError: the padding is not (B, N).
        DtypeError: a mask of whole numbers, which could mean either; padding that is not bool.
        RangeError: a query that may read no key at all, for which the softmax is undefined.
    """
    bias = None
    if mask is not None:
        if mask.dtype.kind not in "bfc":
            raise DtypeError(f"attn_mask has dtype {mask.dtype}, expected bool (True = may read) or real (is added)")
        bias = np.where(mask, 0.0, -np.inf).astype(dtype) if mask.dtype == np.bool_ else mask.astype(dtype, copy=False)
        bias = bias.reshape((1,) * (4 - bias.ndim) + bias.shape)
    if padding is not None:
        check_shape("padding mask", padding, ("B", "N"))
        if padding.dtype != np.bool_:
            raise DtypeError(f"padding mask has dtype {padding.dtype}, expected bool with True = a patch that is there")
        keys = np.pad(padding, ((0, 0), (prefix, 0)), constant_values=True)  # (B, T)
        pad = np.where(keys, 0.0, -np.inf).astype(dtype)[:, None, None, :]
        bias = pad if bias is None else bias + pad
    if bias is not None and np.isneginf(bias.real if np.iscomplexobj(bias) else bias).all(axis=-1).any():
        raise RangeError("a query may read no key at all; let each read at least one, e.g. itself")
    return bias
