"""LayerNorm: parity, and the two directions that it cannot see."""

import numpy as np
import pytest
from hypothesis import given

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import layer_norm_cases, normal, seeds
from vit_common import ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("layer_norm")
STAGE = harness.STAGES["layer_norm"]


@given(case=layer_norm_cases(), seed=seeds)
def test_blind_to_a_shift_and_its_gradient_orthogonal(case, seed):
    """y(x + c) = y(x), so the gradient sums to zero along each row."""
    y, cache = STAGE.forward(harness.ENGINE, case.arrays, case.options)
    shift = 2.0 ** np.ceil(np.log2(np.abs(case.arrays["x"]).max() + 1e-300))
    moved = case._replace(arrays={**case.arrays, "x": case.arrays["x"] + shift})
    dy = harness.upstream(y, seed)
    y_moved, _ = STAGE.forward(harness.ENGINE, moved.arrays, case.options)
    bound = harness.derive_bounds(STAGE, case, np.float64, dy)
    bound_moved = harness.derive_bounds(STAGE, moved, np.float64, dy)
    rounded = moved.arrays["x"] - shift != case.arrays["x"]  # the shifted input itself was rounded
    if not rounded.any():
        assert np.all(np.abs(y - y_moved) <= bound["y"] + bound_moved["y"])
    dx = STAGE.backward(harness.ENGINE, dy, cache, case.arrays)["x"]
    assert np.all(np.abs(dx.sum(-1)) <= 2 * bound["x"].sum(-1))


@given(case=layer_norm_cases(), seed=seeds)
def test_blind_to_a_scale_without_eps(case, seed):
    """With eps much smaller than the variance, y(2x) = y(x): multiplying by two is exact."""
    arrays, options = case.arrays, {"eps": 1e-300}
    if np.any(arrays["x"].std(-1) == 0):
        arrays = {**arrays, "x": normal(seed, arrays["x"].shape)}
    if arrays["x"].shape[-1] < 2 or np.any(arrays["x"].std(-1) == 0):
        return
    y, _ = STAGE.forward(harness.ENGINE, arrays, options)
    doubled, _ = STAGE.forward(harness.ENGINE, {**arrays, "x": 2 * arrays["x"]}, options)
    assert np.array_equal(y, doubled)


@pytest.mark.parametrize(("weight", "bias"), [((2,), (3,)), ((3,), (1,)), ((1,), (3,)), ((1, 3), (3,))])
def test_parameters_that_would_broadcast(weight, bias):
    layer_norm_forward = harness.stage_function(harness.ENGINE, "layer_norm_forward")
    with pytest.raises(ShapeError, match="layer_norm (weight|bias) has shape"):
        layer_norm_forward(normal(0, (2, 3)), normal(1, weight), normal(2, bias))
