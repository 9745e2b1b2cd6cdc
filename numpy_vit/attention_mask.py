r"""Attention mask: which keys a query may read, as numbers added to the scores."""

import numpy as np

from vit_common.errors import DtypeError, RangeError, check_shape

Array = np.ndarray


def attention_mask_bias(mask: Array | None, padding: Array | None, prefix: int, dtype: np.dtype) -> Array | None:
    r"""mask (B or 1, NH or 1, T, T) or (T, T), bool (True = may read) or added to the scores; padding (B, N) of bool,
    True = a patch that is there -> bias (B, NH, T, T) to broadcast, or None.

    $$b_{qk} = 0 \text{ where } q \text{ may read } k, \quad -\infty \text{ elsewhere}$$

    $e^{-\infty} = 0$: the key's probability and its gradient vanish exactly. Prefix tokens are never padding.

    Raises:
        ShapeError: the padding is not (B, N).
        DtypeError: padding that is not bool.
        RangeError: a query that may read no key at all, of which no softmax exists.
    """
    bias = None
    if mask is not None:
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
