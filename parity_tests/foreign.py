"""Another program's stage functions in the place of the NumPy engine's: `pytest parity_tests --engine my_module.py`.

Functions are found by name (`linear_forward`, `linear_backward`, ...); any subset will do. What is missing, or only
raises NotImplementedError, is reported as not tested, never as passed. A backward without a forward gets the NumPy
engine's forward, and its cache; a forward without a backward has its output compared and nothing else.

The module may set `COMPLEX_STEP = True` if its forwards take complex arrays: then the derivative is also checked
without torch.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import numpy_vit
from vit_common.errors import nearest

# The functions of the stage files, and the optimizers.
FILES = {f"numpy_vit.{stage}" for stage in (*numpy_vit.STAGES, *numpy_vit.VARIANTS)}
ABOUT_THE_SUITE = {"test_foreign", "test_diagnosis", "test_planted_bugs", "test_weak_practices", "test_ladder",
                   "test_low_precision"}  # fmt: skip
NAMES = [name for name, f in vars(numpy_vit).items() if inspect.isfunction(f) and f.__module__ in FILES]


class ForeignEngine:
    """`module`, seen as the harness sees an engine."""

    def __init__(self, module: Any, where: str):
        self.__name__ = where
        self.complex_step = getattr(module, "COMPLEX_STEP", False)
        present = {name: getattr(module, name) for name in NAMES if callable(getattr(module, name, None))}
        if not present:
            public = [name for name in vars(module) if not name.startswith("_")]
            hints = [f"{name}: {nearest(name, NAMES)}" for name in public[:3]]
            raise pytest.UsageError(
                f"--engine {where}: no stage function is there. Expected some of {', '.join(NAMES[:8])}, ...; "
                f"see numpy_vit for their arguments. " + "; ".join(hints)
            )
        self.own = {name: function for name, function in present.items() if not is_blank(function)}
        self.ran: set[str] = set()  # own functions that were called in this test and came back

    def function(self, name: str) -> Callable:
        """The module's function; for a backward that stands alone, the NumPy engine's forward."""
        if name in self.own:
            return self._guarded(name, self.own[name])
        stage, _, way = name.rpartition("_")
        if way == "forward" and f"{stage}_backward" in self.own:
            return getattr(numpy_vit, name)
        pytest.skip(f"not tested: {self.__name__} has no {name} yet")

    def differentiates(self, stage: str) -> bool:
        return f"{stage}_backward" in self.own

    def _guarded(self, name: str, function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            if "tape" in options and "tape" not in inspect.signature(function).parameters:
                pytest.skip(f"not tested: {name} takes no tape")
            if not self.complex_step and any(np.iscomplexobj(a) for a in _arrays(args)):
                pytest.skip(f"not tested by the complex step: {name} does not say that it takes complex numbers")
            try:
                result = function(*args, **options)
            except NotImplementedError:
                pytest.skip(f"not tested: {name} is not written yet")
            self.ran.add(name)
            return result

        return call

    def stages(self) -> dict[str, list[str]]:
        """What can be said of each stage."""
        groups: dict[str, list[str]] = {"tested": [], "forward only": [], "backward only": [], "not tested": []}
        for stage in every_stage():
            has = tuple(f"{stage}_{way}" in self.own for way in ("forward", "backward"))
            names = {(True, True): "tested", (True, False): "forward only", (False, True): "backward only"}
            groups[names.get(has, "not tested")].append(stage)
        groups["not tested"] += [n for n in NAMES if not n.endswith(("_forward", "_backward")) and n not in self.own]
        return groups


def every_stage() -> list[str]:
    """The plain model's stages, then the variants'."""
    from parity_tests.harness import STAGES
    from parity_tests.variants import VARIANTS

    return [*STAGES, *VARIANTS]


def stage_of(item: pytest.Item) -> str | None:
    """The one stage that a test is about: its parameter says which, or (of a variant) its file."""
    from parity_tests.variants import VARIANTS

    named = item.callspec.params.get("name") if hasattr(item, "callspec") else None
    stage = named or item.path.stem.removeprefix("test_")
    return stage if stage in VARIANTS or named in every_stage() else None


def is_blank(function: Callable) -> bool:
    """Whether the body only raises NotImplementedError, after a docstring perhaps."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body
    except (OSError, TypeError, SyntaxError, AttributeError, IndexError):
        return False
    rest = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return all(isinstance(s, ast.Raise) and "NotImplementedError" in ast.unparse(s) for s in rest)


def _arrays(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, dict):
            yield from _arrays(value.values())
        elif isinstance(value, np.ndarray):
            yield value


class Plugin:
    """Keeps the tests that concern an engine, and says at the end what was tested and what was not."""

    def __init__(self, engine: ForeignEngine):
        self.engine = engine
        self.wrong: dict[str, dict[str, None]] = {}  # stage -> what its failures say, each once

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        concerned = [item for item in items if self.concerns(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in concerned])
        items[:] = concerned
        for item in items:
            stage = stage_of(item)
            if stage and not any(f"{stage}_{way}" in self.engine.own for way in ("forward", "backward")):
                reason = f"not tested: {self.engine.__name__} has no {stage} yet"
                item.add_marker(pytest.mark.skip(reason=reason))  # before anything is drawn for it
            if "pytest.raises" in inspect.getsource(inspect.unwrap(item.function)):
                item.add_marker(pytest.mark.skip(reason="not tested: an engine's errors are its own"))

    def concerns(self, item: pytest.Item) -> bool:
        """Whether a test runs stages through the harness, and is not about the suite itself."""
        through = hasattr(getattr(item, "module", None), "harness") or stage_of(item)
        return bool(through) and item.path.stem not in ABOUT_THE_SUITE

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.engine.ran.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        report = yield
        if report.when == "call" and report.passed and not self.engine.ran:
            path, line, _ = item.location
            report.outcome = "skipped"
            report.longrepr = (path, line or 0, f"not tested: no function of {self.engine.__name__} took part")
        if report.failed:
            for stage, said in re.findall(r"AssertionError: ((?:\w+)): (.*)", report.longreprtext)[-1:]:
                self.wrong.setdefault(stage, {})[said[:160]] = None
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"engine {self.engine.__name__}")
        for state, stages in self.engine.stages().items():
            if stages:
                terminalreporter.write_line(f"{state}: {', '.join(stages)}")
        for stage, said in self.wrong.items():
            terminalreporter.write_line(f"to mend in {stage}:")
            for line in list(said)[:4]:
                terminalreporter.write_line(f"  {line}")
        if not self.engine.own:
            terminalreporter.write_line(
                "Nothing is written yet. A short one to begin with: pos_embed_backward, of x + pos_embed. Then: "
                f"pytest parity_tests/test_pos_embed.py --engine {self.engine.__name__}"
            )
