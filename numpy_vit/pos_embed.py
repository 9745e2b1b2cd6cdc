r"""Positional encoding: without it, attention cannot tell where a token stood.

Learned, or fixed: sines and cosines of geometrically spaced frequencies, along the sequence (1-D) or along the two
axes of the image (2-D).
"""

from typing import NamedTuple

import numpy as np

from vit_common.errors import ShapeError, check_shape

Array = np.ndarray


def sincos_1d(positions: int, width: int, base: float = 10000.0) -> Array:
    r"""Fixed positions along the sequence, (positions, width), float64.

    $$p_{t,2i} = \sin\bigl(t / b^{2i/D}\bigr), \qquad p_{t,2i+1} = \cos\bigl(t / b^{2i/D}\bigr)$$

    Vaswani et al. 2017, section 3.5: even indices sine, odd indices cosine, base $b = 10000$.
    """
    t = np.arange(positions, dtype=np.float64)[:, None]  # (T, 1)
    index = np.arange(width)  # (D,)
    angle = t / base ** ((index - index % 2) / width)  # (T, D)
    return np.where(index % 2 == 0, np.sin(angle), np.cos(angle))


def sincos_2d(grid_size: tuple[int, int], width: int, base: float = 10000.0) -> Array:
    r"""Fixed positions on the image grid, (grid_h * grid_w, width), float64, row by row.

    With $\omega_i = b^{-4i/D}$, $i < D/4$, column $x$ and row $y$ of the patch:

    $$p = [\sin \omega x,\ \cos \omega x,\ \sin \omega y,\ \cos \omega y]$$

    He et al. 2022 (MAE), as in Chen et al. 2021 (MoCo v3), section 4.

    Raises:
        ShapeError: the width is not divisible by 4.
    """
    if width % 4:
        raise ShapeError(f"sincos_2d needs a width divisible by 4, got {width}")
    omega = base ** (-np.arange(width // 4, dtype=np.float64) / (width // 4))  # (D/4,)
    y, x = np.meshgrid(np.arange(grid_size[0]), np.arange(grid_size[1]), indexing="ij")  # (grid_h, grid_w) each
    x_angle, y_angle = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega  # (N, D/4) each
    return np.concatenate((np.sin(x_angle), np.cos(x_angle), np.sin(y_angle), np.cos(y_angle)), axis=1)


class PosEmbedCache(NamedTuple):
    x_shape: tuple[int, int, int]


def pos_embed_forward(x: Array, pos_embed: Array) -> tuple[Array, PosEmbedCache]:
    r"""(B, T, D), (1, T, D) -> (B, T, D).

    $$y_b = x_b + p$$

    Dosovitskiy et al. 2021, eq. 1. **Backward**: $x$ gets the gradient unchanged; $p$ is added to every image, so its
    gradient is the sum over the batch. Fixed positions have no use for theirs.

    Raises:
        ShapeError: the positions are not (1, T, D).
    """
    check_shape("x of pos_embed", x, ("B", "T", "D"))
    check_shape("pos_embed", pos_embed, (1, *x.shape[1:]))
    return x + pos_embed, PosEmbedCache(x.shape)


def pos_embed_backward(dy: Array, cache: PosEmbedCache) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), {"pos_embed": (1, T, D)}."""
    check_shape("dy of pos_embed", dy, cache.x_shape)
    return dy, {"pos_embed": dy.sum(axis=0, keepdims=True)}  # y = x + pos_embed, broadcast over the batch
