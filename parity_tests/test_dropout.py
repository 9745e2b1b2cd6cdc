"""Dropout and stochastic depth: parity with given masks, and what is dropped stays dropped."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import drop_path_cases, dropout_cases, normal
from vit_common import DtypeError, RangeError, ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("dropout")
test_path_parity, test_path_error_ratio, test_path_adjoint, test_path_linear = stage_tests("drop_path")


@given(case=dropout_cases())
def test_dropped_is_zero_and_kept_is_rescaled(case):
    x, mask, rate = case.arrays["x"], case.options["mask"], case.options["rate"]
    y, _ = harness.STAGES["dropout"].forward(harness.ENGINE, case.arrays, case.options)
    if mask is None:
        assert np.array_equal(y, x)
        return
    assert not y[~mask].any()
    keep = 1.0 - rate
    assert np.all(np.abs(y[mask] * keep - x[mask]) <= 3 * np.finfo(np.float64).eps * np.abs(x[mask]))


@given(case=drop_path_cases())
def test_a_path_is_dropped_whole(case):
    mask = case.options["mask"]
    y, _ = harness.STAGES["drop_path"].forward(harness.ENGINE, case.arrays, case.options)
    if mask is not None:
        assert not y[~mask].any()
        assert np.array_equal(y[mask] == 0, case.arrays["x"][mask] == 0)


@pytest.mark.parametrize("name", ["dropout", "drop_path"])
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_bad_masks_and_rates(name, engine):
    module, wrap = (harness.ENGINE, np.asarray) if engine == "numpy" else (torch_vit, torch.from_numpy)
    forward = harness.stage_function(module, f"{name}_forward")
    x = wrap(normal(0, (2, 3)))
    with pytest.raises(ShapeError, match="mask has shape"):
        forward(x, wrap(np.ones((3,), bool)), 0.5)
    good = wrap(np.ones((2, 3) if name == "dropout" else (2,), bool))
    for rate in (1.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(RangeError, match="outside"):
            forward(x, good, rate)
        with pytest.raises(RangeError, match="outside"):
            forward(x, None, rate)
    with pytest.raises(DtypeError, match="expected"):
        forward(x, wrap(np.ones((2, 3) if name == "dropout" else (2,))), 0.5)
