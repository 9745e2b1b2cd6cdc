r"""Positions learned for one grid of patches, resized to another: each library by its own rule."""

import torch
from torch import Tensor

from torch_vit.resize_matrix import resize_matrix
from vit_common.errors import check_shape


def pos_resize_forward(
    pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int], rule: str, prefix: int = 0
) -> Tensor:
    """(1, T, D) -> (1, S, D) with T = P + H W, S = P + H' W'; the P rows of the prefix tokens stay.

    Raises:
        ShapeError: the positions are not those of the old grid.
        ConfigError: an unknown rule.
    """
    check_shape("pos_embed", pos_embed, (1, prefix + old[0] * old[1], "D"))
    if new == old:  # nothing is resized, though dino's rule would move even these
        return pos_embed
    rows, columns = (resize_matrix(m, n, rule).to(pos_embed) for m, n in zip(new, old, strict=True))
    grid = pos_embed[0, prefix:].unflatten(0, old)  # (H, W, D)
    patches = torch.einsum("iu,jv,uvd->ijd", rows, columns, grid).flatten(0, 1)
    return torch.cat((pos_embed[:, :prefix], patches[None]), dim=1)
