"""Infinities, NaN, subnormals, signed zeros, equal and huge numbers: every leaf does with them what torch does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests import harness
from parity_tests.special import LEAVES, VALUES, check_special, places, plant
from parity_tests.strategies import dtypes, seeds


@pytest.mark.parametrize("name", LEAVES)
@given(data=st.data(), dtype=dtypes, chosen=places, seed=seeds)
def test_special_values(name, data, dtype, chosen, seed):
    stage = harness.STAGES[name]
    check_special(stage, plant(stage, data.draw(stage.cases), dtype, chosen), dtype, seed)


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("kind", [*VALUES, "equal"])
def test_each_value_alone(name, kind):
    """None left to chance: each value first in each input of one small case."""
    from parity_tests.smallest import smallest

    stage = harness.STAGES[name]
    case = max(smallest(name), key=lambda c: sum(a.size for a in c.arrays.values()))
    for which in range(len(case.arrays)):
        for dtype in (np.float64, np.float32):
            check_special(stage, plant(stage, case, dtype, [(which, 0, kind)]), dtype, 0)
