"""Positional encoding: parity of the sum, and the fixed tables of both engines against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.naive import sincos_positions
from parity_tests.strategies import normal
from parity_tests.tolerances import unit_roundoff
from vit_common import ShapeError, ViTConfig

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("pos_embed")


@given(grid=st.tuples(st.integers(1, 7), st.integers(1, 7)), quarters=st.integers(1, 5), odd=st.integers(0, 3))
def test_tables_number_by_number(grid, quarters, odd):
    """An angle t*omega carries a few roundings of its own size, at most max(t); the sine's slope is at most 1."""
    u = unit_roundoff(np.float64)
    for kind, width in (("sincos_2d", 4 * quarters), ("sincos_1d", 4 * quarters + odd)):
        config = ViTConfig(image_size=grid, patch_size=1, embed_dim=width, num_heads=1, pos_embed=kind,
                           class_token=False, pool="mean")  # fmt: skip
        want = sincos_positions(config)[0]
        for module in (harness.ENGINE, torch_vit):
            function = harness.stage_function(module, kind)
            got = np.asarray(function(grid if kind == "sincos_2d" else config.num_tokens, width))
            assert got.dtype == np.float64
            assert np.all(np.abs(got - want) <= 8 * config.num_tokens * u)


@pytest.mark.parametrize("module", [harness.ENGINE, torch_vit])
def test_width_that_four_does_not_divide(module):
    with pytest.raises(ShapeError, match="divisible by 4, got 6"):
        harness.stage_function(module, "sincos_2d")((2, 2), 6)


@pytest.mark.parametrize("pos", [(1, 4, 1), (1, 1, 3), (2, 4, 3), (4, 3)])
def test_positions_that_would_broadcast(pos):
    with pytest.raises(ShapeError, match="pos_embed has shape"):
        harness.stage_function(harness.ENGINE, "pos_embed_forward")(normal(0, (2, 4, 3)), normal(1, pos))
