"""Arguments that no stage can take, in both engines: the error says which, before anything is computed or left out."""

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from parity_tests.choices import smallest_cases
from parity_tests.ordinary import Setting, model_case
from parity_tests.strategies import normal, random_params
from parity_tests.test_contracts import both_engines
from parity_tests.variant_cases import CASES
from vit_common import (
    CheckpointError,
    ConfigError,
    DtypeError,
    RangeError,
    ShapeError,
    ViTConfig,
    VitError,
    init_params,
)
from vit_common.assembled_spec import parallel_spec, residual_spec

CONFIG = ViTConfig.preset("digits")
IMAGES = normal(0, (1, 1, 8, 8)).astype(np.float32)
MODELS = {numpy_vit: ("vit_forward", "serve", "predict"), torch_vit: ("vit_forward", "serve")}
OTHER = {numpy_vit: torch.from_numpy, torch_vit: lambda array: array}  # the arrays of the engine that is not meant


def assert_refused(error, match, function, *arguments, **options):
    with pytest.raises(error, match=match):
        function(*arguments, **options)


@both_engines
@pytest.mark.parametrize("name", ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"])
@pytest.mark.parametrize("shape", [(1,), (), (1, 3), (6,)])
def test_lambdas_are_as_wide_as_a_query(engine, wrap, name, shape):
    q, v = wrap(normal(0, (1, 4, 5, 3))), wrap(normal(1, (1, 2, 5, 6)))
    params = {f"lambda_{n}": wrap(normal(2, (3,))) for n in ("q1", "k1", "q2", "k2")}
    params |= {"sub_norm.weight": wrap(normal(3, (6,)))}
    engine.diff_attention_forward(params, q, q, v, 0)
    params[name] = wrap(np.asarray(normal(4, shape)))
    assert_refused(ShapeError, name, engine.diff_attention_forward, params, q, q, v, 0)


PARTS = ["multi_head", "mlp", "encoder_block", "encoder", "assembled_block", "parallel_block", "parallel_things_block",
         "packed_block"]  # fmt: skip


@both_engines
@pytest.mark.parametrize("part", PARTS)
def test_a_part_takes_exactly_its_parameters(engine, wrap, part):
    case = smallest_cases(CASES[part], 1)[0] if part in CASES else model_case(part, Setting(options=False), 2)
    x, forward = wrap(case.arrays["x"]), getattr(engine, f"{part}_forward")
    params = {n: wrap(a) for n, a in case.arrays.items() if n != "x"}
    options = {n: v for n, v in case.options.items() if n in ("config", "lengths")}
    forward(params, x, **options)
    for name in params:
        less = {n: p for n, p in params.items() if n != name}
        assert_refused(CheckpointError, f"of {part}; missing: {name}$", forward, less, x, **options)
    assert_refused(CheckpointError, f"of {part}; not part of it: more", forward, {**params, "more": x}, x, **options)
    assert_refused(DtypeError, f"of {part} are a list", forward, list(params), x, **options)


@both_engines
def test_an_encoder_has_as_many_blocks_as_it_is_deep(engine, wrap):
    case = model_case("encoder", Setting(options=False, depth=2), 2)
    params = {n: wrap(a) for n, a in case.arrays.items() if n != "x"}
    for depth, match in ((1, "not part of it: 1.attn"), (3, "missing: 2.attn")):
        config = case.options["config"].replace(depth=depth)
        assert_refused(CheckpointError, match, engine.encoder_forward, params, wrap(case.arrays["x"]), config)


@both_engines
@pytest.mark.parametrize(
    ("name", "spec", "fields", "parameter"),
    [("parallel_block", parallel_spec, {"block": "parallel", "qkv_bias": "none"}, "mlp_bias"),
     ("assembled_block", residual_spec, {"layer_scale": 0.1}, "ls1.gamma"),
     ("assembled_block", residual_spec, {"reg_tokens": 1}, "mlp.fc1.bias")],
)  # fmt: skip
def test_what_the_configuration_has_is_not_left_out(engine, wrap, name, spec, fields, parameter):
    """Without a look at the names, a block would compute without it."""
    config = ViTConfig(embed_dim=8, num_heads=2, mlp_ratio=1.0, **fields)
    params = {n: wrap(p) for n, p in random_params(spec(config, 0), 0).items() if n != parameter}
    forward = getattr(engine, f"{name}_forward")
    assert_refused(CheckpointError, f"missing: {parameter}$", forward, params, wrap(normal(0, (1, 3, 8))), config)


@both_engines
def test_norms_that_there_are_not(engine, wrap):
    x, weight = wrap(normal(0, (2, 3))), wrap(normal(1, (3,)))
    params = {"weight": weight, "bias": weight}
    for kind in ("Layer", "batch", None):
        assert_refused(ConfigError, "norm=.* is unknown; .*layer, rms", engine.norm_forward, params, x, kind, 0.1)
    for eps in (-1e-6, float("nan")):
        assert_refused(RangeError, "eps=", engine.layer_norm_forward, x, weight, weight, eps)
        assert_refused(RangeError, "eps=", engine.rms_norm_forward, x, weight, eps)
    engine.layer_norm_forward(x, weight, weight, 0.0)
    engine.rms_norm_forward(x, weight, 0.0)


@both_engines
def test_a_prefix_is_not_negative(engine, wrap):
    x, turn = wrap(normal(0, (2, 2, 4, 4))), wrap(normal(1, (1, 1, 5, 2)))
    assert_refused(RangeError, "prefix=-1", engine.pool_forward, x[0], "mean", -1)
    assert_refused(RangeError, "prefix=-1", engine.token_pool_forward, x[0], "mean", -1)
    assert_refused(RangeError, "prefix=-1", engine.rope_forward, x, turn, turn, -1)


@both_engines
@pytest.mark.parametrize("sizes", [("2", "2"), "22", (2, 0), (2, -2), (2.0, 2), (2,), (2, 2, 2)])
def test_sizes_are_two_whole_numbers(engine, wrap, sizes):
    assert_refused(RangeError, "grid=", engine.patch_grid, sizes)
    assert_refused(RangeError, "patch_size=", engine.patchify, wrap(IMAGES), sizes)
    assert_refused(RangeError, "patch_size=", engine.unpatchify, wrap(normal(0, (1, 4, 4))), (1, 4, 4), sizes)


@both_engines
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_has_no_mean_loss(engine, wrap, shape):
    labels = wrap(np.zeros(shape[0], np.int64))
    assert_refused(ShapeError, "nothing has no mean", engine.cross_entropy_forward, wrap(np.zeros(shape)), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16, np.longdouble])
