"""What a stage promises beside its numbers, and where numbers alone would not tell: found by changing the engines."""

import importlib
from functools import partial

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from numpy_vit.resize_matrix import RULES
from parity_tests.ends_bounds import rotary_error
from parity_tests.strategies import normal
from torch_vit import to_torch
from vit_common import CheckpointError, ConfigError, DtypeError, RangeError, ShapeError, ViTConfig, init_params

ENGINES = "numpy_vit", "torch_vit"
DIGITS = ViTConfig.preset("digits")
both_engines = pytest.mark.parametrize(("engine", "wrap"), [(numpy_vit, np.asarray), (torch_vit, torch.from_numpy)],
                                       ids=["numpy", "torch"])  # fmt: skip


@both_engines
def test_a_bias_of_masks_has_the_dtype_asked_for(engine, wrap):
    """Else a float32 run would compute in float64."""
    mask, there = wrap(normal(0, (1, 1, 3, 3))), wrap(np.array([[True, False]]))
    for name in ("float32", "float64"):
        dtype = np.dtype(name) if engine is numpy_vit else getattr(torch, name)
        for given in ((mask, None), (wrap(np.ones((3, 3), bool)), None), (None, there), (mask, there)):
            assert engine.attention_mask_bias(*given, 1, dtype).dtype == dtype


@both_engines
def test_a_mask_adds_nothing_where_it_lets_through(engine, wrap):
    double = np.dtype("float64") if engine is numpy_vit else torch.float64
    allowed, there = np.tri(3, dtype=bool), np.array([[True, False]])
    for given, want in (((allowed, None), allowed), ((None, there), [[True, True, False]])):
        bias = engine.attention_mask_bias(*(g if g is None else wrap(g) for g in given), 1, double)
        np.testing.assert_array_equal(np.asarray(bias)[0, 0], np.where(want, 0.0, -np.inf))


def test_masks_let_complex_numbers_through():
    """The complex step goes through them too."""
    config = DIGITS.replace(pool="cls", reg_tokens=1)
    params = {n: p.astype(complex) for n, p in init_params(config, 0, np.float64).items()}
    masks = {"attn_mask": np.tri(config.num_tokens, dtype=bool), "padding_mask": np.ones((1, config.num_patches), bool)}
    logits, _ = numpy_vit.vit_forward(params, normal(0, (1, 1, 8, 8)) + 0j, config, masks)
    assert np.isfinite(logits).all()


@both_engines
@pytest.mark.parametrize("dropping", [False, True])
def test_one_mask_holds_for_all_images_and_heads(engine, wrap, dropping):
    config = DIGITS.replace(pool="cls", image_size=(6, 8))  # twelve patches: each image keeps eight
    params = {n: wrap(p) for n, p in init_params(config, 0).items()}
    images = wrap(normal(0, (2, 1, 6, 8)).astype(np.float32))
    mask = np.tri(config.num_tokens, dtype=bool)
    drop = {"patch_drop": wrap(np.arange(2 * config.num_patches).reshape(2, -1) % 3 > 0)} if dropping else {}
    run = partial(engine.vit_forward, params, images, config)
    both = [run({"attn_mask": wrap(m), **drop}) for m in (mask, mask[None, None])]
    first, second = (y[0] if engine is numpy_vit else y for y in both)
    assert (first == second).all()


def test_positions_default_to_the_first_layer_and_none():
    for engine in (numpy_vit, torch_vit):
        assert engine.block_bias_forward(None, DIGITS, engine.Positions()) in (None, (None, None))
        assert engine.Positions() == (0, None, None, None, None)


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
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2 * rotary_error(config))


@pytest.mark.parametrize("section", [(1, 2, 1), (2, 1, 1), (1, 1, 2), (0, 3, 3), (3, 2, 2)])
def test_each_axis_turns_as_many_pairs_as_its_section_says(section):
    """Time, row, column in turn until an axis has had its share; pairs beyond turn by time, which a picture lacks."""
    config = ViTConfig(image_size=(4, 6), patch_size=2, embed_dim=40, num_heads=2, rope="multimodal",
                       rope_section=section)  # fmt: skip
    for engine in (numpy_vit, torch_vit):
        sin = np.asarray(engine.rope_table(config)[0])[0, 0].reshape(2, 3, 10)
        by_row = [j for j in range(10) if np.any(sin[1, :, j] != sin[0, :, j])]
        by_column = [j for j in range(10) if np.any(sin[:, 1, j] != sin[:, 0, j])]
        assert by_row == [j for j in range(1, 10, 3) if j < 3 * section[1]]
        assert by_column == [j for j in range(2, 10, 3) if j < 3 * section[2]]


def test_kernels_end_at_their_radius():
    for name, (kernel, radius, *_) in RULES.items():
        beyond = radius + np.array([1e-9, 1e-3, 0.015, 0.5, 3.0])
        assert not kernel(beyond).any(), name
        assert kernel(np.array([0.0])).all(), name


@pytest.mark.parametrize("pool", ["cls", "none", "mean", "cls_mean", "cls_dist"])
def test_what_is_pooled_is_a_copy(pool):
    x = normal(0, (2, 4, 3))
    y, cache = numpy_vit.token_pool_forward(x, pool, 1)
    assert not np.shares_memory(x, y)
    dy = normal(1, y.shape)
    assert not np.shares_memory(dy, numpy_vit.token_pool_backward(dy, cache))


