"""What a stage promises beside its numbers, and where numbers alone would not tell: found by changing the engines."""

import importlib
import inspect
import math
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from numpy_vit.data_parallel import parallel_loss_and_grads
from numpy_vit.engine import NumpyEngine
from numpy_vit.resize_matrix import RULES
from parity_tests.strategies import normal
from parity_tests.trajectories import CONFIG, RECIPE, batches, initial
from parity_tests.variants import close
from torch_vit import to_torch
from torch_vit.branch import make_mlp
from torch_vit.engine import TorchEngine
from torch_vit.mae import Mae
from torch_vit.multi_head import ManualMultiHead
from torch_vit.patch_dropout import random_mask
from vit_common import CheckpointError, ConfigError, DtypeError, RangeError, ShapeError, ViTConfig, init_params
from vit_common.mae_config import MaeConfig, init_mae_params, mae_mask

ENGINES = "numpy_vit", "torch_vit"
DIGITS = ViTConfig.preset("digits")
packed = importlib.import_module("torch_vit.packed_attention")
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
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=40 * np.finfo(float).eps)


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


def test_nothing_is_dropped_at_random_unless_it_trains():
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 3, 4))) for i in range(3))
    attend = torch_vit.biased_attention_forward
    assert torch.equal(attend(q, k, v, drop_rate=0.5), attend(q, k, v))
    config = DIGITS.replace(attention="diff", embed_dim=8, num_heads=2, depth=1)
    lambdas = to_torch({n.removeprefix("blocks.0.attn."): p for n, p in init_params(config, 0, np.float64).items()
                        if "attn.lambda" in n or "attn.sub_norm" in n})  # fmt: skip
    q, k, v = (torch.from_numpy(normal(i, (1, n, 3, 2 if n == 4 else 4))) for i, n in enumerate((4, 4, 2)))
    attend = partial(torch_vit.diff_attention_forward, lambdas, q, k, v, 0)
    assert torch.equal(attend(drop_rate=0.5), attend())


def test_a_branch_drops_no_path_that_no_mask_drops():
    config = DIGITS.replace(reg_tokens=1)
    params = {n.removeprefix("blocks.0."): torch.from_numpy(p) for n, p in init_params(config, 0).items()}
    names = torch_vit.BranchNames("norm2", "mlp", "ls2.gamma", "drop_path2")
    x = torch.from_numpy(normal(0, (8, 3, config.embed_dim))).float()
    run = partial(torch_vit.branch_forward, params, x, config, names, torch_vit.Positions())
    assert run(0.0, {}).abs().amin(dim=(1, 2)).all()  # each image has a branch to lose
    assert torch.equal(run(0.5, {}), run(0.0, {}))


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
    q, k, v = (wrap(normal(i, (1, 2, 3, 4))) for i in range(3))
    with pytest.raises(ShapeError, match=r"^q has shape \(2, 3, 4\)"):
        engine.packed_attention_forward(q[0], k, v, (3,))
    with pytest.raises(ShapeError, match=r"^k has shape \(1, 2, 3, 2\), expected \(1, 2, \w+, 4\)"):
        engine.packed_attention_forward(q, k[..., :2], v, (3,))
    with pytest.raises(ShapeError, match=r"^v has shape \(1, 1, 3, 4\), expected \(1, 2, 3, \w+\)"):
        engine.packed_attention_forward(q, k, v[:, :1], (3,))
    longer = [wrap(normal(i, (1, 2, 4, 4))) for i in range(2)]  # as long as asked for, once it is cut into segments
    for row in ((q, longer[0], v), (q, k, longer[1]), (q, *longer)):
        with pytest.raises(ShapeError):
            engine.packed_attention_forward(*row, (3,))
    with pytest.raises(ShapeError, match="each has at least one"):
        engine.packed_attention_forward(q[:, :, :0], k[:, :, :0], v[:, :, :0], ())


@both_engines
def test_packed_positions_and_logits_have_the_images_dtype(engine, wrap):
    config = ViTConfig(image_size=4, patch_size=2, embed_dim=8, num_heads=2, depth=1, pos_embed="sincos_2d")
    params = {n: wrap(p) for n, p in init_params(config, 0).items()}
    images = [wrap(np.zeros((3, 4, n), np.float32)) for n in (4, 2)]
    logits = engine.packed_forward(params, images, config)
    assert (logits[0] if engine is numpy_vit else logits).dtype == images[0].dtype
    parts = importlib.import_module(f"{engine.__name__}.packed_tokens")
    if engine is numpy_vit:
        positions, _ = parts.grid_positions(params, (2, 2), config, np.dtype("float32"))
    else:
        positions = parts.grid_positions(params, (2, 2), config)
    assert positions.dtype == images[0].dtype
    with pytest.raises(CheckpointError, match="missing"):
        engine.packed_forward({n: p for n, p in params.items() if n != "norm.bias"}, images, config)


