r"""The bounds of positions and patches resized: products with matrices that are themselves computed."""

import numpy as np

from parity_tests.bounds import Grads, Pullback
from parity_tests.tolerances import Bounded, concatenate, unit_roundoff


def pos_resize(
    pos_embed: Bounded, old: tuple[int, int], new: tuple[int, int], rule: str, prefix: int
) -> tuple[Bounded, Pullback]:
    r"""$\gamma_{H+W} (|R| \otimes |C|) |p|$, and the matrices' own error: their weights are polynomials of places up to
    $n$, computed in float64, then rounded."""
    rows, columns = (resizing(pos_embed, m, n, rule) for m, n in zip(new, old, strict=True))

    def pullback(dy: Bounded) -> Grads:
        return {"pos_embed": concatenate([dy[:, :prefix], on_grid(dy[:, prefix:], rows.T, columns.T)], 1)}

    return concatenate([pos_embed[:, :prefix], on_grid(pos_embed[:, prefix:], rows, columns)], 1), pullback


def table_resize(table: Bounded, old: tuple[int, int], new: tuple[int, int], rule: str) -> tuple[Bounded, Pullback]:
    r"""As of positions, on the grid of displacements; the class token's rows are copied."""
    if rule == "huggingface_bilinear":  # reads a table as that of the grid on its side
        old = old[1], old[0]
    if old == new:
        return table, lambda dy: {"table": dy}
    extra, sides = 3, [(2 * m - 1, 2 * n - 1) for m, n in zip(new, old, strict=True)]
    rows, columns = (displacing(table, m, n, rule) for m, n in sides)

    def resized(a: Bounded, r: Bounded, c: Bounded) -> Bounded:
        return concatenate([on_grid(a[:-extra][None], r, c)[0], a[-extra:]], 0)

    return resized(table, rows, columns), lambda dy: {"table": resized(dy, rows.T, columns.T)}


def displacing(like: Bounded, new: int, old: int, rule: str) -> Bounded:
    """The matrix of one axis: its weights are quotients of differences of places, each a sum of up to `old` powers."""
    from torch_vit import table_matrix

    matrix = table_matrix(new, old, rule).numpy()
    computed = 20 * (old + new) * unit_roundoff(np.float64)
    return like.new(matrix, computed + like.u * np.abs(matrix))


def on_grid(patches: Bounded, rows: Bounded, columns: Bounded) -> Bounded:
    """(1, H W, D) -> (1, H' W', D)."""
    height, width = rows.v.shape[1], columns.v.shape[1]
    grid = rows @ patches.map(lambda a: a.reshape(height, -1))
    grid = columns @ grid.map(lambda a: a.reshape(len(rows.v), width, -1))
    return grid.map(lambda a: a.reshape(1, -1, patches.v.shape[-1]))


def resizing(like: Bounded, new: int, old: int, rule: str) -> Bounded:
    """The matrix of one axis; its values, which only set the size of the bound, are the torch engine's."""
    from torch_vit import resize_matrix

    matrix = resize_matrix(new, old, rule).numpy()
    # A place up to `old`, known to three roundings; a kernel whose slope is at most 1.5, of some eight; normalised.
    computed = (6 * old + 16) * unit_roundoff(np.float64)
    return like.new(matrix, computed + like.u * np.abs(matrix))


def patch_resize(weight: Bounded, new: tuple[int, int], rule: str) -> tuple[Bounded, Pullback]:
    r"""Two products with pseudoinverses. These are known only as a whole: a singular value decomposition is backward
    stable, $\lVert \hat A^+ - A^+ \rVert \lesssim c\, u\, \kappa \lVert A^+ \rVert$ (Wedin 1973; Higham 2002, section
    20.1), so their entries share one bound."""
    rows, columns = (inverse(weight, m, n, rule) for m, n in zip(new, weight.v.shape[2:], strict=True))
    return rows @ weight @ columns.T, lambda dy: {"weight": rows.T @ dy @ columns}


def inverse(like: Bounded, new: int, old: int, rule: str) -> Bounded:
    if new == old:
        return like.new(np.eye(old), 0.0)
    matrix = resizing(like, new, old, rule).v.T
    result = np.linalg.pinv(matrix)
    norm = np.linalg.norm(result, 2)
    backward = (10 * max(old, new) + 6 * old + 16) * unit_roundoff(np.float64) * np.linalg.norm(matrix, 2)
    return like.new(result, backward * norm * norm + like.u * np.abs(result))
