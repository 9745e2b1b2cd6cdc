"""The ladder: every rung is the stage, forward and backward, and the tiled one's memory grows with the tokens alone."""

import itertools
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ladder
from benchmarks.ladder.__main__ import arrays, peak_memory
from benchmarks.ladder.attention import blocked as blocked_attention
from benchmarks.ladder.attention import tiled
from benchmarks.ladder.layer_norm import blocked as blocked_norm
from parity_tests import harness
from parity_tests.strategies import Case, at_most, dtypes, normal
from vit_common import ViTConfig, init_params, sub

RUNGS = [(stage, name) for stage, names in ladder.LADDER.items() for name in names]


def example(stage: str, seed: int, batch: int, tokens: int, keys: int) -> Case:
    """Arguments of a stage, small: the loops are to finish."""
    if stage == "attention":
        shapes = {"q": (batch, 2, tokens, 4), "k": (batch, 2, keys, 4), "v": (batch, 2, keys, 4)}
    elif stage == "layer_norm":
        shapes = {"x": (batch, tokens, 6), "weight": (6,), "bias": (6,)}
    elif stage == "gelu":
        shapes = {"x": (batch, tokens, 5)}
    else:
        config = ViTConfig(image_size=4, patch_size=2, embed_dim=8, depth=1, num_heads=2, num_classes=3)
        params = sub(init_params(config, seed, np.float64), "blocks.0")
        noise = {name: p + normal(seed + i, p.shape) / 8 for i, (name, p) in enumerate(params.items())}
        return Case({"x": normal(seed, (batch, tokens, 8)), **noise}, {"config": config})
    options = {"eps": 1e-6} if stage == "layer_norm" else {}
    return Case({name: normal(seed + i, shape) for i, (name, shape) in enumerate(shapes.items())}, options)


def call(module, stage: str, case: Case, dtype):
    cast = {name: a.astype(dtype) for name, a in case.arrays.items()}
    forward, backward = (getattr(module, f"{stage}_{way}") for way in ("forward", "backward"))
    x = cast.pop("x", None)
    first = () if x is None else (x,)
    y, cache = forward(cast, x, case.options["config"]) if stage == "encoder_block" else forward(*first, *cast.values())
    return y, lambda dy: backward(dy.astype(dtype), cache)


@pytest.mark.parametrize(("stage", "name"), RUNGS)
@at_most(12)
@given(
    dtype=dtypes, seed=st.integers(0, 999), batch=st.integers(1, 3), tokens=st.integers(1, 9), keys=st.integers(1, 9)
)
def test_a_rung_is_the_stage(stage, name, dtype, seed, batch, tokens, keys):
    """Against float64 torch autograd, in the stage's own bound thrice: torch rounds too, and a rung in more steps."""
    case = example(stage, seed, batch, tokens, keys)
    y_true, g_true, dy = harness.run_torch(harness.STAGES[stage], case, np.float64, None, seed)
    bound = harness.derive_bounds(harness.STAGES[stage], case, dtype, dy)
    with pytest.MonkeyPatch.context() as patch:  # several tiles and blocks, the last of them ragged
        patch.setattr(tiled, "QUERIES", 3)
        patch.setattr(tiled, "KEYS", 2)
        patch.setattr(blocked_attention, "BLOCK", tokens * keys)
        patch.setattr(blocked_norm, "BLOCK", 12)
        y, backward = call(ladder.rung(stage, name), stage, case, dtype)
        result, again = backward(dy), backward(dy)
    got = dict(zip(case.arrays, result, strict=True)) if stage == "attention" else gradients(result)
    assert y.dtype == dtype
    harness.assert_within(f"{stage}, {name}", "y", dtype, y, y_true, 3 * bound["y"])
    assert got.keys() == g_true.keys()
    for tensor, g in got.items():
        assert g.dtype == dtype
        harness.assert_within(f"{stage}, {name}", tensor, dtype, g, g_true[tensor], 3 * bound[tensor])
    same = (np.array_equal(a, b) for a, b in zip(arrays(result), arrays(again), strict=True))
    assert all(same), "the cache was written to"


def gradients(result):
    return {"x": result[0], **result[1]} if isinstance(result, tuple) else {"x": result}


def test_a_wrong_rung_is_caught(monkeypatch):
    """Without the correction, sums begun under a lower maximum stay too large."""
    never = {**vars(np), "exp": lambda a, out=None: np.ones_like(a) if out is None else np.exp(a, out=out)}
    monkeypatch.setattr(tiled, "np", types.SimpleNamespace(**never))
    with pytest.raises(AssertionError, match="differs"):
        test_a_rung_is_the_stage.hypothesis.inner_test("attention", "tiled", np.float64, 3, 2, 7, 9)


def test_memory_of_tiles_is_linear_in_the_tokens():
    """Twice the tokens: twice the memory in tiles, four times where the scores are stored."""

    def peak(module, tokens):
        q, k, v, dy = (normal(i, (1, 2, tokens, 8)) for i in range(4))
        return peak_memory(lambda: module.attention_backward(dy, module.attention_forward(q, k, v)[1]))

    for name, most in (("tiled", 2.2), ("vectorised", 4.4)):
        module = ladder.rung("attention", name)
        sizes = [peak(module, tokens) for tokens in (512, 1024, 2048)]
        growth = [b / a for a, b in itertools.pairwise(sizes)]
        assert all(g <= most for g in growth), f"{name}: {sizes}"
        assert name == "tiled" or growth[-1] > 3, f"{name}: {sizes}"
