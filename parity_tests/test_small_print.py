"""What a stage promises beside its numbers, and where numbers alone would not tell: found by changing the engines."""

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from numpy_vit.engine import NumpyEngine
from numpy_vit.resize_matrix import RULES
from parity_tests.strategies import normal
from parity_tests.trajectories import CONFIG, RECIPE, batches, initial
from torch_vit import packed_attention as packed
from torch_vit import to_torch
from vit_common import CheckpointError, ConfigError, DtypeError, ShapeError, ViTConfig, init_params

DIGITS = ViTConfig.preset("digits")
both_engines = pytest.mark.parametrize(("engine", "wrap"), [(numpy_vit, np.asarray), (torch_vit, torch.from_numpy)],
                                       ids=["numpy", "torch"])  # fmt: skip


@both_engines
def test_a_bias_of_masks_has_the_dtype_asked_for(engine, wrap):
    """Else a float32 run would compute in float64."""
    single = np.dtype("float32") if engine is numpy_vit else torch.float32
    mask, there = wrap(normal(0, (1, 1, 3, 3))), wrap(np.array([[True, False]]))
    for given in ((mask, None), (wrap(np.ones((3, 3), bool)), None), (None, there), (mask, there)):
        assert engine.attention_mask_bias(*given, 1, single).dtype == single


def test_positions_default_to_the_first_layer_and_none():
    ours, theirs = (engine.Positions._field_defaults for engine in (numpy_vit, torch_vit))
    assert ours == theirs == {"layer": 0, "sin": None, "cos": None, "bias": None, "grid": None}


ROTARY = [
    {"rope": "axial"}, {"rope": "axial", "rope_freqs": "pixel"}, {"rope": "dinov3"},
    *({"rope": "multimodal", "rope_section": s} for s in ((1, 2, 1), (2, 1, 1), (1, 1, 2), (0, 3, 3), (2, 2, 2))),
]  # fmt: skip


@pytest.mark.parametrize("fields", ROTARY, ids=str)
def test_rotary_tables_have_a_row_a_patch(fields):
    """A row more would pass for the class token's, at an angle of zero."""
    config = ViTConfig(image_size=(4, 6), patch_size=2, embed_dim=24, num_heads=2, **fields)
    for ours, theirs in zip(numpy_vit.rope_table(config), torch_vit.rope_table(config), strict=True):
        assert ours.shape == tuple(theirs.shape) == (1, 1, 6, 6)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=40 * np.finfo(float).eps)


@pytest.mark.parametrize("section", [(1, 2, 1), (2, 1, 1), (1, 1, 2), (0, 3, 3)])
def test_each_axis_turns_as_many_pairs_as_its_section_says(section):
    """Time, row, column in turn until an axis has had its share; pairs beyond turn by time, which a picture lacks."""
    config = ViTConfig(image_size=(4, 6), patch_size=2, embed_dim=24, num_heads=2, rope="multimodal",
                       rope_section=section)  # fmt: skip
    sin = numpy_vit.rope_table(config)[0][0, 0].reshape(2, 3, 6)
    by_row = [j for j in range(6) if np.any(sin[1, :, j] != sin[0, :, j])]
    by_column = [j for j in range(6) if np.any(sin[:, 1, j] != sin[:, 0, j])]
    assert by_row == [j for j in range(1, 6, 3) if j < 3 * section[1]]
    assert by_column == [j for j in range(2, 6, 3) if j < 3 * section[2]]


def test_kernels_end_at_their_radius():
    for name, (kernel, radius, *_) in RULES.items():
        beyond = radius + np.array([1e-9, 1e-3, 0.015, 0.5, 3.0])
        assert not kernel(beyond).any(), name
        assert kernel(np.array([0.0])).all(), name


@pytest.mark.parametrize("pool", ["cls", "none", "mean", "cls_mean", "cls_dist"])
def test_what_is_pooled_is_a_copy(pool):
    x = normal(0, (2, 4, 3))
    y, _ = numpy_vit.token_pool_forward(x, pool, 1)
    assert not np.shares_memory(x, y)


