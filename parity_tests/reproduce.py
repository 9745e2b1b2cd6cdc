"""One line that runs a failing example again: `pytest TEST --reproduce BLOB`.

Hypothesis prints, with a failure, a blob that holds the shrunken example. The hooks here turn it into a command, and
`--reproduce` applies it to the tests that were named. (Without it the example database does the same on the machine
where the failure was seen: .hypothesis keeps every failing example, and the next run starts with them.)
"""

from __future__ import annotations

import re
from typing import Any

import hypothesis
import pytest

BLOB = re.compile(r"@reproduce_failure\('([^']+)', b'([^']+)'\)")


def add_option(parser: Any) -> None:
    parser.addoption("--reproduce", metavar="BLOB", help="run the named test on this example alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any):
    report = yield
    if report.failed and (line := command(item.nodeid, report.longreprtext, item.config)):
        report.sections.append(("Reproduce", line))
    return report


def command(nodeid: str, text: str, config: Any = None) -> str | None:
    """The command for the last blob in a failure's text, or None."""
    found = BLOB.findall(text)
    if not found:
        return None
    engine = config.getoption("--engine", None) if config else None
    more = f" --engine {engine}" if engine not in (None, "numpy_vit") else ""
    return f"python -m pytest '{nodeid}' --reproduce '{found[-1][1]}'{more}"


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    blob = config.getoption("--reproduce", None)
    if not blob:
        return
    fitting = [item for item in items if hypothesis.is_hypothesis_test(item.obj)]
    if len({item.obj for item in fitting}) != 1:
        raise pytest.UsageError(f"--reproduce needs one property to run, and {len(fitting)} were named")
    reproduced = hypothesis.reproduce_failure(hypothesis.__version__, blob.encode())
    reproduced(fitting[0].obj)
