r"""Images of any sizes to one row of tokens: patches, class tokens, and to each image the positions of its own grid."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_vit.linear import linear_forward
from torch_vit.patch_embed import patchify
from torch_vit.pos_embed import sincos_1d, sincos_2d
from torch_vit.pos_resize import pos_resize_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape


def packed_tokens_forward(
    params: Mapping[str, Tensor], images: Sequence[Tensor], config: ViTConfig
) -> Tensor:
    """Images (C, H_i, W_i) -> (1, T, D), image i the rows of segment i.

    Raises:
        ShapeError: an image has other channels, or the patch does not divide it.
    """
    for i, image in enumerate(images):
        check_shape(f"image {i}", image, (config.in_channels, "H", "W"))
    patches = [patchify(image[None], config.patch_size) for image in images]  # (1, N_i, C*P_h*P_w) each
    weight = params["patch_embed.proj.weight"].flatten(1)
    x = linear_forward(torch.cat(patches, dim=1), weight, params["patch_embed.proj.bias"])
    start = [params["cls_token"]] if config.class_token else []
    counts = [part.shape[1] for part in patches]
    rows = [row for part in x.split(counts, dim=1) for row in (*start, part)]
    tokens = torch.cat([row.to(x.dtype) for row in rows], dim=1)
    if config.pos_embed == "none":
        return tokens
    each = grids(images, config)
    known = {grid: grid_positions(params, grid, config) for grid in dict.fromkeys(each)}  # once, however many have it
    return tokens + torch.cat([known[grid] for grid in each], dim=1)


def grids(images: Sequence[Tensor], config: ViTConfig) -> list[tuple[int, int]]:
    """Patches along height and width of each image (C, H_i, W_i)."""
    return [(image.shape[1] // config.patch_size[0], image.shape[2] // config.patch_size[1]) for image in images]


def packed_lengths(images: Sequence[Tensor], config: ViTConfig) -> tuple[int, ...]:
    """Tokens of each image (C, H_i, W_i)."""
    return tuple(int(config.class_token) + height * width for height, width in grids(images, config))


def grid_positions(params: Mapping[str, Tensor], grid: tuple[int, int], config: ViTConfig) -> Tensor:
    """Positions of an image of this grid, (1, T, D): learned ones resized, unless the grid is the configuration's."""
    prefix = int(config.class_token)
    if config.pos_embed == "learned":
        if grid == config.grid_size:
            return params["pos_embed"]
        return pos_resize_forward(params["pos_embed"], config.grid_size, grid, config.pos_resize, prefix)
    if config.pos_embed == "sincos_1d":
        table = sincos_1d(prefix + grid[0] * grid[1], config.embed_dim)
    else:  # in 2-D the class token has no place: zeros
        table = F.pad(sincos_2d(grid, config.embed_dim), (0, 0, prefix, 0))
    return table[None].to(params["patch_embed.proj.weight"])
