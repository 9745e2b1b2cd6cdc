"""The tests that mutants meet: which of them run a given line of the engines, and how long each takes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis.errors import InvalidArgument

import numpy_vit
from parity_tests.mutant_run import Verdict, allow, patch, run
from parity_tests.mutations import Mutant
from parity_tests.planting import ROOT

ENGINES = "numpy_vit", "torch_vit"
FEW, MANY = 25, 75  # examples a property
OWN, OTHERS = 2.0, 20.0  # seconds of tests, of the mutant's own stage and of others: what outlives them has survived
ROUNDS = 3
# Not these: tests of the tests and those that compare with what is installed on few machines.
LEFT_OUT = ("diagnosis", "foreign", "ladder", "mutants", "oracles", "peers_huggingface", "peers_timm", "planted_bugs",
            "real_weights", "traces", "weak_practices")  # fmt: skip
MORE = "tests/test_fast_cpu.py", "tests/test_trace.py"
CACHE = ROOT / "build" / "mutant_lines.json"

Items = list[pytest.Item]


def sources() -> list[str]:
    """Every file of the NumPy engine, and the PyTorch engine's stages: how that one is run is tested in tests/."""
    stages = {*numpy_vit.STAGES, *numpy_vit.VARIANTS}
    found = (path for engine in ENGINES for path in sorted((ROOT / engine).glob("*.py")))
    kept = (path for path in found if path.parent.name == "numpy_vit" or path.stem in stages)
    return [path.relative_to(ROOT).as_posix() for path in kept if not path.name.startswith("__")]


def collected(work: Callable[[Items], None]) -> None:
    """Collect the tests, and do this instead of running them."""

    class Instead:
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            work(session.items)
            return True

    os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "MUTANT_EXAMPLES": str(FEW)}
    files = sorted(ROOT.glob("parity_tests/test_*.py"))
    files = [path for path in files if path.stem.removeprefix("test_") not in LEFT_OUT]
    without = ["-p", "no:xdist", "-p", "no:pytest_cov", "-p", "no:unittest"]  # what costs time and is not needed
    options = ["-q", "-s", *without, "--assert=plain", "--tb=native"]
    if pytest.main([*options, *map(str, files), *MORE], plugins=[Instead()]):
        raise SystemExit("the tests could not be collected or run")


class Trait(NamedTuple):
    """What is known of a test."""

    seconds: float  # of processor time
    runs: list[str]  # "file:line" and "file|function" of the engines


UNKNOWN = Trait(10.0, [])


# ---- which tests a mutant meets --------------------------------------------------------------------------------


class Tests:
    """The tests in the order in which a mutant meets them.

    `traits`: by test. Without, every mutant meets every test: for a few mutants that is sooner done. (That the tests
    pass without a mutant is then taken for granted: a sample stands among them.)
    """

    def __init__(self, items: Items, traits: dict[str, Trait] | None = None):
        self.items, self.traits = items, traits or {}
        self.kills: Counter[str] = Counter()  # by test: who found something before comes sooner
        self.running: dict[str, Items] = {}
        for item in sorted(items, key=lambda item: self.seconds(item)):
            runs = self.of(item).runs
            for place in {*runs, *(place.split("|")[0] for place in runs if "|" in place)}:
                self.running.setdefault(place, []).append(item)

    def of(self, item: pytest.Item) -> Trait:
        return self.traits.get(item.nodeid, UNKNOWN)

    def seconds(self, item: pytest.Item) -> float:
        return self.of(item).seconds

    def meeting(self, mutant: Mutant) -> tuple[Items, Items]:
        """(tests of its own stage, others that run its lines): first those that are quick or find much."""
        stem, running = Path(mutant.file).stem, self.that_run(mutant)
        own = [i for i in running if i.path.stem == f"test_{stem}" or f"[{stem}]" in i.name] or running[:10]
        own = self.within(OWN, own)
        if mutant.before.startswith("def "):  # tests of signatures run no function
            own = [*(item for item in self.items if "default" in item.name), *own]
        others = [item for item in running if item not in own]
        return own, self.within(OTHERS, sorted(others, key=self.seconds_a_kill))

    def that_run(self, mutant: Mutant) -> Items:
        """The tests that run the changed lines; where no line is run, as in the head of a function, the function."""
        if not self.traits:  # the whole model of any configuration runs most of what there is
            return sorted(self.items, key=lambda i: not i.path.stem.endswith(("assembled", "contracts")))
        head = mutant.before.startswith(("def ", "class "))
        lines = () if head else range(mutant.line, mutant.end + 1)
        found = {item for line in lines for item in self.running.get(f"{mutant.file}:{line}", ())}
        if not found:
            found = self.running.get(f"{mutant.file}|{mutant.function}") or self.running.get(mutant.file, [])
        return sorted(found, key=self.seconds)

    def seconds_a_kill(self, item: pytest.Item) -> float:
        return self.seconds(item) / (1 + self.kills[_name(item)])

    def within(self, seconds: float, items: Items) -> Items:
        """As many as take so long altogether, one at least; all where their time is not known."""
        spent = list(accumulate(map(self.seconds, items)))
        return items[: max(bisect(spent, seconds), 1)] if self.traits else items

    def judge(self, mutant: Mutant, number: int) -> Verdict:
        """One of the ROUNDS: its own tests, the others, its own with many examples."""
        own, others = self.meeting(mutant)
        verdict = run(partial(self._failure, mutant, [own, others, own][number], number == ROUNDS - 1))
        self.kills[verdict.by] += 1
        return verdict

    def _failure(self, mutant: Mutant, items: Items, many: bool) -> str:
        allow(10.0)
        patch(importlib.import_module(_module(mutant.file)), mutant.source)
        return self.first_failure(_with_more_examples(items) if many else items)

    def first_failure(self, items: Items) -> str:
        for item in items:
            allow(10.0 + 10.0 * self.seconds(item))
            if _fails(item):
                return _name(item)
        return ""


