r"""Patch embedding: cut the image into patches, map each to a token.

An image of H x W pixels and C channels becomes $N = HW/(P_h P_w)$ patches of $C P_h P_w$ numbers each: the number of
patches does not depend on C. "7x7" is ambiguous: patches of 7x7 pixels make 16 of a 28x28 image, 7 patches a side make
49 of 4x4 pixels; `patch_size` always means pixels.
"""

from typing import NamedTuple

import numpy as np

from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from vit_common.errors import ShapeError, check_shape, check_sizes

Array = np.ndarray


def patchify(images: Array, patch_size: tuple[int, int]) -> Array:
    """(B, C, H, W) -> (B, N, C*P_h*P_w): patches row by row, each flattened as (C, P_h, P_w).

    Raises:
        ShapeError: the images have not four axes, or the patch does not divide them.
        RangeError: the size of a patch is not two positive whole numbers.
    """
    check_sizes("patch_size", patch_size)
    check_shape("images", images, ("B", "C", "H", "W"))
    batch, channels, height, width = images.shape
    patch_h, patch_w = patch_size
    if height % patch_h or width % patch_w:
        raise ShapeError(
            f"images of {height}x{width} pixels are not divisible into patches of {patch_h}x{patch_w}; "
            f"crop or resize them to multiples of the patch"
        )
    grid_h, grid_w = height // patch_h, width // patch_w
    blocks = images.reshape(batch, channels, grid_h, patch_h, grid_w, patch_w)
    blocks = blocks.transpose(0, 2, 4, 1, 3, 5)  # (B, grid_h, grid_w, C, P_h, P_w)
    return blocks.reshape(batch, grid_h * grid_w, channels * patch_h * patch_w)


def unpatchify(patches: Array, image_shape: tuple[int, int, int], patch_size: tuple[int, int]) -> Array:
    """The inverse of `patchify`: (B, N, C*P_h*P_w), (C, H, W) -> (B, C, H, W). A permutation, so also its adjoint."""
    check_sizes("patch_size", patch_size)
    channels, height, width = image_shape
    patch_h, patch_w = patch_size
    grid_h, grid_w = height // patch_h, width // patch_w
    check_shape("patches", patches, ("B", grid_h * grid_w, channels * patch_h * patch_w))
    blocks = patches.reshape(-1, grid_h, grid_w, channels, patch_h, patch_w)
    return blocks.transpose(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


class PatchEmbedCache(NamedTuple):
    linear: LinearCache
    image_shape: tuple[int, int, int]
    weight_shape: tuple[int, int, int, int]


def patch_embed_forward(images: Array, weight: Array, bias: Array | None = None) -> tuple[Array, PatchEmbedCache]:
    r"""(B, C, H, W), (D, C, P_h, P_w), (D,) -> (B, N, D).

    $$y_{bnd} = \sum_{c,u,v} W_{dcuv}\, \mathrm{patch}_{bn,cuv} + b_d$$

    A convolution whose stride equals its kernel size touches every pixel once, so it is a linear map of each patch
    (Dosovitskiy et al. 2021, eq. 1). **Backward**: that of the linear map; the patches' gradient goes back to the
    pixels by the inverse permutation, `unpatchify`.

    Raises:
        ShapeError: channels differ, or the patch does not divide the image.
    """
    check_shape("images", images, ("B", "C", "H", "W"))
    check_shape("patch_embed weight", weight, ("D", images.shape[1], "P_h", "P_w"))
    patches = patchify(images, weight.shape[2:])  # (B, N, C*P_h*P_w)
    y, linear = linear_forward(patches, weight.reshape(weight.shape[0], -1), bias)
    return y, PatchEmbedCache(linear, images.shape[1:], weight.shape)


def patch_embed_backward(dy: Array, cache: PatchEmbedCache) -> tuple[Array, dict[str, Array]]:
    """(B, N, D) -> dimages (B, C, H, W), {"weight": (D, C, P_h, P_w), "bias": (D,)}."""
    dpatches, grads = linear_backward(dy, cache.linear)
    grads["weight"] = grads["weight"].reshape(cache.weight_shape)
    dimages = unpatchify(dpatches, cache.image_shape, cache.weight_shape[2:])  # patches = patchify(images)
    return dimages, grads