def test_numbers_and_lists_are_arrays_too():
    assert numpy_vit.erf(0.5) == numpy_vit.erf(np.array([0.5]))[0]
    y, cache = numpy_vit.gelu_forward([0.5, -1.0])
    np.testing.assert_array_equal(y, numpy_vit.gelu_forward(np.array([0.5, -1.0]))[0])
    assert numpy_vit.gelu_backward(np.ones(2), cache).shape == (2,)


def test_the_gradient_of_refined_pooling_has_the_width_of_its_output():
    _, cache = numpy_vit.refined_pool_forward(normal(0, (2, 3, 4)), 2, False)
    with pytest.raises(ShapeError, match=r"dy of refined_pool has shape \(2, 3\), expected \(2, 4\)"):
        numpy_vit.refined_pool_backward(normal(1, (2, 3)), cache)


# ---- prediction ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [numpy_vit.predict, numpy_vit.serve])
def test_prediction_checks_what_it_is_given(function):
    params, images = init_params(DIGITS, 0), np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(CheckpointError, match="missing"):
        function({n: p for n, p in params.items() if n != "norm.bias"}, images, DIGITS)
    with pytest.raises(CheckpointError, match="more"):
        function({**params, "more": images}, images, DIGITS)
    with pytest.raises(DtypeError):
        function(params, images.astype(np.float64), DIGITS)
    with pytest.raises(DtypeError):
        function(params, images.astype(np.int32), DIGITS)


def test_the_last_block_of_serving_gives_one_token():
    params, x = init_params(DIGITS, 0), normal(0, (2, DIGITS.num_tokens, DIGITS.embed_dim)).astype(np.float32)
    last = {n.removeprefix("blocks.0."): p for n, p in params.items() if n.startswith("blocks.0.")}
    assert importlib.import_module("numpy_vit.serve")._last_block(last, x, DIGITS).shape == (2, 1, DIGITS.embed_dim)
    block = torch_vit.EncoderBlock(DIGITS)
    block.load_state_dict(to_torch(last))
    y = importlib.import_module("torch_vit.serve")._last_block(block, torch.from_numpy(x))
    assert tuple(y.shape) == (2, 1, DIGITS.embed_dim)


# ---- the PyTorch modules ---------------------------------------------------------------------------------------


def scores_seen(model, images):
    with torch_vit.Tape(model) as tape:
        model(images)
    return any(name.endswith("scores") for name in tape.values)


def test_attention_is_fused_unless_weights_are_dropped():
    """A rate alone does not make a model that predicts write its scores out."""
    model = torch_vit.VisionTransformer(DIGITS.replace(attn_drop_rate=0.5))
    images = torch.zeros(1, 1, 8, 8)
    assert not scores_seen(model.eval(), images)
    assert scores_seen(model.train(), images)
    assert not scores_seen(torch_vit.VisionTransformer(DIGITS).train(), images)
    assert scores_seen(torch_vit.VisionTransformer(DIGITS, "explicit").eval(), images)


@pytest.mark.parametrize("fields", [{}, {"reg_tokens": 1}, {"pool": "map"}], ids=str)
def test_an_unknown_attention_path_is_refused(fields):
    with pytest.raises(ConfigError, match="attention='flash' is unknown; .*explicit"):
        torch_vit.VisionTransformer(DIGITS.replace(**fields), "flash")


def test_attention_with_a_bias_drops_nothing_unless_it_trains():
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 3, 4))) for i in range(3))
    assert torch.equal(torch_vit.biased_attention_forward(q, k, v, None, None, 0.5),
                       torch_vit.biased_attention_forward(q, k, v))  # fmt: skip


