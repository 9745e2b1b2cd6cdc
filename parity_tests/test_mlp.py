"""MLP: parity, and that tokens do not see each other."""

import numpy as np
from hypothesis import given

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import composite_cases

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("mlp")


@given(case=composite_cases("mlp"))
def test_each_token_alone(case):
    stage, arrays = harness.STAGES["mlp"], case.arrays
    options = {**case.options, "masks": None}
    y, _ = stage.forward(harness.ENGINE, arrays, options)
    bound = harness.derive_bounds(stage, case._replace(options=options), np.float64, np.zeros_like(y))["y"]
    for t in range(y.shape[1]):
        alone, _ = stage.forward(harness.ENGINE, {**arrays, "x": arrays["x"][:, t : t + 1]}, options)
        assert np.all(np.abs(alone[:, 0] - y[:, t]) <= 2 * bound[:, t])
