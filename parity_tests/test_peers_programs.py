"""Each program's own model beside ours, from the file that it would publish."""

import pytest

from parity_tests import programs_resize
from parity_tests.peers_programs import BOUND, CASES, errors


@pytest.mark.filterwarnings("ignore")  # the programs' own, about each other
@pytest.mark.parametrize(("program", "case"), CASES)
def test_both_engines_compute_what_the_program_computes(program, case):
    try:
        worst = errors(program, case)
    except ImportError as error:
        pytest.skip(f"{program} is not here (extra 'peers', or a checkout in VIT_PEERS): {error}")
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", programs_resize.POSITIONS)
def test_positions_are_resized_as_the_program_resizes_them(name):
    try:
        worst = programs_resize.errors(programs_resize.POSITIONS[name])
    except ImportError as error:
        pytest.skip(f"{name} is not here (extra 'peers', or a checkout in VIT_PEERS): {error}")
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", programs_resize.PATCHES)
def test_patch_projections_are_resized_as_timm_resizes_them(name):
    try:
        worst = programs_resize.patch_errors(name)
    except ImportError as error:
        pytest.skip(f"timm is not here (extra 'peers'): {error}")
    assert max(worst.values()) <= BOUND, worst
