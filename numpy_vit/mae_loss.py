r"""Loss of a masked autoencoder: squared error of the pixels of the patches that were not seen."""

from typing import NamedTuple

import numpy as np

from numpy_vit.patch_embed import patchify, unpatchify
from vit_common.errors import DtypeError, RangeError, check_shape

Array = np.ndarray
EPS = 1e-6  # added to the variance of a patch


class MaeLossCache(NamedTuple):
    error: Array  # (B, N, Q), prediction - target
    weight: Array  # (B, N, 1), what a patch counts
    normalised: tuple[Array, Array] | None  # target (B, N, Q) and 1 / its deviation (B, N, 1)
    image_shape: tuple[int, int, int]
    patch_size: tuple[int, int]


def mae_loss_forward(
    prediction: Array, images: Array, mask: Array, patch_size: tuple[int, int], norm_pix: bool = True
) -> tuple[np.floating, MaeLossCache]:
    r"""prediction (B, N, Q), images (B, C, H, W), mask (B, N) of bool, True = seen -> loss (), $Q = P_h P_w C$.

    $$L = \frac{1}{|M|} \sum_{n \in M} \frac1Q \sum_q (\hat t_{nq} - t_{nq})^2, \qquad
      t_n = \frac{p_n - \mu_n}{\sqrt{\sigma_n^2 + \varepsilon}}$$

    over the patches $M$ not seen, of the whole batch, pixels in the order (P_h, P_w, C); He et al. 2022, section 3 and
    appendix A.1, whose code takes the unbiased variance, $\sigma^2 = \sum_q (p_q - \mu)^2/(Q - 1)$. Without `norm_pix`,
    $t_n = p_n$. **Backward**: as of a squared error; the images are the target. With $h = \partial L/\partial t$ and
    $s = (\sigma^2 + \varepsilon)^{-1/2}$, as for LayerNorm but for one $Q - 1$,

    $$\frac{\partial L}{\partial p} = s \Bigl( h - \operatorname{mean}(h) - t\, \tfrac{1}{Q - 1} \sum_q h_q t_q \Bigr)$$

    Raises:
        ShapeError: prediction or mask do not fit the images.
        DtypeError: a mask that is not bool.
        RangeError: no patch is hidden, so there is nothing to compare.
    """
    check_shape("images", images, ("B", "C", "H", "W"))
    channels = images.shape[1]
    target = _to_last(patchify(images, patch_size), channels)  # (B, N, Q)
    check_shape("prediction", prediction, target.shape)
    check_shape("mask", mask, target.shape[:2])
    if mask.dtype != np.bool_:
        raise DtypeError(f"mask has dtype {mask.dtype}, expected bool with True = a patch that is seen")
    hidden = int((~mask).sum())
    if not hidden:
        raise RangeError("every patch is seen: a masked autoencoder needs hidden ones; raise mask_ratio")
    normalised = None
    if norm_pix:
        target = target - target.mean(axis=-1, keepdims=True)
        variance = (target * target).sum(axis=-1, keepdims=True) / (target.shape[-1] - 1)
        scale = 1.0 / np.sqrt(variance + EPS)  # (B, N, 1)
        target = target * scale
        normalised = target, scale
    error = prediction - target
    weight = ((~mask)[:, :, None] / (hidden * target.shape[-1])).astype(_real(error.dtype))
    loss = (error * error * weight).sum()
    return loss, MaeLossCache(error, weight, normalised, images.shape[1:], patch_size)


def mae_loss_backward(cache: MaeLossCache, dloss: float = 1.0) -> tuple[Array, Array]:
    """() -> dprediction (B, N, Q), dimages (B, C, H, W)."""
    error, weight, normalised, image_shape, patch_size = cache
    check_shape("dloss of mae_loss", dloss, ())
    dprediction = (2.0 * dloss) * error * weight  # loss = sum(error^2 weight)
    dtarget = -dprediction  # error = prediction - target
    if normalised is not None:
        target, scale = normalised
        along = (dtarget * target).sum(axis=-1, keepdims=True) / (target.shape[-1] - 1)  # through the deviation
        dtarget = (dtarget - dtarget.mean(axis=-1, keepdims=True) - target * along) * scale
    return dprediction, unpatchify(_to_first(dtarget, image_shape[0]), image_shape, patch_size)


def _to_last(patches: Array, channels: int) -> Array:
    """(B, N, C*P) -> (B, N, P*C)."""
    batch, count, size = patches.shape
    return patches.reshape(batch, count, channels, -1).swapaxes(2, 3).reshape(batch, count, size)


def _to_first(patches: Array, channels: int) -> Array:
    """The inverse of `_to_last`."""
    batch, count, size = patches.shape
    return patches.reshape(batch, count, -1, channels).swapaxes(2, 3).reshape(batch, count, size)


def _real(dtype: np.dtype) -> np.dtype:
    return np.finfo(dtype).dtype
