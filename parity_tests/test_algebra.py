"""Oracle 3, every stage: batches, sums of upstream gradients, the order of tokens, inputs that are not used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests import harness
from parity_tests.algebra import check_additive, check_batch, check_token_order, run
from parity_tests.strategies import Case, composite_cases, dropout_cases, layer_norm_cases, normal, seeds

every_stage = pytest.mark.parametrize("name", harness.STAGES)


@every_stage
@given(data=st.data(), seed=seeds)
def test_a_batch_is_its_images(name, data, seed):
    check_batch(harness.STAGES[name], data.draw(harness.STAGES[name].cases), seed)


@every_stage
@given(data=st.data(), seed=seeds)
def test_additive_in_upstream(name, data, seed):
    check_additive(harness.STAGES[name], data.draw(harness.STAGES[name].cases), seed)


@pytest.mark.parametrize("name", ["multi_head", "mlp", "encoder_block", "encoder"])
@given(data=st.data(), seed=seeds)
def test_permuting_tokens_permutes_everything(name, data, seed):
    check_token_order(harness.STAGES[name], data.draw(harness.STAGES[name].cases), seed)


# ---- gradients of what is not used are exactly zero ------------------------------------------------------------


@given(case=dropout_cases(), seed=seeds)
def test_dropped_numbers_have_no_gradient(case, seed):
    dx = run(harness.STAGES["dropout"], case, normal(seed, case.arrays["x"].shape))[1]["x"]
    mask = case.options["mask"]
    assert mask is None or not dx[~mask].any()


@given(case=composite_cases("vit"), seed=seeds)
def test_patches_that_no_block_reads_have_no_gradient(case, seed):
    """Class pooling without blocks: the image does not reach the logits."""
    config = case.options["config"].replace(depth=0, class_token=True, pool="cls")
    arrays = {n: a for n, a in case.arrays.items() if not n.startswith("blocks.")}
    arrays.setdefault("cls_token", normal(seed, (1, 1, config.embed_dim)))
    if "pos_embed" in arrays:
        arrays["pos_embed"] = normal(seed, (1, config.num_tokens, config.embed_dim))
    bare = Case(arrays, {"config": config, "masks": None})
    shape = len(arrays["x"]), config.num_classes or config.embed_dim
    grads = run(harness.STAGES["vit"], bare, normal(seed, shape))[1]
    assert not grads["x"].any()
    assert not grads["patch_embed.proj.weight"].any()
    assert not grads["patch_embed.proj.bias"].any()
    if "pos_embed" in grads:
        assert not grads["pos_embed"][:, 1:].any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5)])
def test_a_single_key_is_read_whatever_it_says(shape):
    """One key: its probability is 1, so neither query nor key has a gradient."""
    batch, heads, _, dim = shape
    q, k, v = normal(0, shape), normal(1, (batch, heads, 1, dim)), normal(2, (batch, heads, 1, dim))
    dy = normal(3, shape)
    y, grads = run(harness.STAGES["attention"], Case({"q": q, "k": k, "v": v}, {}), dy)
    assert np.array_equal(y, np.broadcast_to(v, shape))
    assert not grads["q"].any()
    assert not grads["k"].any()


def test_a_single_class_has_no_gradient():
    case = Case({"x": normal(0, (3, 1))}, {"labels": np.zeros(3, int), "label_smoothing": 0.0})
    loss, grads = run(harness.STAGES["cross_entropy"], case, np.asarray(0.7))
    assert loss == 0
    assert not grads["x"].any()


def test_a_row_of_one_number_has_no_gradient():
    """LayerNorm of width one is its bias."""
    case = Case({"x": normal(0, (3, 1)), "weight": normal(1, (1,)), "bias": normal(2, (1,))}, {"eps": 1e-6})
    y, grads = run(harness.STAGES["layer_norm"], case, normal(3, (3, 1)))
    assert np.array_equal(y, np.broadcast_to(case.arrays["bias"], (3, 1)))
    assert not grads["x"].any()
    assert not grads["weight"].any()


@given(case=layer_norm_cases(), seed=seeds)
def test_the_gradient_of_layer_norm_is_orthogonal_to_its_rows(case, seed):
    r"""Without eps, y(cx) = y(x), so $\langle dx, x \rangle = 0$: with it, the share $\varepsilon r^2$ remains."""
    stage, eps = harness.STAGES["layer_norm"], case.options["eps"]
    dy = normal(seed, case.arrays["x"].shape)
    dx = run(stage, case, dy)[1]["x"]
    x, weight = case.arrays["x"], case.arrays["weight"]
    centred = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((centred**2).mean(-1) + eps)
    remains = eps * rstd**3 * (dy * weight * centred).sum(-1)
    bound = harness.derive_bounds(stage, case, np.float64, dy)["x"]
    size = np.abs(centred) + np.abs(x).max(-1, keepdims=True) * np.finfo(np.float64).eps * x.shape[-1]
    slack = 2 * (bound * size).sum(-1) + np.finfo(np.float64).eps * x.shape[-1] * (np.abs(dx) * np.abs(x).max()).sum(-1)
    assert np.all(np.abs((dx * centred).sum(-1) - remains) <= slack + 32 * np.finfo(np.float64).eps * np.abs(remains))
