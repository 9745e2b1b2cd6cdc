"""Training: the same steps in both engines, resumed to the bit, and no work lost when it stops."""

import json
import math
import os
import signal

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import ViTConfig, init_params
from vit_common.data import ArraySplit, Dataset
from vit_common.engine import StepResult
from vit_common.errors import CheckpointError, ConfigError, DataError, RangeError
from vit_common.loop import Evaluation, Interrupted, Plan, evaluate, make_batch, train
from vit_common.recipe import Recipe
from vit_common.run_folder import RunFolder, RunInfo

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=3, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2.0,
    proj_drop_rate=0.1, drop_path_rate=0.2,
)  # fmt: skip
RECIPE = Recipe(epochs=3, batch_size=8, lr=3e-3, warmup_epochs=0.5, augment="shift", label_smoothing=0.1)


def dataset(images: int = 26, classes: int = 3) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    pixels = rng.integers(0, 60, (images, 1, 8, 8)).astype(np.uint8)
    pixels[np.arange(images), 0, 2 * labels] += 180  # each class has its bright row
    split = ArraySplit(pixels, labels)
    return Dataset("rows", split, split, tuple("abc"[:classes]), np.array([0.3]), np.array([0.3]))


def engines():
    found = [NumpyEngine]
    try:
        from torch_vit.engine import TorchEngine, TorchOptions
    except ImportError:
        return found
    return [*found, lambda: TorchEngine(TorchOptions(device="cpu"))]


both = pytest.mark.parametrize("make", engines(), ids=["numpy", "torch"][: len(engines())])


def start(make, tmp_path, recipe=RECIPE, config=CONFIG, name="run"):
    engine, data = make(), dataset()
    engine.start(config, init_params(config, recipe.seed, recipe.dtype), recipe)
    info = RunInfo(engine.name, config, recipe, data.name, None, data.class_names, (0.3,), (0.3,))
    return engine, data, RunFolder.create(tmp_path / name, info)


def without_times(run: RunFolder):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in run.metrics()]


def test_plan_counts_whole_batches_and_never_more_warm_up_than_steps():
    assert Plan.of(26, RECIPE) == Plan(26, 8, 3, 9, 2)
    assert Plan.of(5, RECIPE.replace(batch_size=64, epochs=2, warmup_epochs=7)) == Plan(5, 5, 1, 2, 2)
    with pytest.raises(DataError, match="empty"):
        Plan.of(0, RECIPE)


def test_a_batch_is_a_function_of_its_step_alone_and_an_epoch_repeats_no_image():
    data = dataset()
    forward = [make_batch(data, CONFIG, RECIPE, step) for step in range(6)]
    for step in reversed(range(6)):
        again = make_batch(data, CONFIG, RECIPE, step)
        assert np.array_equal(again.images, forward[step].images)
        assert again.masks.keys() == forward[step].masks.keys()
        assert all(np.array_equal(again.masks[k], forward[step].masks[k]) for k in again.masks)
    plain = RECIPE.replace(augment="none")
    epoch = np.concatenate([make_batch(data, CONFIG, plain, step).images for step in range(3)])
    assert len(np.unique(epoch.reshape(len(epoch), -1), axis=0)) == 24
    assert not np.array_equal(forward[0].images, make_batch(data, CONFIG, RECIPE.replace(seed=1), 0).images)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_engines_take_the_same_steps_in_float64(tmp_path, optimizer):
    recipe = RECIPE.replace(dtype="float64", optimizer=optimizer, clip_norm=0.5)
    if len(engines()) < 2:
        pytest.skip("torch is not installed")
    finals = []
    for make in engines():
        engine, data, run = start(make, tmp_path, recipe, name=make().name)
        train(engine, CONFIG, recipe, data, run, show=False)
        finals.append((without_times(run), engine.state()))
    (first, state), (second, other) = finals
    assert [r["step"] for r in first] == [r["step"] for r in second]
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        assert a == pytest.approx(b, rel=1e-9)
    assert state.keys() == other.keys()
    assert all(state[k].shape == other[k].shape and state[k].dtype == other[k].dtype for k in state)