def test_positions_of_a_masked_autoencoder_have_the_images_dtype():
    encoder = ViTConfig(image_size=8, patch_size=4, num_classes=0, embed_dim=8, depth=1, num_heads=2,
                        pos_embed="sincos_2d")  # fmt: skip
    config = MaeConfig(encoder, decoder_dim=8, decoder_depth=1, decoder_heads=2)
    model = Mae(config)
    model.load_state_dict(to_torch(init_mae_params(config, 0)))
    loss, prediction = model(torch.zeros(2, 3, 8, 8), torch.from_numpy(mae_mask(config, 2, 0, 0)))
    assert loss.dtype == prediction.dtype == torch.float32


@pytest.mark.parametrize("fields", [{}, {"mlp": "glu"}, {"mlp": "glu_packed"}], ids=str)
def test_an_mlp_drops_at_random_in_train_mode_without_masks(fields):
    config = DIGITS.replace(proj_drop_rate=0.5, **fields)
    mlp, x = make_mlp(config), torch.ones(2, 5, config.embed_dim)
    for p in mlp.parameters():
        torch.nn.init.normal_(p)
    assert not torch.equal(mlp.train()(x), mlp(x))
    assert torch.equal(mlp(x, {}), mlp(x, {}))
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_the_backward_by_hand_is_used_unless_weights_are_dropped(monkeypatch):
    calls = []
    real = ManualMultiHead.apply
    monkeypatch.setattr(ManualMultiHead, "apply", lambda *a: calls.append(1) or real(*a))
    model = torch_vit.VisionTransformer(DIGITS.replace(attn_drop_rate=0.5), "manual")
    model.eval()(torch.zeros(1, 1, 8, 8))
    assert len(calls) == DIGITS.depth
    model.train()(torch.zeros(1, 1, 8, 8))
    assert len(calls) == DIGITS.depth


def test_biased_attention_is_fused_unless_weights_are_dropped_or_looked_at(monkeypatch):
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr("torch_vit.biased_attention.F.scaled_dot_product_attention",
                        lambda *a, **k: calls.append(1) or real(*a, **k))  # fmt: skip
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 3, 4))) for i in range(3))
    for options, fused in (({}, 1), ({"drop_rate": 0.5}, 1), ({"training": True}, 1), ({"tap": lambda _, t: t}, 0),
                           ({"drop_rate": 0.5, "training": True}, 0),
                           ({"drop_mask": torch.ones(1, 2, 3, 3, dtype=torch.bool)}, 0)):  # fmt: skip
        calls.clear()
        torch_vit.biased_attention_forward(q, k, v, **{"tap": None, **options})
        assert len(calls) == fused, options


def test_masks_and_copies_are_made_where_they_are_asked_for():
    closed = importlib.import_module("torch_vit.attention_mask")._closed
    assert closed(torch.ones(2, dtype=torch.bool, device="meta"), torch.float32).device.type == "meta"
    assert to_torch({"a": np.zeros(2)}, "meta")["a"].device.type == "meta"


def test_how_many_patches_torch_keeps():
    assert set(random_mask(3, 100, 0.5, torch.device("cpu")).sum(dim=1).tolist()) == {50}


def test_a_missing_parameter_is_named():
    params = to_torch(init_params(DIGITS, 0))
    del params["norm.bias"]
    with pytest.raises(CheckpointError, match="missing"):
        torch_vit.vit_forward(params, torch.zeros(1, 1, 8, 8), DIGITS)


def test_an_optimizers_result_has_no_history():
    params, grads = ({n: torch.ones(2, requires_grad=True) for n in "ab"} for _ in range(2))
    for name in ("sgd", "adamw"):
        state = getattr(torch_vit, f"{name}_init")(params)
        new, state = getattr(torch_vit, f"{name}_step")(params, grads, state, lr=0.1)
        held = [*new.values(), *(t for field in state if isinstance(field, dict) for t in field.values())]
        assert not any(t.requires_grad for t in held)


def test_the_kernel_for_segments_is_given_where_its_input_is(monkeypatch):
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no kernel for rows of segments")
    seen = []
    monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v, *rest: seen.extend(rest) or q)
    monkeypatch.setattr(packed, "serves_varlen", lambda _: True)
    q = torch.empty(1, 2, 5, 8, device="meta")
    torch_vit.packed_attention_forward(q, q, q, (2, 3))
    assert [ends.device.type for ends in seen[:2]] == ["meta", "meta"]


