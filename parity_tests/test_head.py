"""Pooling and head: parity, and exactly zero gradients where nothing was read."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import normal, pool_cases, seeds
from vit_common import ConfigError

test_pool_parity, test_pool_error_ratio, test_pool_adjoint, test_pool_linear = stage_tests("pool")
test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("head")


@given(case=pool_cases(), seed=seeds)
def test_tokens_not_read_have_no_gradient(case, seed):
    stage = harness.STAGES["pool"]
    y, cache = stage.forward(harness.ENGINE, case.arrays, case.options)
    dx = stage.backward(harness.ENGINE, harness.upstream(y, seed), cache, case.arrays)["x"]
    unread = dx[:, 1:] if case.options["pool"] == "cls" else dx[:, : case.options["prefix"]]
    assert not unread.any()


@pytest.mark.parametrize(("pool", "tokens", "prefix"), [("max", 3, 1), ("mean", 1, 1), ("mean", 2, 3)])
def test_nothing_to_pool(pool, tokens, prefix):
    x = normal(0, (2, tokens, 3))
    for module, given_x in ((harness.ENGINE, x), (torch_vit, torch.from_numpy(x))):
        with pytest.raises(ConfigError, match="cannot pool"):
            harness.stage_function(module, "pool_forward")(given_x, pool, prefix)
    assert np.isfinite(x).all()
