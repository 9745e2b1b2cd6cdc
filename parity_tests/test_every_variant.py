"""What every stage must do, for the variants: layouts, smallest shapes, special values, batches, sums, differences."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parity_tests import harness as checks
from parity_tests.algebra import check_additive, check_batch, check_token_order
from parity_tests.choices import smallest_cases
from parity_tests.ridders import check_richardson
from parity_tests.special import VALUES, check_special, places, plant
from parity_tests.strategies import LAYOUTS, at_most, dtypes, seeds
from parity_tests.variant_cases import CASES
from parity_tests.variants import VARIANTS

every_variant = pytest.mark.parametrize("name", VARIANTS)
LEAVES = [name for name, stage in VARIANTS.items() if stage.kind == "leaf"]
TOKENS = ("norm", "assembled_attention", "activated_mlp", "gated_mlp", "assembled_block", "parallel_block",
          "parallel_things_block")  # fmt: skip


def has_kinks(case) -> bool:
    """Where the slope jumps, differences say nothing; the complex step does."""
    options = case.options
    relu = "relu" in (options.get("name"), getattr(options.get("config"), "activation", ""))
    pools = options.get("pool"), getattr(options.get("config"), "pool", "")
    return relu or not {"max", "avg_max"}.isdisjoint(pools)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "relu"])  # all kink: the complex step checks it
@given(data=st.data(), seed=seeds)
@at_most(50)
def test_central_differences(name, data, seed):
    case = data.draw(VARIANTS[name].cases)
    assume(not has_kinks(case))
    check_richardson(VARIANTS[name], case, seed)


@every_variant
def test_smallest_shapes(name):
    """Sizes of one and two: none left to chance."""
    stage, layouts = VARIANTS[name], sorted(LAYOUTS)
    for i, case in enumerate(smallest_cases(CASES[name])):
        for dtype in (np.float64, np.float32):
            checks.check_parity(stage, case, dtype, layouts[i % len(layouts)], i)
        checks.check_directional(stage, case, i)
        checks.check_linear_in_upstream(stage, case, i)


@every_variant
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@given(data=st.data(), seed=st.integers(0, 99))
@at_most(3, shares=len(LAYOUTS))
def test_every_layout(name, layout, data, seed):
    checks.check_parity(VARIANTS[name], data.draw(VARIANTS[name].cases), np.float64, layout, seed)


@pytest.mark.parametrize("name", LEAVES)
@given(data=st.data(), dtype=dtypes, chosen=places, seed=seeds)
@at_most(50)
def test_special_values(name, data, dtype, chosen, seed):
    stage = VARIANTS[name]
    check_special(stage, plant(stage, data.draw(stage.cases), dtype, chosen), dtype, seed)


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("kind", [*VALUES, "equal"])
def test_each_value_alone(name, kind):
    stage = VARIANTS[name]
    case = max(smallest_cases(CASES[name]), key=lambda c: sum(a.size for a in c.arrays.values()))
    for which in range(len(case.arrays)):
        for dtype in (np.float64, np.float32):
            check_special(stage, plant(stage, case, dtype, [(which, 0, kind)]), dtype, 0)


@pytest.mark.parametrize("name", [name for name, stage in VARIANTS.items() if stage.batched])
@given(data=st.data(), seed=seeds)
@at_most(50)
def test_a_batch_is_its_images(name, data, seed):
    check_batch(VARIANTS[name], data.draw(VARIANTS[name].cases), seed)


@every_variant
@given(data=st.data(), seed=seeds)
@at_most(50)
def test_additive_in_upstream(name, data, seed):
    check_additive(VARIANTS[name], data.draw(VARIANTS[name].cases), seed)


@pytest.mark.parametrize("name", TOKENS)
@given(data=st.data(), seed=seeds)
@at_most(50)
def test_permuting_tokens_permutes_everything(name, data, seed):
    """Without positions: no rotation, no bias on the scores."""
    case = data.draw(VARIANTS[name].cases)
    assume("relative_position_bias_table" not in case.arrays)
    if "positions" in case.options:
        bare = case.options["positions"]._replace(sin=None, cos=None, bias=None)
        case = case._replace(options={**case.options, "positions": bare})
    check_token_order(VARIANTS[name], case, seed)
