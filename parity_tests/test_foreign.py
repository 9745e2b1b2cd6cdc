"""Other people's engines: what is not there is not tested, what is wrong is told, what is right passes."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from parity_tests import harness
from parity_tests.foreign import NAMES, ForeignEngine, is_blank
from parity_tests.planting import ROOT, under_test
from parity_tests.stage_checks import examples

EXERCISE = ROOT / "examples" / "exercise" / "exercise.py"
JAX = ROOT / "examples" / "jax_engine" / "engine.py"


def suite(engine, *tests):
    """(exit code, output) of the suite, run as its users run it."""
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *tests, "--engine", str(engine)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


SOFTMAX = """
import numpy as np
def softmax_forward(x):
    "Hint."
    raise NotImplementedError
def softmax_backward(dy, cache):
    return cache.probs * {wrong}
"""


def test_a_learners_softmax(tmp_path):
    """One backward, on the NumPy engine's forward: first with a mistake, then without."""
    path, tests = tmp_path / "mine.py", ["parity_tests/test_attention.py", "parity_tests/test_linear.py"]
    path.write_text(SOFTMAX.format(wrong="dy"))
    code, said = suite(path, *tests)
    assert code == 1
    assert "The gradient of x is p * g alone: subtract the row's sum of g * p from g first." in said
    assert "backward only: softmax\n" in said
    assert "not tested: linear, patch_embed," in said
    path.write_text(SOFTMAX.format(wrong="(dy - (dy * cache.probs).sum(-1, keepdims=True))"))
    code, said = suite(path, *tests)
    assert code == 0, said
    assert "FAILED" not in said
    # Parity, linearity and the sums of rows; what concerns the forward alone, or other stages, is skipped.
    assert said.count(" passed") == 1
    assert "not tested: no function of" in said
    assert "has no linear_forward yet" in said


RMS_NORM = """
import numpy as np
def rms_norm_forward(x, weight, eps=1e-6):
    r = 1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return x * r * weight, (x, weight, r)
def rms_norm_backward(dy, cache):
    x, weight, r = cache
    g = dy * weight
    dx = r * g - x * r**3 * (g * x).mean(axis=-1, keepdims=True){wrong}
    return dx, {{"weight": (dy * x * r).reshape(-1, x.shape[-1]).sum(axis=0)}}
"""


def test_a_variants_stage(tmp_path):
    """It is held like the plain ones; the other variants are not tested."""
    path, tests = tmp_path / "mine.py", ["parity_tests/test_rms_norm.py", "parity_tests/test_every_variant.py",
                                         "parity_tests/test_rope.py"]  # fmt: skip
    path.write_text(RMS_NORM.format(wrong=" * 2"))
    code, said = suite(path, *tests, "-k", "parity or order")
    assert code == 1
    assert "to mend in rms_norm:" in said
    path.write_text(RMS_NORM.format(wrong=""))
    code, said = suite(path, *tests)
    assert code == 0, said
    assert "tested: rms_norm\n" in said
    assert "has no rope yet" in said


def test_nothing_to_test_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def softmax_back(dy, cache): return dy\n")
    code, said = suite(path, "parity_tests/test_linear.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no stage function is there" in said
    assert "did you mean 'softmax_backward'" in said
    code, said = suite(tmp_path / "none.py", "parity_tests/test_linear.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no file" in said


def test_every_blank_of_the_exercise_is_a_stage_function_and_not_tested():
    module = harness.load_engine(str(EXERCISE))
    engine = ForeignEngine(module, "exercise")
    blanks = [name for name in vars(module) if name.endswith(("_forward", "_backward"))]
    assert blanks
    assert set(blanks) <= set(NAMES)
    assert all(vars(module)[name].__doc__ for name in blanks)
    assert engine.own == {}
    assert set(engine.stages()) - {"not tested"} == {"tested", "forward only", "backward only"}
    assert set(engine.stages()["not tested"]) >= set(harness.STAGES)


def test_no_blank_ever_passes():
    code, said = suite(EXERCISE, "parity_tests/test_attention.py", "parity_tests/test_class_token.py")
    assert code == 0
    assert " passed" not in said
    assert "not tested: linear" in said


def test_what_is_blank():
    def blank():
        """Hint."""
        raise NotImplementedError("later")

    def written(x):
        if x is None:
            raise NotImplementedError
        return x

    assert is_blank(blank)
    assert not is_blank(written)
    assert not is_blank(np.exp)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="the example in JAX needs the extra jax")
def test_the_jax_engine_passes():
    """A complete foreign engine. Two examples a stage here, because JAX compiles each shape anew."""
    engine = ForeignEngine(harness.load_engine(str(JAX)), "jax_engine")
    assert engine.stages()["tested"] == list(harness.STAGES)
    with under_test(engine):
        for name, stage in harness.STAGES.items():
            case = examples(name, 4)[-1]
            harness.check_parity(stage, case, np.float64, "C", 0)
            harness.check_parity(stage, case, np.float32, "read-only", 0)
            harness.check_linear_in_upstream(stage, case, 0)
