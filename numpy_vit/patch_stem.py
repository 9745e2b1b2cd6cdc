r"""Patch embedding of variants: pixels cropped or filled up to whole patches, norms around the projection."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.patch_embed import patchify, unpatchify
from vit_common.config import ViTConfig
from vit_common.errors import check_shape
from vit_common.params import sub, under
from vit_common.tape import Tape, note

Array = np.ndarray


class PatchStemCache(NamedTuple):
    image_shape: tuple[int, ...]
    inside: tuple[int, int, int]  # C, H, W of what was cut into patches
    patch_size: tuple[int, int]
    norm_in: LayerNormCache | None
    linear: LinearCache
    weight_shape: tuple[int, ...]
    norm: NormCache | None


def patch_stem_forward(
    params: Mapping[str, Array], images: Array, config: ViTConfig, tape: Tape = None
) -> tuple[Array, PatchStemCache]:
    r"""(B, C, H, W) -> (B, N, D).

    $$y_n = \operatorname{norm}\bigl(W \operatorname{LN}(\mathrm{patch}_n) + b\bigr)$$

    Parameters: `proj.weight` (D, C, P_h, P_w), `proj.bias` (D,) if there is one, `norm_in.*` (C*P_h*P_w,), `norm.*`
    (D,). **Backward**: as for the plain embedding; cropped pixels get zeros, and what the
    zeros that were added would get is left out.

    Raises:
        ShapeError: the images are not those of the configuration.
    """
    check_shape("images", images, ("B", config.in_channels, *config.image_size))
    height, width = (n * p for n, p in zip(config.grid_size, config.patch_size, strict=True))
    inside = images[:, :, :height, :width]
    missing = height - inside.shape[2], width - inside.shape[3]
    if any(missing):
        inside = np.pad(inside, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])))
    x = patchify(inside, config.patch_size)  # (B, N, C*P_h*P_w)
    c_in = c_norm = None
    if config.patch_norm_in:
        x, c_in = layer_norm_forward(x, params["norm_in.weight"], params["norm_in.bias"], config.norm_eps)
        note(tape, norm_in=x)
    weight = params["proj.weight"]
    x, c_linear = linear_forward(x, weight.reshape(len(weight), -1), params.get("proj.bias"))  # (B, N, D)
    if config.patch_norm != "none":
        x, c_norm = norm_forward(sub(params, "norm"), x, config.patch_norm, config.patch_norm_eps or config.norm_eps)
        note(tape, norm=x)
    return x, PatchStemCache(images.shape, inside.shape[1:], config.patch_size, c_in, c_linear, weight.shape, c_norm)


def patch_stem_backward(dy: Array, cache: PatchStemCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, N, D) -> dimages (B, C, H, W), gradients of the parameters."""
    grads: dict[str, Array] = {}
    if cache.norm is not None:
        note(tape, norm=dy)
        dy, g = norm_backward(dy, cache.norm)
        grads |= under("norm", g)
    dx, g = linear_backward(dy, cache.linear)
    g["weight"] = g["weight"].reshape(cache.weight_shape)
    grads |= under("proj", g)
    if cache.norm_in is not None:
        note(tape, norm_in=dx)
        dx, g = layer_norm_backward(dx, cache.norm_in)
        grads |= under("norm_in", g)
    inside = unpatchify(dx, cache.inside, cache.patch_size)  # patches = patchify(images[:, :, :h, :w])
    if inside.shape == cache.image_shape:
        return inside, grads
    dimages = np.zeros(cache.image_shape, dy.dtype)
    seen = dimages[:, :, : cache.inside[1], : cache.inside[2]]
    seen[:] = inside[:, :, : seen.shape[2], : seen.shape[3]]
    return dimages, grads
