"""Serving the class token alone is the model: the same logits in both engines, within the model's own bound."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numpy_vit
import torch_vit
from parity_tests import harness, strategies
from vit_common import ViTConfig, init_params
from vit_common.errors import ConfigError, ShapeError

with_class_token = strategies.configs(depth=st.integers(1, 3)).filter(lambda c: c.class_token)
served = with_class_token.map(lambda c: c.replace(pool="cls"))


@given(config=served, batch=st.integers(1, 3), dtype=strategies.dtypes, seed=strategies.seeds)
def test_serve_is_the_model(config, batch, dtype, seed):
    case = strategies.composite_case("vit", config, batch, seed, seed + 1)
    arrays = harness.cast(case.arrays, dtype)
    images, params = arrays.pop("x"), arrays
    whole, _ = numpy_vit.vit_forward(params, images, config)
    bound = harness.derive_bounds(harness.STAGES["vit"], case, dtype, np.ones_like(whole))["y"]
    theirs = torch_vit.serve(torch_vit.to_torch(params), torch.from_numpy(images), config).numpy()
    for logits in (numpy_vit.serve(params, images, config), theirs):
        # Each may be a bound away from the truth.
        harness.assert_within("serve", "logits", dtype, logits, whole, 2 * bound)
        assert logits.dtype == dtype


@given(config=strategies.configs(), batch=st.integers(1, 3), seed=strategies.seeds)
def test_predict_is_the_model_to_the_bit(config, batch, seed):
    arrays = strategies.composite_case("vit", config, batch, seed, seed + 1).arrays
    images, params = arrays["x"], {name: a for name, a in arrays.items() if name != "x"}
    assert np.array_equal(numpy_vit.predict(params, images, config), numpy_vit.vit_forward(params, images, config)[0])


def test_predict_takes_variants_too():
    config = ViTConfig.preset("digits", reg_tokens=2)
    params, images = init_params(config, 0), np.ones((2, 1, 8, 8), np.float32)
    assert np.array_equal(numpy_vit.predict(params, images, config), numpy_vit.vit_forward(params, images, config)[0])


def test_predict_needs_no_more_memory_for_more_blocks():
    def peak(depth):
        config = ViTConfig.preset("mnist", depth=depth)
        params, images = init_params(config, 0), np.ones((32, 1, 28, 28), np.float32)
        numpy_vit.predict(params, images, config)
        tracemalloc.start()
        numpy_vit.predict(params, images, config)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(8) < 1.1 * peak(2)  # with their caches kept, the blocks would need four times as much


def test_dropout_and_stochastic_depth_do_not_serve():
    config = ViTConfig.preset("digits", depth=2, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    served = torch_vit.Serving(torch_vit.VisionTransformer(config))
    assert torch.equal(served.train()(images), served.eval()(images))


@pytest.mark.parametrize("changes", [{"pool": "mean"}, {"depth": 0}, {"reg_tokens": 1}], ids=str)
def test_models_that_read_other_tokens_are_refused(changes):
    config = ViTConfig.preset("digits", **changes)
    images = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(ConfigError, match="use predict"):
        numpy_vit.serve(init_params(config, 0), images, config)
    with pytest.raises(ConfigError, match="use vit_forward"):
        torch_vit.Serving(torch_vit.VisionTransformer(config))(torch.from_numpy(images))


def test_images_of_another_size_are_refused():
    config = ViTConfig.preset("digits", depth=1)
    images = np.zeros((1, 1, 8, 10), np.float32)
    with pytest.raises(ShapeError, match="images"):
        numpy_vit.serve(init_params(config, 0), images, config)
    with pytest.raises(ShapeError, match="images"):
        torch_vit.Serving(torch_vit.VisionTransformer(config))(torch.from_numpy(images))
