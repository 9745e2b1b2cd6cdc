"""Silu: parity with torch, float32 error ratio, adjoint of the complex step, linearity, every digit of the sigmoid."""

import numpy as np
import pytest
import torch

import numpy_vit as nv
import torch_vit as tv
from numpy_vit.silu import sigmoid
from parity_tests import harness
from parity_tests.strategies import Case
from parity_tests.tolerances import ELEMENTARY, unit_roundoff
from parity_tests.variants import VARIANTS, variant_tests

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = variant_tests("silu")


@pytest.mark.parametrize(("dtype", "least"), [(np.float32, -87.0), (np.float64, -700.0)])
def test_small_values_keep_their_digits(dtype, least):
    r"""Relative to $\sigma$, not to 1: an exponential, a sum, a quotient; one product more for $x \sigma$."""
    x = np.linspace(least, -least, 20001).astype(dtype)
    true = np.exp(np.minimum(x, 0).astype(np.longdouble)) / (1 + np.exp(-np.abs(x).astype(np.longdouble)))
    bound = (ELEMENTARY + 2) * unit_roundoff(dtype)
    assert sigmoid(x).dtype == dtype
    assert np.abs(sigmoid(x) / true - 1).max() <= bound
    away = x != 0
    for y in (nv.silu_forward(x)[0], tv.silu_forward(torch.from_numpy(x)).numpy()):
        assert np.abs(y[away] / (x * true)[away] - 1).max() <= bound + unit_roundoff(dtype)


@pytest.mark.parametrize(("name", "x"), [("silu", -391.87), ("silu", -700.0), ("quick_gelu", -391.87)])
def test_the_complex_step_where_its_own_numbers_underflow(name, x):
    harness.check_directional(VARIANTS[name], Case({"x": np.array([[x]])}, {}), 0)
