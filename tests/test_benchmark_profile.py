"""`benchmarks profile`: every stage's own time, the engine left as it was. Serving: parity asserted, or refused."""

import numpy as np
import pytest

import numpy_vit
from benchmarks import common, contestants
from benchmarks.profile import REST, profile, shares, watched
from vit_common.config import ViTConfig


@pytest.fixture(scope="module")
def case():
    config = ViTConfig.preset("digits", depth=2)
    contestants.SMALL["served"] = config
    return contestants.make_case("served", 2)


def test_time_is_counted_once_and_the_functions_are_put_back(case):
    before = {name: getattr(numpy_vit, name) for name in numpy_vit.__all__}
    times = profile(case, repeats=2)
    assert all(getattr(numpy_vit, name) is function for name, function in before.items())
    assert {"linear_backward", "gelu_forward", "attention_forward", "encoder_block_backward", REST} <= set(times)
    assert not any(name.startswith(("vit_", "erf")) for name in times)
    assert sum(shares(times).values()) == pytest.approx(1, abs=0.01)


def test_a_stage_inside_another_is_not_counted_twice():
    from numpy_vit import mlp

    x, config = np.zeros((400, 10, 48), np.float32), ViTConfig.preset("digits")
    shapes = {"fc1.weight": (96, 48), "fc1.bias": 96, "fc2.weight": (48, 96), "fc2.bias": 48}
    with watched() as spent:
        mlp.mlp_forward({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, x, config)
        assert spent["gelu_forward"] > spent["mlp_forward"] >= 0  # all work is inside the stages that it calls
        assert spent["linear_forward"] > spent["mlp_forward"]


def test_serving_is_held_against_the_bound_and_refused_without_a_class_token(case):
    shares = common.assert_parity(case, contestants.serving(case), gradients=False)
    assert set(shares) == {"numpy, class token alone", "torch, class token alone"}
    mean = ViTConfig.preset("digits", pool="mean")
    contestants.SMALL["mean"] = mean
    assert contestants.serving(contestants.make_case("mean", 2)) == []
