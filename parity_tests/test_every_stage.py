"""What every stage must do: differences of its forward, the smallest shapes, every memory layout."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests import harness
from parity_tests.planting import under_test
from parity_tests.ridders import check_richardson, derivative
from parity_tests.smallest import smallest
from parity_tests.strategies import LAYOUTS, Case, at_most, normal

every_stage = pytest.mark.parametrize("name", harness.STAGES)

@every_stage
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_central_differences(name, data, seed):
    check_richardson(harness.STAGES[name], data.draw(harness.STAGES[name].cases), seed)


@every_stage
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_smallest_shapes(name, dtype):
    """One token, one head, one patch, one class, a batch of one: none left to chance."""
    stage, layouts = harness.STAGES[name], sorted(LAYOUTS)
    for i, case in enumerate(smallest(name)):
        harness.check_parity(stage, case, dtype, layouts[i % len(layouts)], i)
        if dtype == np.float64:
            harness.check_directional(stage, case, i)
            harness.check_linear_in_upstream(stage, case, i)


@every_stage
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@given(data=st.data(), seed=st.integers(0, 99))
@at_most(5, shares=len(LAYOUTS))
def test_every_layout(name, layout, data, seed):
    harness.check_parity(harness.STAGES[name], data.draw(harness.STAGES[name].cases), np.float64, layout, seed)


@given(a=st.integers(-9, 9), b=st.integers(-9, 9))
def test_the_table_of_differences_is_right_about_its_own_error(a, b):
    """On functions whose derivative is known; noise of known size added."""
    rng = np.random.default_rng(abs(a * b))
    for noise in (1e-15, 1e-9):
        found, error = derivative(lambda t, n=noise: np.sin(a + b * t) + n * rng.uniform(-1, 1), noise + 1e-16 * abs(a))
        assert abs(found - b * np.cos(a)) <= error
        assert error <= 1e4 * noise * max(abs(b), 1)


@pytest.mark.parametrize("wrong", [1 + 1e-9, -1.0, 0.0])
def test_central_differences_catch_a_wrong_gradient(wrong):
    """Nine digits of a gradient are seen without torch and without complex numbers."""
    right = harness.ENGINE
    engine = SimpleNamespace(
        __name__="wrong", gelu_forward=right.gelu_forward,
        gelu_backward=lambda dy, cache: right.gelu_backward(dy, cache) * wrong,
    )  # fmt: skip
    case = Case({"x": normal(0, (3, 4))}, {})
    check_richardson(harness.STAGES["gelu"], case, 0)
    with under_test(engine), pytest.raises(AssertionError, match=r"gelu: central differences give <dy, J d> = .* but"):
        check_richardson(harness.STAGES["gelu"], case, 0)
