"""No work is lost: whatever stops a training, the steps before it are on the disk, and better ones are not replaced."""

import os
import subprocess
import sys

import numpy as np
import pytest
from test_cli import ROOT, SMALL, numpy
from test_loop import CONFIG, RECIPE, both, start

from numpy_vit.engine import NumpyEngine
from vit_common.data import ArraySplit
from vit_common.errors import ConfigError, DataError, RangeError, VitError
from vit_common.loop import train

# Without PYTHONUNBUFFERED, under which nothing would be left to be printed at the end.
BUFFERED = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


class BrokenFrom(ArraySplit):
    """A split whose pictures cannot be read from the n-th call on."""

    def __init__(self, split: ArraySplit, n: int):
        super().__init__(split.pixels, split.labels)
        self.left = n

    def images(self, indices):
        self.left -= 1
        if self.left < 0:
            raise DataError("b.png cannot be read")
        return super().images(indices)


def with_split(data, **split):
    return type(data)(**{**vars(data), **split})


@both
def test_a_broken_training_picture_costs_no_step(tmp_path, make):
    engine, data, run = start(make, tmp_path)
    with pytest.raises(DataError, match="b.png"):
        train(engine, CONFIG, RECIPE, with_split(data, train=BrokenFrom(data.train, 5)), run, show=False)
    state, step = run.state()
    assert step == 5
    assert all(np.array_equal(state[name], array) for name, array in engine.state().items())
    assert [m["step"] for m in run.metrics() if "loss" in m] == [1, 2, 3, 4, 5]


def test_a_broken_test_picture_costs_no_epoch(tmp_path):
    engine, data, run = start(NumpyEngine, tmp_path)
    with pytest.raises(DataError, match="b.png"):
        train(engine, CONFIG, RECIPE, with_split(data, test=BrokenFrom(data.test, 0)), run, show=False)
    assert run.state()[1] == 3


def test_an_error_that_is_not_ours_between_two_steps_costs_none_and_one_inside_a_step_saves_nothing_half(tmp_path):
    engine, data, run = start(NumpyEngine, tmp_path)
    engine.predict = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    assert run.state()[1] == 3
    engine, data, run = start(NumpyEngine, tmp_path, name="other")
    updates = [engine._update]
    engine._update = lambda grads, lr: updates.pop()(grads, lr)  # the second one fails
    with pytest.raises(IndexError):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    assert run.state()[1] == 0  # what it began with


def test_an_empty_test_split_and_a_model_without_one_answer_are_told_before_the_first_step(tmp_path):
    engine, data, run = start(NumpyEngine, tmp_path)
    empty = with_split(data, test=ArraySplit(data.test.pixels[:0], data.test.labels[:0]))
    with pytest.raises(DataError, match="test split of rows is empty"):
        train(engine, CONFIG, RECIPE, empty, run, show=False)
    with pytest.raises(ConfigError, match="pool='none'"):
        train(engine, CONFIG.replace(pool="none"), RECIPE, data, run, show=False)
    with pytest.raises(ConfigError, match=r"taken 10 steps, and --epochs 3 makes 9"):
        train(engine, CONFIG, RECIPE, data, run, 10, show=False)
    assert not (run.path / "metrics.jsonl").exists()


@both
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the numbers are meant to overflow
@pytest.mark.parametrize("bad_step", [5, 6])  # followed by another step; by the epoch's evaluation
def test_parameters_that_diverged_do_not_replace_the_checkpoint(tmp_path, make, bad_step):
    engine, data, run = start(make, tmp_path)
    real, calls = engine.train_step, []

    def leap(images, labels, masks, lr):
        calls.append(1)
        return real(images, labels, masks, 1e38 if len(calls) == bad_step else lr)

    engine.train_step = leap
    with pytest.raises(RangeError, match=r"checkpoint of step 3 stays.*smaller --lr"):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    state, step = run.state()
    assert step == 3
    assert all(np.abs(array).max() < 1e3 for array in state.values())


def test_a_full_disk_is_told_with_the_file_and_the_cause_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    engine, data, run = start(NumpyEngine, tmp_path)

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device")

    real = engine.predict

    def fill_the_disk(images):
        monkeypatch.setattr("safetensors.numpy.save_file", full)
        return real(images)

    engine.predict = fill_the_disk
    with pytest.raises(DataError, match=r"cannot write .*state.safetensors: .*No space left on device"):
        train(engine, CONFIG, RECIPE, data, run, show=False)
    assert run.state()[1] == 0
    assert not list(run.path.glob(".*"))


def test_when_neither_the_data_nor_the_disk_is_well_both_are_named(tmp_path, monkeypatch):
    engine, data, run = start(NumpyEngine, tmp_path)
    broken = with_split(data, train=BrokenFrom(data.train, 2))
    real = run.save

    def save(config, params, state, step):
        if step:
            raise DataError("cannot write state.safetensors: full")
        real(config, params, state, step)

    monkeypatch.setattr(run, "save", save)
    with pytest.raises(VitError, match=r"b.png cannot be read; and the steps so far could not be saved: .*full"):
        train(engine, CONFIG, RECIPE, broken, run, show=False)


def test_a_line_of_metrics_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    _, _, run = start(NumpyEngine, tmp_path)
    (run.path / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*metrics.jsonl: Is a directory"):
        run.log(step=1)


def test_a_training_whose_output_nobody_reads_saves_and_says_so_by_its_status(tmp_path):
    words = [sys.executable, "-m", "numpy_vit", "train", *SMALL, "--epochs", "200", "--out", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=BUFFERED) as process:
        for _ in range(2):
            process.stdout.readline()
        process.stdout.close()  # as `head -2` does
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(120) == 141
    from vit_common.run_folder import RunFolder

    run = RunFolder(tmp_path / "run")
    assert run.state()[1] == max(m["step"] for m in run.metrics()) > 11  # beyond the first epoch


def test_an_answer_that_nobody_reads_is_a_success(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "numpy_vit", "info", "--preset", "digits"]
    found = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env=BUFFERED, timeout=120)
    os.close(writing)
    assert (found.returncode, found.stderr) == (0, b"")


def test_a_start_that_fails_replaces_nothing_and_leaves_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    assert numpy("train", *SMALL, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for wrong in (("--num-classes", 3), ("--pool", "none")):
        assert numpy("train", *SMALL, *wrong, "--out", out, "--overwrite") == 1
        assert numpy("train", *SMALL, *wrong, "--out", tmp_path / "new") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / "new").exists()
    assert numpy("train", *SMALL, "--seed", 1, "--out", out, "--overwrite") == 0
    with pytest.raises(SystemExit):
        numpy("train", "--warmup-epochs", "inf", "--out", tmp_path / "new")
    assert "warmup_epochs=inf" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
