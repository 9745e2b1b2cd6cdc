"""The tests are tested: every planted bug is caught, and the failure names the stage that it is in."""

from contextlib import nullcontext

import numpy as np
import pytest

import numpy_vit
from parity_tests import planted_variants, test_assembled, test_mae, test_optimizer, test_packing
from parity_tests.planted_bugs import BUGS, Edit, Wrong, planted
from parity_tests.planting import engine_with, under_test
from parity_tests.stage_checks import first_failure


def test_at_least_twenty():
    for bugs in (BUGS, planted_variants.BUGS):
        assert len({bug.name for bug in bugs}) == len(bugs) >= 20


EVERY = [*BUGS, *planted_variants.BUGS]


@pytest.mark.parametrize("bug", EVERY, ids=[bug.name for bug in EVERY])
def test_caught_in_the_right_stage(bug):
    found = first_failure(planted(bug), suspect=bug.stage)
    assert found is not None, f"{bug.name} ({bug.story}) was not caught"
    stage, message = found
    assert stage == bug.stage, message
    assert message.startswith(f"{bug.stage}")


ADAMW = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.5, "decay": None}
COMPARED = {
    "mae": lambda: test_mae.test_both_engines_and_the_complex_step({}),
    "assembled": lambda: test_assembled.test_both_engines_agree_in_every_intermediate_and_gradient({"pre_norm": True}),
    "packing": lambda: test_packing.check(*test_packing.case(test_packing.CONFIG, test_packing.SIZES),
                                          test_packing.CONFIG, [test_packing.run_numpy]),
    "optimizer": lambda: test_optimizer.check("adamw", 0, 1.0, np.float64, ADAMW),
}  # fmt: skip


@pytest.mark.parametrize("bug", planted_variants.WHOLES, ids=lambda bug: bug.name)
def test_caught_where_whole_models_are_compared(bug, monkeypatch):
    for engine, expected in ((engine_with({}), nullcontext()), (planted(bug), pytest.raises(AssertionError))):
        for module in (test_mae, test_assembled, test_packing):
            monkeypatch.setattr(module, "numpy_vit", engine)
        with under_test(engine), expected:
            COMPARED[bug.stage]()


def test_every_stage_has_a_planted_bug():
    """In its own file."""
    files = {change.file for bug in (*EVERY, *planted_variants.WHOLES) for change in bug.changes}
    assert {*numpy_vit.STAGES, *numpy_vit.VARIANTS} <= files


def test_a_copy_without_a_bug_passes():
    engine = engine_with({})
    assert engine is not numpy_vit
    assert engine.vit_forward is not numpy_vit.vit_forward
    assert first_failure(engine) is None
    assert first_failure(engine, suspect="assembled_head") is None  # the last variant


def test_a_bug_that_no_longer_fits_is_noticed():
    with pytest.raises(LookupError, match="no longer says"):
        Edit("linear", "linear_forward", "not there", "anything").apply("def linear_forward(): return there")
    with pytest.raises(LookupError, match="has no function"):
        Wrong("linear", "linear_sideways", "(): pass").apply("def linear_forward(): pass")
