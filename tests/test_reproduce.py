"""A failing property says how to run its example again, in one line that works."""

from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests import reproduce


def failing():
    """A fresh property that fails from 10 on, and every number it was run with."""
    seen = []

    @hypothesis.settings(print_blob=True, database=None)
    @given(n=st.integers(0, 100))
    def prop(n):
        seen.append(n)
        assert n < 10

    return prop, seen


def blob_of(prop) -> str:
    with pytest.raises(AssertionError) as caught:
        prop()
    text = "\n".join(caught.value.__notes__)
    line = reproduce.command("test_x.py::test_y", text)
    assert line.startswith("python -m pytest 'test_x.py::test_y' --reproduce '")
    return line.split("'")[3]


def options(**given_options):
    return SimpleNamespace(getoption=lambda name, default=None: given_options.get(name.strip("-"), default))


def test_the_line_runs_the_shrunken_example_alone():
    blob = blob_of(failing()[0])
    again, seen = failing()
    reproduce.pytest_collection_modifyitems(options(reproduce=blob), [SimpleNamespace(obj=again)])
    with pytest.raises(AssertionError):
        again()
    assert set(seen) == {10}


def test_other_failures_and_other_engines():
    assert reproduce.command("test_x.py::test_y", "assert 1 == 2") is None
    text = "adding @reproduce_failure('6.1', b'AAEB') as a decorator"
    assert reproduce.command("t", text, options(engine="mine.py")) == (
        "python -m pytest 't' --reproduce 'AAEB' --engine mine.py"
    )


def test_one_property_at_a_time():
    items = [SimpleNamespace(obj=failing()[0]) for _ in range(2)]
    with pytest.raises(pytest.UsageError, match="needs one property to run, and 2 were named"):
        reproduce.pytest_collection_modifyitems(options(reproduce="AAEB"), items)
