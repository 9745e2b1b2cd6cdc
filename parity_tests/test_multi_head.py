"""Multi-head attention: parity, three ways in torch, and the algebra of self-attention."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import composite_cases, seeds

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("multi_head")
STAGE = harness.STAGES["multi_head"]


def without_masks(case):
    return case._replace(options={**case.options, "masks": None})


@given(case=composite_cases("multi_head"), seed=seeds)
@pytest.mark.parametrize("path", ["fused", "explicit", "manual"])
def test_three_ways_in_torch(path, case, seed):
    """Fused, written out, and a hand-written torch backward: each within its bound of the NumPy engine."""
    case = without_masks(case)
    module = torch_vit.MultiHead(case.options["config"], path).double().eval()
    module.load_state_dict({n: torch.from_numpy(a) for n, a in case.arrays.items() if n != "x"})
    x = torch.from_numpy(case.arrays["x"].copy()).requires_grad_()
    y = module(x)
    dy = harness.upstream(y.detach(), seed)
    y.backward(torch.from_numpy(dy))
    ours, grads = harness.run_numpy(STAGE, case, np.float64, dy)
    bound = harness.derive_bounds(STAGE, case, np.float64, dy)
    theirs = {"x": x.grad, **{n: p.grad for n, p in module.named_parameters()}}
    harness.assert_within("multi_head", f"y ({path})", np.float64, y.detach().numpy(), ours, 2 * bound["y"])
    for name, grad in theirs.items():
        harness.assert_within("multi_head", f"{name} ({path})", np.float64, grad.numpy(), grads[name], 2 * bound[name])


@given(case=composite_cases("multi_head"), seed=seeds)
def test_the_key_bias_has_no_gradient(case, seed):
    """It adds q.b to a whole row of scores, which the softmax cannot see."""
    y, cache = STAGE.forward(harness.ENGINE, case.arrays, case.options)
    dy = harness.upstream(y, seed)
    grads = STAGE.backward(harness.ENGINE, dy, cache, case.arrays)
    width = case.options["config"].embed_dim
    key = slice(width, 2 * width)
    bound = harness.derive_bounds(STAGE, case, np.float64, dy)["qkv.bias"]
    assert np.all(np.abs(grads["qkv.bias"][key]) <= bound[key])


@given(case=composite_cases("multi_head"), seed=seeds)
def test_permuting_tokens_permutes_everything(case, seed):
    case = without_masks(case)
    arrays, options = case.arrays, case.options
    order = np.random.default_rng(seed).permutation(arrays["x"].shape[1])
    moved = {**arrays, "x": arrays["x"][:, order]}
    y, cache = STAGE.forward(harness.ENGINE, arrays, options)
    y_moved, cache_moved = STAGE.forward(harness.ENGINE, moved, options)
    dy = harness.upstream(y, seed)
    grads = STAGE.backward(harness.ENGINE, dy, cache, arrays)
    g_moved = STAGE.backward(harness.ENGINE, dy[:, order], cache_moved, moved)
    bound = harness.derive_bounds(STAGE, case, np.float64, dy)
    assert np.all(np.abs(y[:, order] - y_moved) <= 2 * bound["y"][:, order])
    assert np.all(np.abs(grads["x"][:, order] - g_moved["x"]) <= 2 * bound["x"][:, order])
    for name in set(arrays) - {"x"}:
        assert np.all(np.abs(grads[name] - g_moved[name]) <= 2 * bound[name])


@given(case=composite_cases("multi_head"))
def test_heads_split_and_merge(case):
    split, merge = (harness.stage_function(harness.ENGINE, f"{verb}_heads") for verb in ("split", "merge"))
    x, heads = case.arrays["x"], case.options["config"].num_heads
    parts = split(x, heads)
    assert np.array_equal(merge(parts), x)
    for h in range(heads):
        width = x.shape[2] // heads
        assert np.array_equal(parts[:, h], x[:, :, h * width : (h + 1) * width])
    assert np.array_equal(torch_vit.split_heads(torch.from_numpy(x), heads).numpy(), parts)
    assert np.array_equal(torch_vit.merge_heads(torch.from_numpy(parts.copy())).numpy(), x)