def test_numpy_computes_in_single_and_double(dtype):
    """Where arrays enter: integers would be divided, half precision overflows in the sums."""
    x, weight = np.ones((2, 3), dtype), np.ones(3)

    def assert_named(name, function, *arguments):
        match = rf"^{name} has dtype {np.dtype(dtype)}, expected float32 or float64; .*astype\(np.float32\)$"
        assert_refused(DtypeError, match, function, *arguments)

    assert_named("x of layer_norm", numpy_vit.layer_norm_forward, x, weight, weight)
    assert_named("x of rms_norm", numpy_vit.rms_norm_forward, x, weight)
    assert_named("x of linear", numpy_vit.linear_forward, x, np.ones((4, 3)))
    assert_named("linear weight", numpy_vit.linear_forward, np.ones((2, 3)), np.ones((4, 3), dtype))
    assert_named("x of linear", numpy_vit.patch_embed_forward, x[None, None], np.ones((4, 1, 2, 3)))
    assert_named("gradient of a", numpy_vit.clip_grad_norm, {"a": x}, 1.0)
    for state, step in ((numpy_vit.sgd_init, numpy_vit.sgd_step), (numpy_vit.adamw_init, numpy_vit.adamw_step)):
        good, bad = {"a": np.ones((2, 3))}, {"a": x}
        assert_named("gradient of a", step, good, bad, state(good), 0.1)
        assert_named("parameter a", step, bad, good, state(good), 0.1)
    params = init_params(CONFIG, 0)
    for forward in (numpy_vit.vit_forward, numpy_vit.serve, numpy_vit.predict):
        assert_named("images", forward, params, np.ones((1, 1, 8, 8), dtype), CONFIG)
        assert_named("parameter norm.bias", forward, params | {"norm.bias": np.ones(32, dtype)}, IMAGES, CONFIG)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.complex64, ">c16"])
def test_any_byte_order_and_complex_numbers(dtype):
    x = np.ones((2, 3), dtype)
    assert np.array_equal(numpy_vit.linear_forward(x, x)[0], np.full((2, 2), 3))
    assert numpy_vit.layer_norm_forward(x, x[0], x[1])[0].shape == (2, 3)


@both_engines
def test_a_model_takes_arrays_of_its_engine(engine, wrap):
    for name in MODELS[engine]:
        refuses_other_arrays(engine, wrap, getattr(engine, name), CONFIG)
    refuses_other_arrays(engine, wrap, engine.vit_forward, CONFIG.replace(reg_tokens=1))


def refuses_other_arrays(engine, wrap, forward, config):
    arrays = init_params(config, 0)
    params, images, other = {n: wrap(p) for n, p in arrays.items()}, wrap(IMAGES), OTHER[engine]
    for wrong in (None, IMAGES.tolist(), other(IMAGES), "image", 1.0):
        assert_refused(DtypeError, "images", forward, params, wrong, config)
    for wrong in (None, list(params.values()), images):
        assert_refused(DtypeError, "params is a", forward, wrong, images, config)
    for wrong in (None, [1.0], other(arrays["norm.bias"])):
        assert_refused(DtypeError, "norm.bias", forward, params | {"norm.bias": wrong}, images, config)


@both_engines
def test_an_encoder_takes_arrays_of_its_engine(engine, wrap):
    case = model_case("encoder", Setting(options=False), 2)
    params = {n: wrap(a) for n, a in case.arrays.items() if n != "x"}
    for wrong in (None, [1.0]):
        with pytest.raises(VitError):
            engine.encoder_forward(params, wrong, case.options["config"])