def test_numbers_and_lists_are_arrays_too():
    assert numpy_vit.erf(0.5) == numpy_vit.erf(np.array([0.5]))[0]
    y, cache = numpy_vit.gelu_forward([0.5, -1.0])
    np.testing.assert_array_equal(y, numpy_vit.gelu_forward(np.array([0.5, -1.0]))[0])
    assert numpy_vit.gelu_backward(np.ones(2), cache).shape == (2,)


def test_the_gradient_of_refined_pooling_has_the_width_of_its_output():
    _, cache = numpy_vit.refined_pool_forward(normal(0, (2, 3, 4)), 2, False)
    with pytest.raises(ShapeError, match=r"dy of refined_pool has shape \(2, 3\), expected \(2, 4\)"):
        numpy_vit.refined_pool_backward(normal(1, (2, 3)), cache)


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


@both_engines
def test_the_first_label_out_of_range_is_named(engine, wrap):
    with pytest.raises(RangeError, match=r"label 7 is outside 0..2"):
        engine.cross_entropy_forward(wrap(normal(0, (3, 3))), wrap(np.array([0, 7, 9])))


def test_labels_are_not_looked_at_while_a_step_is_compiled(monkeypatch):
    """It would end the compiled graph; torch's own kernel refuses them."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(IndexError, match="out of bounds"):
        torch_vit.cross_entropy_forward(torch.zeros(1, 3), torch.tensor([7]))


@both_engines
def test_a_number_has_no_axis_to_multiply(engine, wrap):
    for inputs in (0, 1):
        with pytest.raises(ShapeError, match="linear weight"):
            engine.linear_forward(wrap(np.array(1.0)), wrap(np.ones((2, inputs))), wrap(np.ones(2)))


@both_engines
def test_nothing_is_pooled_of_no_tokens(engine, wrap):
    for pool in ("cls", "mean"):
        with pytest.raises(ConfigError, match="over 0 tokens"):
            engine.pool_forward(wrap(np.ones((2, 0, 3))), pool, 0)


@both_engines
def test_patches_are_cut_of_a_batch_of_images(engine, wrap):
    for shape in ((3, 4, 4), (4, 4), (1, 1, 3, 4, 4)):
        with pytest.raises(ShapeError, match="images"):
            engine.patchify(wrap(np.zeros(shape)), (2, 2))


@both_engines
def test_attention_and_positions_take_what_they_say(engine, wrap):
    q, k, v = (wrap(normal(i, (1, 2, 3, 4))) for i in range(3))
    attend = [engine.attention_forward] if engine is numpy_vit else [engine.attention_forward,
                                                                     engine.fused_attention_forward]  # fmt: skip
    for function in attend:
        for wrong in ((q[0], k[0], v[0]), (q, k[:, :1], v), (q, k, v[:, :, :2])):
            with pytest.raises(ShapeError):
                function(*wrong)
    with pytest.raises(ShapeError, match="x of pos_embed"):
        engine.pos_embed_forward(q[0, 0], q[:, 0])


def test_a_variant_takes_images_of_its_parameters_dtype():
    config = DIGITS.replace(reg_tokens=1)
    with pytest.raises(DtypeError):
        numpy_vit.vit_forward(init_params(config, 0), np.zeros((1, 1, 8, 8)), config)


@both_engines
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (1, 1, 2, 3), (2, 1, 3, 3)])
def test_a_bias_of_scores_has_four_axes_that_fit(engine, wrap, shape):
    q = wrap(normal(0, (1, 2, 3, 4)))
    with pytest.raises(ShapeError, match="attention bias"):
        engine.biased_attention_forward(q, q, q, wrap(normal(1, shape)))


@both_engines
@pytest.mark.parametrize("beside", [{}, {"patch_drop": np.ones((2, 4), bool)}], ids=["alone", "beside patch dropout"])
@pytest.mark.parametrize(("name", "shape"), [("attn_mask", (3, 1, 6, 6)), ("padding_mask", (3, 4)),
                                             ("padding_mask", (1, 4)), ("patch_drop", (1, 4)),
                                             ("patch_drop", (2, 3))])  # fmt: skip
def test_masks_are_of_as_many_images_as_there_are(engine, wrap, beside, name, shape):
    masks = {**beside, name: np.ones(shape, bool)}
    masks_of_kept = importlib.import_module(f"{engine.__name__}.attention_mask").masks_of_kept
    with pytest.raises(ShapeError, match=name):
        masks_of_kept({n: wrap(m) for n, m in masks.items()}, 2, 4, 2)


@both_engines
def test_the_mask_of_an_autoencoder_is_of_bool(engine, wrap):
    """~1 is -2: weights that no patch has."""
    patches, images = wrap(normal(0, (1, 4, 12))), wrap(normal(1, (1, 3, 4, 4)))
    with pytest.raises(DtypeError, match="seen"):
        engine.mae_loss_forward(patches, images, wrap(np.array([[1, 0, 0, 1]])), (2, 2))


@both_engines
def test_refined_pooling_takes_three_axes(engine, wrap):
    with pytest.raises(ShapeError, match="x of refined_pool"):
        engine.refined_pool_forward(wrap(normal(0, (3, 4))), 2, False)


@pytest.mark.parametrize("count", [1, 2, 5, 13])
@pytest.mark.parametrize("reach", [1, 3, 9, 27])
def test_both_engines_lay_old_displacements_at_the_same_places(count, reach):
    """The same ratio; at most `count` positive terms are summed, each a power within 2u."""
    ours, theirs = (importlib.import_module(f"{e}.table_resize").series_places(count, reach) for e in ENGINES)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2 * (count + 2) * np.finfo(float).eps / 2)
