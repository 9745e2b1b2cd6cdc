"""Softmax and scaled dot-product attention: parity, algebra, and the ends of the range."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import attention_cases, normal, seeds, softmax_cases
from parity_tests.tolerances import gamma, unit_roundoff
from vit_common import ShapeError

test_softmax_parity, test_softmax_error_ratio, test_softmax_adjoint, test_softmax_linear = stage_tests("softmax")
test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("attention")
U = unit_roundoff(np.float64)


@given(case=softmax_cases(), seed=seeds)
def test_rows_sum_to_one_and_their_gradients_to_zero(case, seed):
    stage = harness.STAGES["softmax"]
    y, cache = stage.forward(harness.ENGINE, case.arrays, {})
    assert np.all(np.abs(y.sum(-1) - 1) <= 2 * gamma(y.shape[-1] + 2, U))
    dy = harness.upstream(y, seed)
    dx = stage.backward(harness.ENGINE, dy, cache, case.arrays)["x"]
    bound = harness.derive_bounds(stage, case, np.float64, dy)["x"]
    assert np.all(np.abs(dx.sum(-1)) <= 2 * bound.sum(-1))


@given(case=softmax_cases(), power=st.integers(-3, 3))
def test_shifting_a_row_changes_nothing(case, power):
    """Exact when the shift is: integers moved by a power of two."""
    stage, x = harness.STAGES["softmax"], np.rint(np.clip(case.arrays["x"], -100, 100))
    y, _ = stage.forward(harness.ENGINE, {"x": x}, {})
    moved, _ = stage.forward(harness.ENGINE, {"x": x + 2.0 ** (10 + power)}, {})
    assert np.array_equal(y, moved)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_rows(dtype):
    """Masked (-inf) columns get exactly zero; equal logits are uniform; huge ones survive; NaN stays in its row."""
    inf, nan, big = np.inf, np.nan, float(np.finfo(dtype).max) / 2
    rows = np.array([[0, -inf, 0, -inf], [big, -big, 0, 1], [-big, -big, -big, -big], [-0.0, 0, -0.0, 0],
                     [1, 2, nan, 3], [-inf, -inf, -inf, -inf], [inf, 0, 1, 2]], dtype)  # fmt: skip
    y, _ = harness.stage_function(harness.ENGINE, "softmax_forward")(rows)
    assert y.dtype == dtype
    want = [[0.5, 0, 0.5, 0], [1, 0, 0, 0], [0.25] * 4, [0.25] * 4, [nan] * 4, [nan] * 4, [nan] * 4]
    assert np.array_equal(y, np.array(want, dtype), equal_nan=True)
    assert np.array_equal(y, torch_vit.softmax_forward(torch.from_numpy(rows)).numpy(), equal_nan=True)


@given(case=attention_cases(), seed=seeds)
def test_the_order_of_keys_does_not_matter(case, seed):
    """Permuting keys and values (and the mask's columns) leaves the output, and permutes dk and dv with them."""
    stage, arrays, options = harness.STAGES["attention"], case.arrays, case.options
    order = np.random.default_rng(seed).permutation(arrays["k"].shape[2])
    moved = {"q": arrays["q"], "k": arrays["k"][:, :, order], "v": arrays["v"][:, :, order]}
    mask = options["drop_mask"]
    moved_options = {**options, "drop_mask": None if mask is None else mask[..., order]}
    y, cache = stage.forward(harness.ENGINE, arrays, options)
    y_moved, cache_moved = stage.forward(harness.ENGINE, moved, moved_options)
    dy = harness.upstream(y, seed)
    grads = stage.backward(harness.ENGINE, dy, cache, arrays)
    g_moved = stage.backward(harness.ENGINE, dy, cache_moved, moved)
    bound = harness.derive_bounds(stage, case, np.float64, dy)
    assert np.all(np.abs(y - y_moved) <= 2 * bound["y"])
    assert np.all(np.abs(grads["q"] - g_moved["q"]) <= 2 * bound["q"])
    for name in "kv":
        assert np.all(np.abs(grads[name][:, :, order] - g_moved[name]) <= 2 * bound[name][:, :, order])


@given(case=attention_cases())
def test_fused_torch_attention_is_the_same_function(case):
    if case.options["drop_mask"] is not None:
        case = case._replace(options={"drop_mask": None, "drop_rate": 0.0})
    y, _ = harness.STAGES["attention"].forward(harness.ENGINE, case.arrays, case.options)
    fused = torch_vit.fused_attention_forward(*(torch.from_numpy(a) for a in case.arrays.values())).numpy()
    bound = harness.derive_bounds(harness.STAGES["attention"], case, np.float64, np.zeros_like(y))
    assert np.all(np.abs(y - fused) <= 2 * bound["y"])


def test_the_scale_is_the_width_of_a_head():
    """One query, two keys, head width 4: the odds are exp(q.(k1 - k2) / 2), whatever the number of heads."""
    q, k = np.full((1, 3, 1, 4), 1.0), np.stack([np.full((1, 3, 4), 1.0), np.zeros((1, 3, 4))], axis=2)
    v = np.stack([np.ones((1, 3, 1)), np.zeros((1, 3, 1))], axis=2)
    y, _ = harness.stage_function(harness.ENGINE, "attention_forward")(q, k, v)
    want = 1 / (1 + math.exp(-2.0))
    assert np.all(np.abs(y - want) <= 16 * U * want)


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [((1, 2, 3, 4), (1, 2, 5, 3), (1, 2, 5, 4)), ((1, 2, 3, 4), (1, 1, 5, 4), (1, 2, 5, 4)),
     ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 1, 4)), ((2, 3, 4), (2, 5, 4), (2, 5, 4))],
)  # fmt: skip
def test_shapes_that_would_broadcast(q, k, v):
    with pytest.raises(ShapeError, match="[qkv] has shape"):
        harness.stage_function(harness.ENGINE, "attention_forward")(normal(0, q), normal(1, k), normal(2, v))