def test_the_fast_path_of_a_linear_layer_is_asked_about_input_and_weight(monkeypatch):
    asked = []
    monkeypatch.setattr("torch_vit.linear.fast_cpu.serves", lambda x, weight: asked.append((x, weight)))
    x, weight = torch.zeros(2, 3), torch.zeros(4, 3)
    torch_vit.linear_forward(x, weight, torch.zeros(4))
    assert asked[0][0] is x
    assert asked[0][1] is weight


def test_which_rows_of_segments_torchs_own_kernel_takes(monkeypatch):
    monkeypatch.setattr(packed, "HAS_VARLEN", True)

    def row(cuda=True, dtype=torch.bfloat16, batch=1, width=16):
        shape = batch, 2, 5, width
        return type("Row", (SimpleNamespace,), {"__len__": lambda _: batch})(is_cuda=cuda, dtype=dtype, shape=shape)

    assert packed.serves_varlen(row())
    assert packed.serves_varlen(row(dtype=torch.float16, width=24))
    for other in ({"cuda": False}, {"dtype": torch.float32}, {"batch": 2}, {"width": 20}, {"width": 21}, {"width": 17}):
        assert not packed.serves_varlen(row(**other)), other
    monkeypatch.setattr(packed, "HAS_VARLEN", False)
    assert not packed.serves_varlen(row())


def test_the_kernel_for_segments_is_called_as_it_is_documented(monkeypatch):
    """(T, NH, HD) each, where segments end, and the longest: here it is written out for the CPU."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no kernel for rows of segments")

    def written_out(q, k, v, ends_q, ends_k, most_q, most_k):
        assert ends_q is ends_k
        assert ends_q.dtype == torch.int32
        assert most_q == most_k == int(ends_q.diff().max())
        bounds = list(zip(ends_q.tolist()[:-1], ends_q.tolist()[1:], strict=True))
        assert (bounds[0][0], bounds[-1][1]) == (0, len(q))
        one = [torch_vit.attention_forward(*(t[a:b].transpose(0, 1)[None] for t in (q, k, v))) for a, b in bounds]
        return torch.cat([part[0].transpose(0, 1) for part in one])

    monkeypatch.setattr(varlen, "varlen_attn", written_out)
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 9, 8))) for i in range(3))
    want = torch_vit.packed_attention_forward(q, k, v, (2, 4, 3))
    monkeypatch.setattr(packed, "serves_varlen", lambda _: True)
    got = torch_vit.packed_attention_forward(q, k, v, (2, 4, 3))
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=1e3 * np.finfo(float).eps)


@both_engines
def test_packed_queries_keys_and_values_name_which_does_not_fit(engine, wrap):
    q, k, v = (wrap(normal(i, (1, 2, n, 4))) for i, n in enumerate((3, 3, 3)))
    with pytest.raises(ShapeError, match="^k has shape"):
        engine.packed_attention_forward(q, k[..., :2], v, (3,))
    with pytest.raises(ShapeError, match="^v has shape"):
        engine.packed_attention_forward(q, k, v[:, :1], (3,))


# ---- the NumPy engine as a whole -------------------------------------------------------------------------------


def started():
    engine = NumpyEngine()
    engine.start(CONFIG, initial(CONFIG, RECIPE), RECIPE)
    return engine


def test_an_infinite_gradient_of_a_finite_loss_is_not_taken(monkeypatch):
    engine, (first, *_) = started(), list(batches(CONFIG, RECIPE, 1))
    before = engine.state()
    for norm in (math.inf, math.nan):
        monkeypatch.setattr("numpy_vit.engine.clip_grad_norm", lambda grads, _, n=norm: (grads, n))
        engine.train_step(*first)
        after = engine.state()
        assert all(np.array_equal(before[n], after[n]) for n in before)
        engine.load_state(before)


def test_a_state_that_does_not_fit_says_what_it_is_and_what_was_expected():
    engine = started()
    state = engine.state()
    with pytest.raises(CheckpointError, match=r"params/norm.bias in the training state is float64 \(1,\), expected"):
        engine.load_state({**state, "params/norm.bias": np.zeros(1)})
