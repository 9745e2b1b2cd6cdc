"""What must hold of a variant whatever the numbers: unused inputs have no gradient, rotations keep lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests.algebra import output_shape, run
from parity_tests.choices import drawn_cases
from parity_tests.strategies import Case, normal, seeds
from parity_tests.tolerances import gamma, unit_roundoff
from parity_tests.variant_cases import CASES
from parity_tests.variants import VARIANTS


def results(name: str, case: Case, seed: int):
    dy = normal(seed, output_shape(VARIANTS[name], case))
    return dy, *run(VARIANTS[name], case, dy)


@given(case=VARIANTS["patch_dropout"].cases, seed=seeds)
def test_a_patch_left_out_has_no_gradient(case, seed):
    _, _, grads = results("patch_dropout", case, seed)
    assert not grads["x"][:, case.options["prefix"] :][~case.options["mask"]].any()


@given(case=VARIANTS["token_stem"].cases, seed=seeds)
def test_a_patch_left_out_of_the_stem_has_no_gradient(case, seed):
    _, _, grads = results("token_stem", case, seed)
    mask = case.options["masks"].get("patch_drop")
    assert mask is None or not grads["x"][~mask].any()


@given(case=VARIANTS["mask_tokens"].cases, seed=seeds)
def test_a_mask_token_that_stands_nowhere_has_no_gradient(case, seed):
    dy, y, grads = results("mask_tokens", case, seed)
    hidden = dy[:, case.options["prefix"] :][~case.options["mask"]]
    assert hidden.size or not grads["mask_token"].any()
    seen = y[:, case.options["prefix"] :][case.options["mask"]]
    assert np.array_equal(seen.reshape(-1), case.arrays["x"][:, case.options["prefix"] :].reshape(-1))


@given(case=VARIANTS["mae_loss"].cases, seed=seeds)
def test_a_patch_that_was_seen_does_not_count(case, seed):
    """Neither its prediction nor its pixels."""
    _, loss, grads = results("mae_loss", case, seed)
    mask = case.options["mask"]
    assert not grads["prediction"][mask].any()
    moved = case.arrays["prediction"] + np.where(mask, 7.0, 0.0)[:, :, None]
    again = run(VARIANTS["mae_loss"], case._replace(arrays={**case.arrays, "prediction": moved}), np.asarray(1.0))[0]
    assert again == loss


@given(case=VARIANTS["token_pool"].cases, seed=seeds)
def test_tokens_that_are_not_pooled_have_no_gradient(case, seed):
    dx = results("token_pool", case, seed)[2]["x"]
    pool, start = case.options["pool"], 0 if case.options["include_prefix"] else case.options["prefix"]
    unread = np.ones(dx.shape[1], bool)
    unread[start:] = pool in ("cls", "cls_dist")
    unread[: {"cls": 1, "cls_mean": 1, "cls_dist": 2, "none": len(unread)}.get(pool, 0)] = False
    assert not dx[:, unread].any()
    if pool == "max":
        part = case.arrays["x"][:, start:]
        assert not dx[:, start:][part < part.max(axis=1, keepdims=True)].any()


@given(case=VARIANTS["relu"].cases, seed=seeds)
def test_what_relu_cuts_has_no_gradient(case, seed):
    assert not results("relu", case, seed)[2]["x"][case.arrays["x"] <= 0].any()


@given(case=VARIANTS["patch_stem"].cases, seed=seeds)
def test_cropped_pixels_have_no_gradient(case, seed):
    config, dx = case.options["config"], results("patch_stem", case, seed)[2]["x"]
    used = [n * p for n, p in zip(config.grid_size, config.patch_size, strict=True)]
    assert not dx[:, :, used[0] :].any()
    assert not dx[:, :, :, used[1] :].any()


@given(case=VARIANTS["biased_attention"].cases, seed=seeds)
def test_a_key_that_no_query_may_read_has_no_gradient(case, seed):
    """A bias of -inf: probability exactly 0, whatever the key and the value say."""
    keys = case.arrays["k"].shape[2]
    if keys == 1:
        return
    bias = np.zeros((1, 1, case.arrays["q"].shape[2], keys))
    bias[..., 0] = -np.inf
    arrays = {n: case.arrays[n] for n in "qkv"}
    _, y, grads = results("biased_attention", Case({**arrays, "bias": bias}, case.options), seed)
    for name in "kv":
        assert not grads[name][:, :, 0].any()
    assert not grads["bias"][..., 0].any()
    rng = np.random.default_rng(seed)
    other = {n: np.concatenate([rng.normal(size=a[:, :, :1].shape), a[:, :, 1:]], 2) if n in "kv" else a
             for n, a in arrays.items()}  # fmt: skip
    again = results("biased_attention", Case({**other, "bias": bias}, case.options), seed)[1]
    assert np.array_equal(y, again)


@given(data=st.data(), seed=seeds)
def test_a_rotation_keeps_lengths_and_its_adjoint_turns_back(data, seed):
    case = data.draw(drawn_cases(CASES["rope"]))
    angles = np.arctan2(case.arrays["sin"], case.arrays["cos"])
    arrays = {"x": case.arrays["x"], "sin": np.sin(angles), "cos": np.cos(angles)}
    stage = VARIANTS["rope"]
    y, cache = stage.forward(__import__("numpy_vit"), arrays, case.options)
    back = stage.backward(__import__("numpy_vit"), y, cache, arrays)["x"]
    size = np.sqrt(np.square(arrays["x"]).sum(-1, keepdims=True))
    bound = 8 * gamma(4, unit_roundoff(np.float64)) * size  # two rotations of two products and a sum, and the factors
    assert np.all(np.abs(back - arrays["x"]) <= bound)
    assert np.all(np.abs(np.sqrt(np.square(y).sum(-1, keepdims=True)) - size) <= bound + 8e-16 * size * y.shape[-1])


@given(data=st.data(), seed=seeds)
def test_pooling_does_not_see_the_order_of_the_tokens(data, seed):
    case = data.draw(VARIANTS["attention_pool"].cases)
    order = np.random.default_rng(seed).permutation(case.arrays["x"].shape[1])
    moved = case._replace(arrays={**case.arrays, "x": case.arrays["x"][:, order]})
    from parity_tests import harness
    from parity_tests.algebra import close

    stage = VARIANTS["attention_pool"]
    dy, y, grads = results("attention_pool", case, seed)
    y_moved, g_moved = run(stage, moved, dy)
    bound = harness.derive_bounds(stage, case, np.float64, dy)
    close(stage, "y", y_moved, y, bound["y"])
    close(stage, "gradient of x", g_moved["x"], grads["x"][:, order], bound["x"][:, order])


def test_grouped_heads_of_one_group_are_not_copied_twice():
    """Every head of its own group: the identity, forward and backward."""
    x = normal(0, (2, 3, 4, 5))
    y, grads = run(VARIANTS["grouped_query"], Case({"x": x}, {"num_heads": 3}), normal(1, x.shape))
    assert np.array_equal(y, x)
    assert np.array_equal(grads["x"], normal(1, x.shape))


@pytest.mark.parametrize("name", ["q1", "k1", "q2", "k2"])
def test_lambda_gets_no_gradient_when_the_second_attention_gives_nothing(name):
    """With values of zero the second attention is zero, and so is what lambda multiplies."""
    case = next(c for c in (drawn_example(i) for i in range(9)) if c.arrays["q"].size > 8)
    arrays = {**case.arrays, "v": np.zeros_like(case.arrays["v"])}
    _, _, grads = results("diff_attention", case._replace(arrays=arrays), 0)
    assert not grads[f"lambda_{name}"].any()


def drawn_example(seed: int) -> Case:
    from parity_tests.choices import Smallest

    return CASES["diff_attention"](Smallest(seed))
