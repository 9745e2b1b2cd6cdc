"""Linear: parity, and what must hold whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import linear_cases, normal, seeds
from vit_common import ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("linear")


@given(case=linear_cases(), seed=seeds)
def test_a_batch_is_its_rows(case, seed):
    """Rows do not see each other: y of one row is that row of y, and weight gradients of rows add up."""
    stage, arrays = harness.STAGES["linear"], case.arrays
    y, cache = stage.forward(harness.ENGINE, arrays, {})
    dy = harness.upstream(y, seed)
    grads = stage.backward(harness.ENGINE, dy, cache, arrays)
    bound = harness.derive_bounds(stage, case, np.float64, dy)
    total = 0.0
    for i in range(len(arrays["x"])):
        row = {**arrays, "x": arrays["x"][i : i + 1]}
        y_i, cache_i = stage.forward(harness.ENGINE, row, {})
        g_i = stage.backward(harness.ENGINE, dy[i : i + 1], cache_i, row)
        assert np.all(np.abs(y_i[0] - y[i]) <= 2 * bound["y"][i])
        assert np.all(np.abs(g_i["x"][0] - grads["x"][i]) <= 2 * bound["x"][i])
        total = total + g_i["weight"]
    assert np.all(np.abs(total - grads["weight"]) <= 2 * bound["weight"])


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [((2, 3), (4, 2), None), ((2, 3), (4, 3), (3,)), ((2, 3), (3,), None), ((2, 3), (4, 3), (1,))],
)
def test_shapes_that_do_not_fit(x, weight, bias):
    linear_forward = harness.stage_function(harness.ENGINE, "linear_forward")
    with pytest.raises(ShapeError, match="linear (weight|bias) has shape"):
        linear_forward(normal(0, x), normal(1, weight), None if bias is None else normal(2, bias))


def test_upstream_gradient_of_the_wrong_shape():
    forward, backward = (harness.stage_function(harness.ENGINE, f"linear_{way}") for way in ("forward", "backward"))
    _, cache = forward(normal(0, (2, 3)), normal(1, (4, 3)))
    with pytest.raises(ShapeError, match="dy of linear"):
        backward(normal(2, (1, 4)), cache)