@both
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_is_the_whole_run_to_the_bit(tmp_path, make, optimizer):
    recipe = RECIPE.replace(optimizer=optimizer)
    engine, data, whole = start(make, tmp_path, recipe, name="whole")
    train(engine, CONFIG, recipe, data, whole, show=False)

    first, data, cut = start(make, tmp_path, recipe, name="cut")
    real = first.train_step
    calls = []

    def stop_in_the_fifth(*args):
        calls.append(1)
        if len(calls) == 5:  # in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    first.train_step = stop_in_the_fifth
    with pytest.raises(Interrupted, match="step 5"):
        train(first, CONFIG, recipe, data, cut, show=False)
    state, step = cut.state()
    assert step == 5

    second = make()
    second.start(CONFIG, init_params(CONFIG, 99), recipe)
    second.load_state(state)
    train(second, CONFIG, recipe, data, cut, step, show=False)
    assert without_times(cut) == without_times(whole)
    expected, found = engine.state(), second.state()
    assert expected.keys() == found.keys()
    for name in expected:
        assert np.array_equal(expected[name], found[name]), name


def test_a_state_of_one_engine_goes_on_in_the_other(tmp_path):
    if len(engines()) < 2:
        pytest.skip("torch is not installed")
    recipe = RECIPE.replace(dtype="float64")
    losses = []
    for make in engines():
        engine, data, _ = start(NumpyEngine, tmp_path, recipe, name=f"to-{make().name}")
        for step in range(4):
            engine.train_step(*make_batch(data, CONFIG, recipe, step))
        other = make()
        other.start(CONFIG, init_params(CONFIG, 99, np.float64), recipe)
        other.load_state(engine.state())
        losses.append([other.train_step(*make_batch(data, CONFIG, recipe, step)).loss for step in range(4, 8)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@both
def test_a_loss_that_is_not_finite_names_the_step_and_saves_what_was_before(tmp_path, make):
    engine, data, run = start(make, tmp_path)
    before = {}
    real = engine.train_step

    def poison(images, labels, masks, lr):
        calls.append(1)
        if len(calls) == 5:
            before.update(engine.params())
            images = np.full_like(images, np.nan)
        return real(images, labels, masks, lr)

    calls: list[int] = []
    engine.train_step = poison
    with pytest.raises(RangeError, match=r"step 5: loss nan"):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    state, step = run.state()
    assert step == 4
    assert all(np.array_equal(state[f"params/{name}"], p) for name, p in before.items())
    assert all(np.isfinite(array).all() for array in state.values())


def test_interrupting_twice_stops_at_once(tmp_path):
    engine, data, run = start(NumpyEngine, tmp_path)
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background of a shell

    def impatient(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return StepResult(1.0, 1.0)

    engine.train_step = impatient
    with pytest.raises(KeyboardInterrupt):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_evaluation_counts_right_answers_and_averages_over_uneven_batches():
    data = dataset()

    class Fixed(NumpyEngine):
        def predict(self, images):
            logits = np.zeros((len(images), 3), np.float32)
            logits[:, 0] = math.log(2.0)  # probabilities 1/2, 1/4, 1/4
            return logits

    labels = data.test.labels
    expected = np.where(labels == 0, math.log(2), math.log(4)).mean()
    found = evaluate(Fixed(), data, data.test, batch_size=7)
    assert found == Evaluation(pytest.approx(expected, rel=1e-6), (labels == 0).mean(), 26)


def test_a_model_with_too_few_classes_is_refused(tmp_path):
    config = CONFIG.replace(num_classes=2)
    engine, data, run = start(NumpyEngine, tmp_path, config=config)
    with pytest.raises(ConfigError, match="num-classes 3"):
        train(engine, config, RECIPE, data, run, show=False)


@both
def test_a_state_of_another_model_or_optimizer_is_refused(tmp_path, make):
    engine, _, _ = start(make, tmp_path)
    state = engine.state()
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        engine.load_state({k: v for k, v in state.items() if k != "optim/step"})
    with pytest.raises(CheckpointError, match=r"norm.bias"):
        engine.load_state({**state, "params/norm.bias": np.zeros(9, np.float32)})


@both
def test_training_learns(tmp_path, make):
    recipe = RECIPE.replace(epochs=25, augment="none", lr=2e-2)
    config = CONFIG.replace(proj_drop_rate=0.0, drop_path_rate=0.0)
    engine, data, run = start(make, tmp_path, recipe, config)
    assert train(engine, config, recipe, data, run, show=False).accuracy > 0.9  # the test split is the training split
    epochs = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines() if "test_acc" in line]
    assert len(epochs) == 25
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
