"""The tests are tested: every planted bug is caught, and the failure names the stage that it is in."""

import pytest

import numpy_vit
from parity_tests import planted_variants
from parity_tests.planted_bugs import BUGS, Edit, Wrong, planted
from parity_tests.planting import engine_with
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
