"""The few transformations that lie between one library's tensors and another's; each has its exact inverse.

A rule maps a group of our arrays to a group of theirs. It only moves numbers (renames, transposes, cuts, joins), so it
holds for parameters and for their gradients alike, to the bit. What only one side has is filled with zeros.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = Sequence[np.ndarray]
Facts = Any  # a ViTConfig, or what is known of one so far
Step = Callable[[Arrays, Facts], Arrays]


class Op(NamedTuple):
    """`there` turns our arrays into theirs, `back` theirs into ours."""

    there: Step
    back: Step


class Row(NamedTuple):
    """One line of a layout's table: our names, their names, what lies between. `{i}` stands for the block.

    `axes`: how many axes the first of theirs has, where two lines differ in nothing else.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    op: Op
    axes: int | None = None


def each(there: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]) -> Op:
    return Op(lambda arrays, _: [there(a) for a in arrays], lambda arrays, _: [back(a) for a in arrays])


def chain(*ops: Op) -> Op:
    """First op first on the way there, last on the way back."""

    def there(arrays: Arrays, facts: Facts) -> Arrays:
        for op in ops:
            arrays = op.there(arrays, facts)
        return arrays

    def back(arrays: Arrays, facts: Facts) -> Arrays:
        for op in reversed(ops):
            arrays = op.back(arrays, facts)
        return arrays

    return Op(there, back)


SAME = each(lambda a: a, lambda a: a)
TRANSPOSE = each(lambda a: a.T, lambda a: a.T)
# Convolution kernels: ours (D, C, P_h, P_w), in JAX (P_h, P_w, C, D).
HWIO = each(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))


def split(parts: int) -> Op:
    """One array of ours is `parts` arrays of theirs, stacked along the first axis."""
    return Op(lambda arrays, _: np.split(arrays[0], parts), lambda arrays, _: [np.concatenate(list(arrays))])


THIRDS, HALVES = split(3), split(2)

