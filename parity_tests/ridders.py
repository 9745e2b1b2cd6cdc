r"""Oracle 2 where a stage is not analytic, and a second opinion where it is: central differences, extrapolated.

$D(h) = \frac{f(h) - f(-h)}{2h} = f' + c_2 h^2 + c_4 h^4 + \dots$, so combinations of $D$ at shrinking steps cancel one
power after the other (Richardson 1911); the table of Ridders 1982 stops where its columns agree best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numpy_vit.mae_loss import EPS
from numpy_vit.patch_embed import patchify, unpatchify
from parity_tests import harness, strategies
from parity_tests.harness import Named, Stage
from parity_tests.strategies import Array, Case
from parity_tests.tolerances import gamma, unit_roundoff

SHRINK = 2.0  # a power of two: the steps are exact
ROWS = 14
FIRST = 0.25  # of the inputs' own size
SAFETY = 10.0  # Ridders' estimate is of the error's order, not a bound on it; a wrong gradient is off by far more
PER_ROW = {"layer_norm", "rms_norm", "norm"}  # curved on the scale by which they divide, row by row
# Curved on a scale of 1, however large their input.
EXPONENTIAL = {"softmax", "cross_entropy", "attention", "activation", "gelu", "gelu_tanh", "quick_gelu", "silu"}


def derivative(f: Callable[[float], float], noise: float, first: float = FIRST) -> tuple[float, float]:
    r"""$f'(0)$ and what it may be off by.

    `noise` bounds the rounding error of one value of f. An entry is a sum of differences whose weights' sizes multiply
    column by column, $\prod_m \frac{4^m + 1}{4^m - 1}$; that times noise/h is its rounding error. Its truncation error
    is estimated, as Ridders does, by how far it is from its two parents. A function that saturates looks straight from
    afar: a coarse entry counts only if the finer ones allow it.
    """
    best, table = [], []
    for i in range(ROWS):
        h = first * SHRINK**-i
        row, growth = [(f(h) - f(-h)) / (2 * h)], 1.0
        entries = []
        for j in range(1, i + 1):
            power = SHRINK ** (2 * j)
            growth *= (power + 1) / (power - 1)
            row.append((power * row[j - 1] - table[-1][j - 1]) / (power - 1))
            truncation = abs(row[j] - row[j - 1]) + abs(row[j] - table[-1][j - 1])
            entries.append((truncation + growth * noise / h, row[j]))
        table.append(row)
        best += [min(entries)] if entries else []
    error, value = best.pop()
    for coarser, other in reversed(best):
        if abs(other - value) > coarser + error:
            break
        if coarser < error:
            error, value = coarser, other
    return value, error


def check_richardson(stage: Stage, case: Case, seed: int) -> None:
    """<dy, J d> by differences of the forward alone against <J^T dy, d> by the backward, d random and of x's size."""
    arrays = harness.cast(case.arrays, np.float64)
    y, cache = stage.forward(harness.ENGINE, arrays, case.options)
    dy = harness.upstream(y, seed)
    grads = stage.backward(harness.ENGINE, dy, cache, arrays)
    most = 1.0 if stage.name in EXPONENTIAL else np.inf
    sizes = {n: np.max(np.abs(a), initial=0.0) for n, a in arrays.items()}
    if stage.name in PER_ROW:
        sizes["x"] = spread(stage.name, arrays["x"], case.options)
    elif stage.kind != "leaf" and hasattr(case.options.get("config"), "norm_eps") and "x" in arrays:
        eps = {"eps": case.options["config"].norm_eps}  # a norm may come first, and the row be all but constant
        sizes["x"] = np.minimum(sizes["x"], spread("layer_norm", arrays["x"], eps))
    if case.options.get("norm_pix"):
        sizes["images"] = spread_of_patches(arrays["images"], case.options["patch_size"])
    directions = {n: direction(a, seed + 1 + i, most, sizes[n]) for i, (n, a) in enumerate(arrays.items())}
    bound = harness.derive_bounds(stage, case, np.float64, dy)

    def value(t: float) -> float:
        moved = {n: a + t * directions[n] for n, a in arrays.items()}
        return float(np.sum(dy * (stage.forward(harness.ENGINE, moved, case.options)[0] - y)))

    # Besides the forward's error: the moved inputs are rounded, which shifts f by that much of its slope.
    u = unit_roundoff(np.float64)
    shift = sum(float(np.sum(np.abs(grads[n]) * (np.abs(a) + np.abs(directions[n])))) for n, a in arrays.items()) * u
    noise = float(np.sum(np.abs(dy) * bound["y"])) + gamma(dy.size + 1, u) * float(np.sum(np.abs(dy * y))) + 2 * shift
    if not np.isfinite(noise):
        return  # nothing is known of y, so nothing of its differences
    left, error = derivative(value, noise)
    right = sum(float(np.sum(grads[n] * d)) for n, d in directions.items())
    assert_close(stage, left, right, SAFETY * error + right_error(grads, directions, bound))


def spread(stage: str, x: Array, options: Named) -> Array:
    """What a norm divides its rows by, and all of it that a row of equal numbers has: sqrt(eps)."""
    centred = x if "rms" in (stage.split("_")[0], options.get("kind")) else x - x.mean(axis=-1, keepdims=True)
    return np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + options["eps"])


def spread_of_patches(images: Array, patch_size: tuple[int, int]) -> Array:
    """What an autoencoder's loss divides each patch's pixels by, at each pixel."""
    patches = patchify(images, patch_size)
    size = np.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + EPS)
    return unpatchify(np.broadcast_to(size, patches.shape), images.shape[1:], patch_size)


def direction(a: Array, seed: int, most: float, size: Array) -> Array:
    """Random, of this size (the array's own, so that no input's share is lost); at most `most`."""
    return strategies.normal(seed, a.shape) * np.minimum(np.where(size > 0, size, 1.0), most)


def right_error(grads: Named, directions: Named, bound: Named) -> float:
    """What <J^T dy, d> may be off by: each gradient's bound, and the sum's own rounding."""
    carried = sum(float(np.sum(bound[n] * np.abs(d))) for n, d in directions.items())
    terms = sum(float(np.sum(np.abs(grads[n] * d))) for n, d in directions.items())
    return carried + gamma(1 + sum(d.size for d in directions.values()), unit_roundoff(np.float64)) * terms


def assert_close(stage: Stage, left: float, right: float, error: float) -> None:
    assert abs(left - right) <= error, (
        f"{stage.name}: central differences give <dy, J d> = {left!r} but <J^T dy, d> = {right!r}; "
        f"difference {abs(left - right):.3e}, bound {error:.3e}"
    )
