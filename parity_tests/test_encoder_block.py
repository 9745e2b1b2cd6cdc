"""Encoder block: parity, and that a dropped branch leaves the stream as it was."""

import numpy as np
from hypothesis import given

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import composite_cases, seeds

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("encoder_block")
STAGE = harness.STAGES["encoder_block"]


@given(case=composite_cases("encoder_block"), seed=seeds)
def test_dropping_both_branches_is_the_identity(case, seed):
    """To the bit, forward and backward, for the images that drop; their parameters' gradients are zero."""
    x = case.arrays["x"]
    gone = np.zeros(len(x), bool)
    options = {**case.options, "drop_path_rate": 0.5, "masks": {"drop_path1": gone, "drop_path2": gone}}
    y, cache = STAGE.forward(harness.ENGINE, case.arrays, options)
    assert np.array_equal(y, x)
    dy = harness.upstream(y, seed)
    grads = STAGE.backward(harness.ENGINE, dy, cache, case.arrays)
    assert np.array_equal(grads.pop("x"), dy)
    assert not any(g.any() for g in grads.values())


@given(case=composite_cases("encoder_block"), seed=seeds)
def test_a_batch_is_its_images(case, seed):
    options = {**case.options, "masks": None}
    plain = case._replace(options=options)
    y, cache = STAGE.forward(harness.ENGINE, case.arrays, options)
    dy = harness.upstream(y, seed)
    grads = STAGE.backward(harness.ENGINE, dy, cache, case.arrays)
    bound = harness.derive_bounds(STAGE, plain, np.float64, dy)
    sums = dict.fromkeys(case.arrays, 0.0)
    for i in range(len(y)):
        one = {**case.arrays, "x": case.arrays["x"][i : i + 1]}
        y_i, cache_i = STAGE.forward(harness.ENGINE, one, options)
        g_i = STAGE.backward(harness.ENGINE, dy[i : i + 1], cache_i, one)
        assert np.all(np.abs(y_i[0] - y[i]) <= 2 * bound["y"][i])
        assert np.all(np.abs(g_i.pop("x")[0] - grads["x"][i]) <= 2 * bound["x"][i])
        sums = {name: sums[name] + g for name, g in g_i.items()}
    for name, total in sums.items():
        assert np.all(np.abs(total - grads[name]) <= 2 * bound[name]), name