# Query apart, key and value in one: ours (D, D) and (2 D, D); theirs one (3 D, D), or three.
JOINED = Op(
    lambda arrays, _: [np.concatenate(list(arrays))],
    lambda arrays, _: [arrays[0][: len(arrays[0]) // 3], arrays[0][len(arrays[0]) // 3 :]],
)
APART = Op(
    lambda arrays, _: [arrays[0], *np.split(arrays[1], 2)], lambda arrays, _: [arrays[0], np.concatenate(arrays[1:])]
)


def _diagonal(arrays: Arrays, facts: Facts) -> Arrays:
    """(3 D, D) or (3 D,): of each head's rows, the columns of that head alone."""
    heads, out = facts.num_heads, []
    for part in np.split(arrays[0], 3):
        for h, block in enumerate(np.split(part, heads)):
            width = block.shape[0]
            out.append(block[:, h * width : (h + 1) * width] if block.ndim == 2 else block)
    return out


def _undiagonal(arrays: Arrays, facts: Facts) -> Arrays:
    width, total = arrays[0].shape[0], sum(a.shape[0] for a in arrays)
    out = np.zeros((total, total // 3) if arrays[0].ndim == 2 else (total,), np.result_type(*arrays))
    for k, block in enumerate(arrays):
        first = k % (len(arrays) // 3) * width
        if block.ndim == 2:
            out[k * width : (k + 1) * width, first : first + width] = block
        else:
            out[k * width : (k + 1) * width] = block
    return [out]


# Each head maps its own slice of the token only: our fused matrix is block-diagonal, zero elsewhere.
BLOCK_DIAGONAL = Op(_diagonal, _undiagonal)


def drop_axes(count: int) -> Op:
    """Leading axes of length one that they do not have: our class token (1, 1, D), their (D,)."""
    return each(lambda a: a.reshape(a.shape[count:]), lambda a: a.reshape((1,) * count + a.shape))


# Inner width NH * HD as two axes, as JAX keeps it. `heads` is taken from the arrays on the way back.
def heads_out(heads: Callable[[Facts], int]) -> Op:
    """weight (NH HD, D) of a projection into heads <-> kernel (D, NH, HD)."""
    return Op(
        lambda arrays, c: [a.T.reshape(a.shape[1], heads(c), -1) for a in arrays],
        lambda arrays, _: [a.reshape(a.shape[0], -1).T for a in arrays],
    )


def heads_in(heads: Callable[[Facts], int]) -> Op:
    """weight (D, NH HD) of the projection out of heads <-> kernel (NH, HD, D)."""
    return Op(
        lambda arrays, c: [a.T.reshape(heads(c), -1, a.shape[0]) for a in arrays],
        lambda arrays, _: [a.reshape(-1, a.shape[2]).T for a in arrays],
    )


def heads_bias(heads: Callable[[Facts], int]) -> Op:
    """bias (NH HD,) <-> (NH, HD)."""
    return Op(
        lambda arrays, c: [a.reshape(heads(c), -1) for a in arrays], lambda arrays, _: [a.reshape(-1) for a in arrays]
    )


def model_heads(facts: Facts) -> int:
    return facts.num_heads


def pool_heads(facts: Facts) -> int:
    return facts.attn_pool_heads or facts.num_heads


def _unflatten_channels_last(array: np.ndarray, facts: Facts) -> np.ndarray:
    patch_h, patch_w = facts.patch_size
    return array.reshape((*array.shape[:-1], patch_h, patch_w, -1))


def _patch_last(array: np.ndarray, facts: Facts) -> np.ndarray:
    """(..., C, P_h, P_w) flattened as one vector in that order -> the vector in the order (P_h, P_w, C)."""
    patch_h, patch_w = facts.patch_size
    cube = array.reshape((*array.shape[:-1], -1, patch_h, patch_w))
    return np.moveaxis(cube, -3, -1).reshape(array.shape)


# A linear map of flattened patches: our convolution kernel (D, C, P_h, P_w), their matrix (D, P_h P_w C) ...
PATCH_LAST = Op(
    lambda arrays, c: [a.transpose(0, 2, 3, 1).reshape(a.shape[0], -1) for a in arrays],
    lambda arrays, c: [np.moveaxis(_unflatten_channels_last(a, c), -1, 1) for a in arrays],
)
# ... or (D, C P_h P_w) ...
PATCH_FIRST = Op(
    lambda arrays, c: [a.reshape(a.shape[0], -1) for a in arrays],
    lambda arrays, c: [a.reshape(a.shape[0], -1, *c.patch_size) for a in arrays],
)
# ... and vectors over the flattened patch: ours in the order (C, P_h, P_w), theirs (P_h, P_w, C).
PATCH_VECTOR = Op(
    lambda arrays, c: [_patch_last(a, c) for a in arrays],
    lambda arrays, c: [np.moveaxis(_unflatten_channels_last(a, c), -1, -3).reshape(a.shape) for a in arrays],
)


def stacked(op: Op) -> Op:
    """Their arrays hold all blocks along a first axis (one `scan` over the layers); ours are one a block."""

    def there(arrays: Arrays, facts: Facts) -> Arrays:
        per_block = len(arrays) // facts.depth
        blocks = [op.there(arrays[k : k + per_block], facts) for k in range(0, len(arrays), per_block)]
        return [np.stack(column) for column in zip(*blocks, strict=True)]

    def back(arrays: Arrays, facts: Facts) -> Arrays:
        return [a for k in range(arrays[0].shape[0]) for a in op.back([stack[k] for stack in arrays], facts)]

    return Op(there, back)


def constant(make: Callable[[Facts], Any]) -> Op:
    """A tensor that they store and that says nothing: written as `make` has it (None: not), left aside when read."""
    return Op(lambda arrays, c: [make(c)], lambda arrays, _: [])


def rows(*table: tuple) -> tuple[Row, ...]:
    """Lines (ours, theirs[, op[, axes]]) as Rows; a name that ends in `.*` stands for its weight and its bias."""
    out: list[Row] = []
    for ours, theirs, *rest in table:
        ours, theirs = (ours,) if isinstance(ours, str) else ours, (theirs,) if isinstance(theirs, str) else theirs
        starred = any(name.endswith(".*") for name in ours)
        for leaf in ("weight", "bias") if starred else ("",):
            names = [tuple(n[:-1] + leaf if n.endswith(".*") else n for n in side) for side in (ours, theirs)]
            out.append(Row(names[0], names[1], *(rest or [SAME])))
    return tuple(out)
