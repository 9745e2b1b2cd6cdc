"""Oracle 3: what must hold whatever the numbers, for every stage of which it is true."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests import harness
from parity_tests.harness import Named, Stage
from parity_tests.strategies import Array, Case, normal


def run(stage: Stage, case: Case, dy: Array) -> tuple[Array, Named]:
    """Output and gradients in float64."""
    y, cache = stage.forward(harness.ENGINE, case.arrays, case.options)
    return np.asarray(y), stage.backward(harness.ENGINE, dy, cache, case.arrays)


def output_shape(stage: Stage, case: Case) -> tuple[int, ...]:
    return np.shape(stage.forward(harness.ENGINE, case.arrays, case.options)[0])


def batched(stage: Stage, case: Case) -> list[str]:
    """The arrays that hold an image in each row; what has one row for all images is shared."""
    count = len(case.arrays[stage.batched[0]])
    return [name for name in stage.batched if name in case.arrays and len(case.arrays[name]) == count]


def image(stage: Stage, case: Case, i: int) -> Case:
    """The i-th image alone, with its own masks and its own label."""

    def part(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: part(v) for name, v in value.items()}
        return value[i : i + 1] if isinstance(value, np.ndarray) else value

    own = batched(stage, case)
    arrays = {n: a[i : i + 1] if n in own else a for n, a in case.arrays.items()}
    return Case(arrays, {name: part(value) for name, value in case.options.items()})


def check_batch(stage: Stage, case: Case, seed: int) -> None:
    """A batch of n is n batches of one: outputs and input gradients side by side, parameter gradients summed."""
    own = batched(stage, case)
    dy = normal(seed, output_shape(stage, case))
    y, grads = run(stage, case, dy)
    bound = harness.derive_bounds(stage, case, np.float64, dy)
    count = len(case.arrays[own[0]])
    mean = stage.scalar  # a mean over the batch: each image has its n-th part
    share = dy / count if mean else None
    sums: dict[str, Any] = {name: 0.0 for name in grads if name not in own}
    total = 0.0
    for i in range(count):
        y_i, g_i = run(stage, image(stage, case, i), share if mean else dy[i : i + 1])
        total = total + y_i / count
        if not mean:
            close(stage, f"y of image {i}", y_i[0], y[i], bound["y"][i])
        for name in grads:
            if name in own:
                close(stage, f"gradient of {name} of image {i}", g_i[name][0], grads[name][i], bound[name][i])
            else:
                sums[name] = sums[name] + g_i[name]
    for name, value in sums.items():
        close(stage, f"gradient of {name}, summed", value, grads[name], bound[name])
    if mean:
        close(stage, "y, averaged", total, y, bound["y"])


def check_additive(stage: Stage, case: Case, seed: int) -> None:
    """The backward of a sum is the sum of the backwards. Upstream gradients are whole numbers: their sum is exact."""
    shape = output_shape(stage, case)
    first, second = (normal(seed + i, shape, kind="integers") for i in (0, 1))
    dys = first, second, first + second
    results = [run(stage, case, dy)[1] for dy in dys]
    bounds = [harness.derive_bounds(stage, case, np.float64, dy) for dy in dys]
    for name, together in results[2].items():
        apart = results[0][name] + results[1][name]
        limit = sum(b[name] for b in bounds) / 2  # `close` doubles it, and the sum's own rounding is less
        close(stage, f"gradient of {name}", apart, together, limit)


def check_token_order(stage: Stage, case: Case, seed: int) -> None:
    """Permuting tokens permutes outputs and input gradients, and leaves parameter gradients alone."""
    case = case._replace(options={n: None if n == "masks" else v for n, v in case.options.items()})
    order = np.random.default_rng(seed).permutation(case.arrays["x"].shape[1])
    moved = case._replace(arrays={**case.arrays, "x": case.arrays["x"][:, order]})
    dy = normal(seed, output_shape(stage, case))
    y, grads = run(stage, case, dy)
    y_moved, g_moved = run(stage, moved, dy[:, order])
    bound = harness.derive_bounds(stage, case, np.float64, dy)
    close(stage, "y", y_moved, y[:, order], bound["y"][:, order])
    close(stage, "gradient of x", g_moved.pop("x"), grads["x"][:, order], bound["x"][:, order])
    for name, g in g_moved.items():
        close(stage, f"gradient of {name}", g, grads[name], bound[name])


def close(stage: Stage, what: str, a: Array, b: Array, bound: Array) -> None:
    """Both sides were computed: each may be off by the bound."""
    with np.errstate(invalid="ignore"):
        error = np.where(a == b, 0.0, np.abs(a - b))
    bad = ~(error <= 2 * np.asarray(bound))
    assert not bad.any(), f"{stage.name}: {what} differs by {error[bad].max():.3e}, bound {2 * np.max(bound):.3e}"