def test_packed_tokens_have_the_patches_dtype():
    """Under autocast the projection gives 16 bits, and the class token has 32."""
    config = ViTConfig(image_size=4, patch_size=2, embed_dim=8, num_heads=2, depth=1, pos_embed="none")
    params, images = to_torch(init_params(config, 0)), [torch.zeros(3, 4, 4), torch.zeros(3, 2, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch_vit.packed_tokens_forward(params, images, config).dtype == torch.bfloat16


def test_the_kernel_for_segments_is_looked_for_under_its_name():
    assert not packed.serves_varlen(torch.zeros(1, 1, 2, 8))  # on the CPU there is none
    assert (tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)) == packed.HAS_VARLEN


# ---- the NumPy engine as a whole -------------------------------------------------------------------------------


def started(recipe=RECIPE):
    engine = NumpyEngine()
    engine.start(CONFIG, initial(CONFIG, recipe), recipe)
    return engine


@pytest.mark.parametrize("which", ["norm", "loss"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_loss_or_gradient_is_not_taken(which, value, monkeypatch):
    engine, (first, *_) = started(), list(batches(CONFIG, RECIPE, 1))
    before = {n: a.copy() for n, a in engine.state().items()}
    if which == "norm":
        monkeypatch.setattr("numpy_vit.engine.clip_grad_norm", lambda grads, _: (grads, value))
    else:
        zeros = {n: np.zeros_like(p) for n, p in engine.params().items()}
        monkeypatch.setattr("numpy_vit.engine.parallel_loss_and_grads", lambda *_: (value, zeros))
    engine.train_step(*first)
    assert all(np.array_equal(before[n], after) for n, after in engine.state().items())


def test_a_state_is_a_copy():
    engine, (first, *_) = started(), list(batches(CONFIG, RECIPE, 1))
    engine.train_step(*first)
    own = [*engine._params.values(), *engine._optim.m.values(), *engine._optim.v.values()]
    given = [*engine.state().values(), *engine.params().values()]
    assert not any(np.shares_memory(a, b) for a in own for b in given)


@pytest.mark.parametrize("changes", [{"beta1": 0.5}, {"beta2": 0.9}, {"optimizer": "sgd", "momentum": 0.3}], ids=str)
def test_the_recipes_own_numbers_are_used(changes):
    """Against torch, which reads the same recipe."""
    recipe, states = RECIPE.replace(**changes), []
    for make in (NumpyEngine, TorchEngine):
        engine = make()
        engine.start(CONFIG, initial(CONFIG, recipe), recipe)
        for batch in batches(CONFIG, recipe, 3):
            engine.train_step(*batch)
        states.append({n: a for n, a in engine.state().items() if n != "optim/step"})
    close(*states, np.float64, True)


def test_defaults_are_float32_and_no_smoothing():
    engine = NumpyEngine()
    engine.load(DIGITS, init_params(DIGITS, 0, np.float64))
    assert {p.dtype for p in engine.params().values()} == {np.dtype("float32")}
    for function in (parallel_loss_and_grads, NumpyEngine.trace, TorchEngine.trace):
        assert inspect.signature(function).parameters["label_smoothing"].default == 0.0


def test_the_norm_of_many_float32_gradients_is_summed_in_double_precision():
    grads = {"a": np.float32([8192.0]), "b": np.float32([1.0]), "c": np.float32([1.0])}  # 2^26 + 1 is none of float32
    norm = numpy_vit.clip_grad_norm(grads, math.inf)[1]
    assert norm == math.sqrt(2**26 + 2)
    theirs = torch_vit.clip_grad_norm(to_torch(grads), math.inf)[1]
    assert type(norm) is type(theirs) is float


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
def test_no_images_have_no_label_out_of_range(engine, wrap):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean over nothing is NaN
        found = engine.cross_entropy_forward(wrap(np.zeros((0, 3))), wrap(np.zeros(0, np.int64)))
    assert np.isnan(float(found[0] if engine is numpy_vit else found))


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
def test_refined_pooling_takes_three_axes(engine, wrap):
    with pytest.raises(ShapeError, match="x of refined_pool"):
        engine.refined_pool_forward(wrap(normal(0, (3, 4))), 2, False)


@pytest.mark.parametrize("count", [1, 2, 5, 13])
@pytest.mark.parametrize("reach", [1, 3, 9, 27])
def test_both_engines_lay_old_displacements_at_the_same_places(count, reach):
    ours, theirs = (importlib.import_module(f"{e}.table_resize").series_places(count, reach) for e in ENGINES)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=4 * count * np.finfo(float).eps)


def test_a_state_that_does_not_fit_says_what_it_is_and_what_was_expected():
    engine = started()
    state = engine.state()
    with pytest.raises(CheckpointError, match=r"params/norm.bias in the training state is float64 \(1,\), expected"):
        engine.load_state({**state, "params/norm.bias": np.zeros(1)})