def _name(item: pytest.Item) -> str:
    return item.nodeid.removeprefix("parity_tests/")


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _with_more_examples(items: Items) -> Items:
    """Those with examples, with MANY."""
    raised = set()
    for item in items:
        test = getattr(item, "obj", None)
        if hasattr(test, "hypothesis") and test not in raised:
            with contextlib.suppress(InvalidArgument):  # it says itself how many it wants
                settings(max_examples=MANY)(test)
                raised.add(test)
    return [item for item in items if getattr(item, "obj", None) in raised]


class _Outcome:
    """A pytest plugin that remembers what became of the test."""

    failed = skipped = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed
        self.skipped |= report.skipped


def _fails(item: pytest.Item) -> bool:
    return _outcome(item).failed


def _outcome(item: pytest.Item) -> _Outcome:
    outcome, plugins = _Outcome(), item.config.pluginmanager
    plugins.register(outcome)
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    plugins.unregister(outcome)
    return outcome


# ---- what is known of the tests --------------------------------------------------------------------------------


def traits(items: Items, say: Callable[[str], None]) -> dict[str, Trait]:
    """Of each test that is not skipped, from the cache where nothing has changed; all must pass without a mutant."""
    known = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    code = [p for folder in (*ENGINES, "vit_common", "parity_tests") for p in ROOT.glob(f"{folder}/*.py")]
    common = _digest(path for path in code if not path.name.startswith(("test_", "mut")))
    found: dict[str, Trait] = {}
    for path in sorted({item.path for item in items}):
        digest = f"{_digest([path])} {common}"
        if known.get(path.name, {}).get("digest") != digest:
            say(f"which lines does {path.name} run?")
            known[path.name] = {"digest": digest, "tests": _measured([item for item in items if item.path == path])}
            CACHE.parent.mkdir(exist_ok=True)
            CACHE.write_text(json.dumps(known))
        found |= {test: Trait(*trait) for test, trait in known[path.name]["tests"].items()}
    return found


def _digest(paths: Iterable[Path]) -> str:
    return hashlib.blake2b(b"".join(path.read_bytes() for path in sorted(paths)), digest_size=8).hexdigest()


def _measured(items: Items) -> dict[str, tuple[float, list[str]]]:
    """In a child, every module patched with its own source: it shows that patching as such changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tests.json")

        def check() -> str:
            for source in sources():
                patch(importlib.import_module(_module(source)), (ROOT / source).read_text())
            measured = {}
            for item in items:
                start, seen = time.process_time(), set()
                _trace(seen.add)
                outcome = _outcome(item)
                _trace(None)
                if outcome.failed:
                    return item.nodeid
                if not outcome.skipped:
                    measured[item.nodeid] = time.process_time() - start, sorted(seen)
            file.write_text(json.dumps(measured))
            return ""

        if (verdict := run(check)).killed:
            raise SystemExit(f"fails without a mutant: {verdict.by}")
        return json.loads(file.read_text())


def _trace(seen: Callable[[str], None] | None) -> None:
    """Report every function and every line of the engines that is run, in all threads."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        file = _engine_file(frame.f_code.co_filename)
        if not file or not seen:
            return None
        name = frame.f_code.co_qualname.replace(".<locals>", "")
        seen(f"{file}|{name}" if event == "call" else f"{file}:{frame.f_lineno}")
        return trace

    sys.settrace(seen and trace)
    threading.settrace(seen and trace)


@cache
def _engine_file(name: str) -> str:
    path = Path(name)
    return path.relative_to(ROOT).as_posix() if path.parent.parent == ROOT and path.parent.name in ENGINES else ""
