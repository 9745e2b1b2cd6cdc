"""The page that says what weaker tests would miss is what they do miss."""

from parity_tests.planted_bugs import BUGS
from parity_tests.planting import engine_with
from parity_tests.weak_practices import PAGE, PRACTICES, misses, page, results


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m parity_tests.weak_practices"


def test_each_practice_accepts_the_right_engine_and_notices_something():
    """Else its column would say nothing."""
    right = engine_with({})
    for practice in PRACTICES:
        assert all(misses(practice, right, stage) for stage in {bug.stage for bug in BUGS}), practice.title
        assert not all(results()[bug.name, practice.title] for bug in BUGS), practice.title
