"""What the NumPy engine promises beside its numbers, as a whole: found by changing it."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

import numpy_vit
import torch_vit
from numpy_vit.data_parallel import parallel_loss_and_grads
from numpy_vit.engine import NumpyEngine
from parity_tests.trajectories import CONFIG, RECIPE, batches, initial
from parity_tests.variants import close
from torch_vit import to_torch
from torch_vit.engine import TorchEngine
from vit_common import CheckpointError, ViTConfig, init_params

DIGITS = ViTConfig.preset("digits")


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


def test_a_state_that_does_not_fit_says_what_it_is_and_what_was_expected():
    engine = started()
    state = engine.state()
    with pytest.raises(CheckpointError, match=r"params/norm.bias in the training state is float64 \(1,\), expected"):
        engine.load_state({**state, "params/norm.bias": np.zeros(1)})


def test_images_are_asked_for_in_the_recipes_dtype():
    raw = SimpleNamespace(to_numpy=lambda dtype: np.zeros(2, dtype))
    assert NumpyEngine().images(raw, "float64").dtype == np.float64
