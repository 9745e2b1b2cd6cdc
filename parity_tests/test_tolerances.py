"""The arithmetic of the bounds itself, where no stage's test would tell."""

import numpy as np

from parity_tests.tolerances import Alike, Bounded, Probable, gamma, unit_roundoff

COUNT = 100


def error_of_a_sum(kind, way):
    """That of COUNT terms, each off by 1, in units of one term's."""
    x = kind(np.ones((1, COUNT)), np.ones((1, COUNT)), np.float64)
    total = x.sum(axis=1) if way == "sum" else x @ kind(np.ones((COUNT, 1)), 0.0, np.float64)
    return float(total.e.item())


def test_independent_errors_add_in_quadrature_and_equal_ones_add_up():
    for way in ("sum", "product"):
        assert np.isclose(error_of_a_sum(Probable, way), np.sqrt(COUNT))
        assert np.isclose(error_of_a_sum(Alike, way), COUNT)
        assert np.isclose(error_of_a_sum(Bounded, way), COUNT)


def test_sources_that_have_nothing_in_common_add_in_quadrature_even_where_numbers_repeat():
    for kind, want in ((Bounded, 2.0), (Probable, np.sqrt(2)), (Alike, np.sqrt(2))):
        one = kind(np.ones(1), np.ones(1), np.float64)
        assert np.isclose((one + one).e.item(), want)


def test_equal_terms_are_rounded_alike_inside_a_sum_too():
    alike, independent = (kind(np.ones(1), 0.0, np.float32).growth(COUNT) for kind in (Alike, Probable))
    assert alike == gamma(COUNT, unit_roundoff(np.float32)) > independent
