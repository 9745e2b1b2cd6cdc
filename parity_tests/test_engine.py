"""Both engines behind one interface: a state goes from any to any, what comes out is a copy, wrong is refused."""

import math

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine, NumpyOptions
from parity_tests.strategies import normal
from parity_tests.trajectories import CONFIG, RECIPE, batches, initial
from parity_tests.variants import close
from torch_vit.engine import TorchEngine, TorchOptions
from vit_common import ConfigError
from vit_common.errors import CheckpointError

ENGINES = {"numpy": NumpyEngine, "torch": TorchEngine}
both = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
optimizers = pytest.mark.parametrize("optimizer", ["adamw", "sgd"])


def started(engine, recipe=RECIPE, steps=0, config=CONFIG):
    made = engine()
    made.start(config, initial(config, recipe), recipe)
    for batch in batches(config, recipe, steps):
        made.train_step(*batch)
    return made


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


@both
@optimizers
def test_a_run_goes_on_from_a_state(engine, optimizer):
    """To the bit as if it had not been broken off, also before the first step."""
    recipe = RECIPE.replace(optimizer=optimizer)
    for done in (0, 2):
        whole = started(engine, recipe, done)
        resumed = started(engine, recipe, 1)
        resumed.load_state(whole.state())
        assert same(resumed.state(), whole.state())
        batch = list(batches(CONFIG, recipe, 3))[-1]
        assert tuple(resumed.train_step(*batch)) == tuple(whole.train_step(*batch))
        assert same(resumed.state(), whole.state())


@optimizers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_state_goes_from_one_engine_to_the_other(optimizer, dtype):
    recipe = RECIPE.replace(optimizer=optimizer, dtype=dtype)
    for first, second in ((NumpyEngine, TorchEngine), (TorchEngine, NumpyEngine)):
        state, other = started(first, recipe, 2).state(), started(second, recipe)
        assert state.keys() == other.state().keys()
        other.load_state(state)
        assert same(other.state(), state)
        names = {"adamw": {"m", "v"}, "sgd": {"momentum"}}[optimizer]
        assert {n.split("/")[1] for n in state if n.startswith("optim/")} - {"step"} == names
        assert {a.dtype for n, a in state.items() if n != "optim/step"} == {np.dtype(dtype)}
        if optimizer == "adamw":
            assert state["optim/step"] == 2


@optimizers
def test_both_engines_take_the_same_steps(optimizer):
    """Two of them; test_trajectory.py takes hundreds, against controls."""
    recipe = RECIPE.replace(optimizer=optimizer)
    ours, theirs = (started(engine, recipe, 2).state() for engine in ENGINES.values())
    counts = [state.pop("optim/step", 0) for state in (ours, theirs)]
    assert counts[0] == counts[1]
    close(ours, theirs, np.float64, True)


@both
def test_what_comes_out_and_goes_in_is_copied(engine):
    made = started(engine, steps=1)
    kept, state = made.state(), made.state()
    for array in (*state.values(), *made.params().values()):
        array[...] = 7
    assert same(made.state(), kept)
    given = {name: array.copy() for name, array in kept.items()}
    made.load_state(given)
    for array in given.values():
        array[...] = 7
    assert same(made.state(), kept)
    start = {name: p.copy() for name, p in initial(CONFIG, RECIPE).items()}
    made.load(CONFIG, start, "float64")
    for p in start.values():
        p[...] = 7
    assert same(made.params(), initial(CONFIG, RECIPE))


@both
def test_a_state_of_another_kind_is_refused(engine):
    made = started(engine, steps=1)
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        made.load_state(started(engine, RECIPE.replace(optimizer="sgd")).state())
    wrong = made.state() | {"params/norm.weight": made.state()["params/norm.weight"].astype(np.float32)}
    with pytest.raises(CheckpointError, match="norm.weight in the training state"):
        made.load_state(wrong)


@both
def test_parameters_that_do_not_fit_are_refused(engine):
    params = initial(CONFIG, RECIPE)
    with pytest.raises(CheckpointError):
        engine().load(CONFIG, {n: p for n, p in params.items() if n != "norm.weight"})


@both
def test_a_step_that_is_not_finite_changes_nothing_nor_does_any_after_it(engine):
    """Who looks at the results late finds the parameters as they were; a state that is loaded begins anew."""
    made = started(engine, steps=1)
    before = made.state()
    images, labels, masks, lr = next(batches(CONFIG, RECIPE, 1))
    broken = images.copy()
    broken[0, 0, 0, 0] = np.nan
    result = made.train_step(broken, labels, masks, lr)
    assert math.isnan(result.loss)
    assert same(made.state(), before)
    assert math.isfinite(made.train_step(images, labels, masks, lr).grad_norm)
    assert same(made.state(), before)
    made.load_state(before)
    made.train_step(images, labels, masks, lr)
    assert not same(made.state(), before)


@both
@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped_where_the_recipe_says_so(engine, clip):
    """SGD with momentum remembers the gradient of the first step: its norm is the clip's, or the one reported."""
    recipe = RECIPE.replace(optimizer="sgd", clip_norm=clip, weight_decay=0.0)
    made = started(engine, recipe)
    norm = made.train_step(*next(batches(CONFIG, recipe, 1))).grad_norm
    moments = [a for n, a in made.state().items() if n.startswith("optim/momentum")]
    length = math.sqrt(sum(float((a**2).sum()) for a in moments))
    assert abs(length / (clip or norm) - 1) <= 1e-5  # torch divides by the norm plus 1e-6


def test_predictions_and_traces_agree():
    """Nothing is dropped in a prediction, and a trace is another way to the same numbers."""
    images, labels = normal(0, (3, 2, 8, 6)), np.array([0, 2, 1])
    engines = [started(engine) for engine in ENGINES.values()]
    logits = [made.predict(images) for made in engines]
    close({"logits": logits[0]}, {"logits": logits[1]}, np.float64, True)
    traces = [made.trace(images, labels, None, 0.1) for made in engines]
    for made, trace, out in zip(engines, traces, logits, strict=True):
        close({"logits": trace.values["logits"]}, {"logits": out}, np.float64, True)
        assert list(trace.param_grads) == list(made.params())
        assert type(trace.loss) is float
    close(*({"loss": np.float64(trace.loss)} for trace in traces), np.float64, True)
    assert traces[0].values.keys() == traces[1].values.keys() == traces[0].grads.keys() == traces[1].grads.keys()
    plain = [made.trace(images, labels) for made in engines]
    assert all(abs(a.loss - b.loss) > 1e-3 for a, b in zip(plain, traces, strict=True)), "the smoothing was ignored"


def test_what_the_engines_say_of_themselves():
    assert (NumpyEngine.name, NumpyEngine.requires, NumpyEngine.Options) == ("numpy", (), NumpyOptions)
    assert (TorchEngine.name, TorchEngine.requires, TorchEngine.Options) == ("torch", ("torch",), TorchOptions)
    assert TorchOptions() == TorchOptions("auto", "float32", False, "default", "auto", False)
    options = TorchOptions("cpu")
    assert TorchEngine(options).options is options
    mine = NumpyOptions()
    assert NumpyEngine(mine).options is mine
    with pytest.raises(ConfigError, match="device 'nowhere' cannot be used"):
        TorchEngine(TorchOptions("nowhere"))
