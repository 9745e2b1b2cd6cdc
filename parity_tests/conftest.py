"""Hypothesis profiles and the command-line options of the suite."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from parity_tests import foreign, harness, reproduce, traces
from parity_tests.reproduce import pytest_collection_modifyitems, pytest_runtest_makereport  # noqa: F401
from parity_tests.strategies import DEEP

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("smoke", max_examples=10, deadline=None, suppress_health_check=QUIET, print_blob=True)
# The same examples in every run, so that a failure is a change in the code and not in the draw; "explore" and "deep"
# draw anew and keep what failed in the example database.
settings.register_profile("default", max_examples=150, deadline=None, suppress_health_check=QUIET, print_blob=True,
                          derandomize=True)  # fmt: skip
settings.register_profile("explore", max_examples=150, deadline=None, suppress_health_check=QUIET, print_blob=True)
settings.register_profile("deep", max_examples=DEEP, deadline=None, suppress_health_check=QUIET, print_blob=True)
# Against a mutant: no shrinking, no replay, the same examples in every run.
settings.register_profile("mutants", max_examples=int(os.environ.get("MUTANT_EXAMPLES", "25")), deadline=None,
                          suppress_health_check=list(HealthCheck), derandomize=True, database=None,
                          phases=[Phase.explicit, Phase.generate])  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    reproduce.add_option(parser)
    parser.addoption("--engine", default="numpy_vit", help="module or .py file whose stage functions are tested")
    parser.addoption("--traces", help="folder of trace files, of a program in any language, to compare")


def pytest_configure(config):
    if config.getoption("--traces"):
        config.pluginmanager.register(traces.Plugin(config.getoption("--traces")))
    where = config.getoption("--engine")
    if where != "numpy_vit":
        harness.ENGINE = foreign.ForeignEngine(harness.load_engine(where), where)
        now = settings.get_profile(settings.get_current_profile_name())  # one mistake of someone's own at a time
        settings.register_profile("engine", parent=now, report_multiple_bugs=False)
        settings.load_profile("engine")
        config.pluginmanager.register(foreign.Plugin(harness.ENGINE))


@pytest.fixture(autouse=True)
def _strict_floating_point():
    """Overflow to infinity is legal at the ends of the range and compared as such; it is no error by itself."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        yield
