"""The tests that every stage gets. A test file calls `stage_tests(name)` and adds what is true of its stage alone."""

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parity_tests import harness
from parity_tests.strategies import dtypes, layouts, seeds


def stage_tests(name: str) -> tuple[Callable, ...]:
    """(parity with torch, float32 error ratio, complex-step adjoint, linearity in the upstream gradient)."""
    return tests_of(harness.STAGES[name])


def tests_of(stage: harness.Stage) -> tuple[Callable, ...]:

    @given(case=stage.cases, dtype=dtypes, layout=layouts, seed=seeds)
    def test_parity(case, dtype, layout, seed):
        harness.check_parity(stage, case, dtype, layout, seed)

    def test_error_ratio(record_property):
        pairs = []

        @given(case=stage.cases, seed=seeds)
        def collect(case, seed):
            pairs.append(harness.error_pair(stage, case, np.float32, seed))

        collect()
        record_property("examples", len(pairs))
        harness.check_error_ratio(stage.name, pairs)

    @given(case=stage.cases, seed=seeds)
    def test_adjoint_of_complex_step(case, seed):
        harness.check_directional(stage, case, seed)

    @given(case=stage.cases, seed=st.integers(0, 99))
    def test_linear_in_upstream(case, seed):
        harness.check_linear_in_upstream(stage, case, seed)

    return test_parity, test_error_ratio, test_adjoint_of_complex_step, test_linear_in_upstream
