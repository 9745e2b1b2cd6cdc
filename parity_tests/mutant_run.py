"""Run tests against one mutant, in a forked child: what is slow to import is imported once, in the parent.

The parent must not have imported either engine; the child's imports then go through the hook that holds the mutant.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from parity_tests.planting import ROOT, Planted

MEMORY = 12 << 30  # bytes of address space: a mutant may ask for an absurd array
TRIAL = """
import torch
from hypothesis import given, strategies as st
from torch.func import functional_call, grad, jvp

@given(x=st.floats(0, 1))
def test_trial(x):
    jvp(grad(lambda a: a * a), (torch.tensor(x),), (torch.tensor(1.0),))
    layer = torch.nn.Linear(2, 2)
    functional_call(layer, dict(layer.named_parameters()), torch.zeros(1, 2)).sum().backward()
"""


class Verdict(NamedTuple):
    killed: bool
    by: str  # the test that failed first, or how else the mutant died
    seconds: float


def warm_up() -> None:
    """Import what every child needs and no mutant changes."""
    import hypothesis.strategies
    import numpy
    import pytest
    import scipy.special
    import torch.func

    import vit_common
    import vit_common.masks
    import vit_common.recipe
    import vit_common.tape

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trial = Path(folder, "test_trial.py")  # pytest, hypothesis and autograd load much only when they are used
        trial.write_text(TRIAL)
        pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:pytest_cov", str(trial)])
    del hypothesis, numpy, scipy, vit_common
    assert not {"numpy_vit", "torch_vit"} & set(sys.modules), "an engine was imported before its mutants"


class _FirstFailure:
    """A pytest plugin that remembers the first test that failed."""

    node = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.node:
            self.node = report.nodeid.split("/")[-1]

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.node:
            self.node = f"import of {report.nodeid.split('/')[-1]}"


Check = Callable[[], str]  # says what failed first, or nothing


def stage_check(stages: Sequence[str], examples: int) -> Check:
    """The harness checks of these stages: a tenth of pytest's time, and enough for most mutants."""

    def check() -> str:
        import numpy_vit
        from parity_tests.stage_checks import failure

        for stage in stages:
            if failure(numpy_vit, stage, examples):
                return f"harness checks of {stage}"
        return ""

    return check


def pytest_check(tests: Sequence[str], examples: int) -> Check:
    """Test files, with so many examples a property."""

    def check() -> str:
        import pytest

        os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "MUTANT_EXAMPLES": str(examples)}
        first = _FirstFailure()
        quiet = "ignore::pytest.PytestAssertRewriteWarning"  # what the parent imported is not rewritten
        options = ["-x", "-q", "-p", "no:xdist", "-p", "no:pytest_cov", "-W", quiet]
        code = pytest.main([*options, *(f"parity_tests/{test}" for test in tests)], plugins=[first])
        return "" if code == 0 else first.node or f"pytest exit {int(code)}"

    return check


def run(sources: dict[str, str], check: Check, limit: float) -> Verdict:
    """Check engines of these sources (dotted module -> text); killed if that fails or takes longer than `limit` s."""
    start = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(sources, check, writing)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], limit)
    said = os.read(reading, 4096).decode() if ready else "time limit"
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    os.waitpid(child, 0)
    seconds = time.monotonic() - start
    return Verdict(said != "passed", said or "the process died", seconds)


def _child(sources: dict[str, str], check: Check, writing: int) -> None:
    said = ""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.chdir(ROOT)
        sys.meta_path.insert(0, Planted(sources))
        sys.dont_write_bytecode = True
        said = check() or "passed"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        os.write(writing, (said or "nothing said")[:4000].encode())
        os._exit(0)
