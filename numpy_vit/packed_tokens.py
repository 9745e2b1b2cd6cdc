r"""Images of any sizes to one row of tokens: patches, class tokens, and to each image the positions of its own grid."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.packed_attention import segments
from numpy_vit.patch_embed import patchify, unpatchify
from numpy_vit.pos_embed import sincos_1d, sincos_2d
from numpy_vit.pos_resize import PosResizeCache, pos_resize_backward, pos_resize_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape

Array = np.ndarray


class PackedTokensCache(NamedTuple):
    config: ViTConfig
    shapes: list[tuple[int, int, int]]  # (C, H, W) of each image
    linear: LinearCache
    resizes: list[PosResizeCache | None]
    lengths: tuple[int, ...]  # tokens of each image


def packed_tokens_forward(
    params: Mapping[str, Array], images: Sequence[Array], config: ViTConfig
) -> tuple[Array, PackedTokensCache]:
    r"""Images (C, H_i, W_i) -> (1, T, D) with $T = \sum_i T_i$, image i the rows of segment i.

    $$z_i = [c;\, E(\mathrm{patches}_i)] + p_i$$

    $p_i$ are the positions of the configuration's grid resized to the image's by `pos_resize`, or its sines and
    cosines. **Backward**: each image's rows go back to its own pixels; class token and positions served all images, so
    what comes back to them is summed.

    Raises:
        ShapeError: an image has other channels, or the patch does not divide it.
    """
    weight, prefix = params["patch_embed.proj.weight"], int(config.class_token)
    for i, image in enumerate(images):
        check_shape(f"image {i}", image, (config.in_channels, "H", "W"))
    patches = [patchify(image[None], config.patch_size) for image in images]  # (1, N_i, C*P_h*P_w) each
    x, linear = linear_forward(
        np.concatenate(patches, axis=1), weight.reshape(len(weight), -1), params["patch_embed.proj.bias"]
    )
    grids = [(image.shape[1] // config.patch_size[0], image.shape[2] // config.patch_size[1]) for image in images]
    lengths = tuple(prefix + grid[0] * grid[1] for grid in grids)
    tokens = np.empty((1, sum(lengths), x.shape[2]), x.dtype)
    resizes: list[PosResizeCache | None] = []
    patch = 0
    for s, grid in zip(segments(lengths), grids, strict=True):
        if prefix:
            tokens[:, s.start] = params["cls_token"][:, 0]
        tokens[:, s.start + prefix : s.stop] = x[:, patch : patch + grid[0] * grid[1]]
        patch += grid[0] * grid[1]
        positions, resize = grid_positions(params, grid, config, x.dtype)
        tokens[:, s] += positions
        resizes.append(resize)
    return tokens, PackedTokensCache(config, [image.shape for image in images], linear, resizes, lengths)


def packed_tokens_backward(dy: Array, cache: PackedTokensCache) -> tuple[list[Array], dict[str, Array]]:
    """(1, T, D) -> dimages (C, H_i, W_i), gradients of the patch projection, class token and positions."""
    config = cache.config
    check_shape("dy of packed_tokens", dy, (1, sum(cache.lengths), len(cache.linear.weight)))
    prefix, parts = int(config.class_token), [dy[:, s] for s in segments(cache.lengths)]
    grads: dict[str, Array] = {}
    if prefix:
        grads["cls_token"] = np.sum([part[:, :1] for part in parts], axis=0)  # tokens[s.start] = cls_token + ...
    if config.pos_embed == "learned":  # tokens[s] += pos_resize(pos_embed)
        both = zip(parts, cache.resizes, strict=True)
        grads["pos_embed"] = np.sum([part if r is None else pos_resize_backward(part, r) for part, r in both], axis=0)
    dpatches, g_linear = linear_backward(np.concatenate([part[:, prefix:] for part in parts], axis=1), cache.linear)
    grads["patch_embed.proj.bias"] = g_linear["bias"]
    grads["patch_embed.proj.weight"] = g_linear["weight"].reshape(-1, config.in_channels, *config.patch_size)
    rows = segments([length - prefix for length in cache.lengths])
    images = zip(rows, cache.shapes, strict=True)
    return [unpatchify(dpatches[:, s], shape, config.patch_size)[0] for s, shape in images], grads


def grid_positions(
    params: Mapping[str, Array], grid: tuple[int, int], config: ViTConfig, dtype: np.dtype
) -> tuple[Array, PosResizeCache | None]:
    """Positions of an image of this grid, (1, T, D): learned ones resized, unless the grid is the configuration's."""
    prefix = int(config.class_token)
    if config.pos_embed == "learned":
        if grid == config.grid_size:
            return params["pos_embed"], None
        return pos_resize_forward(params["pos_embed"], config.grid_size, grid, config.pos_resize, prefix)
    tokens = prefix + grid[0] * grid[1]
    table = np.zeros((tokens, config.embed_dim))
    if config.pos_embed == "sincos_1d":
        table = sincos_1d(tokens, config.embed_dim)
    elif config.pos_embed == "sincos_2d":
        table[prefix:] = sincos_2d(grid, config.embed_dim)
    return table[None].astype(dtype), None
