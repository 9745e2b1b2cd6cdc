"""A deep run that may be broken off: what each property has passed is kept, and not done again.

`python -m parity_tests --deep` runs every property on DEEP examples, those that depend on the fewest files first, and
notes each in build/deep.jsonl with a digest of the sources that it depends on. Run again, it does what is missing or
what a change has made new. `python -m parity_tests.deep` prints how far it is and writes results/deep_run.json.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from parity_tests.depends import digest, modules
from parity_tests.planting import ROOT
from parity_tests.strategies import DEEP
from vit_common.files import write_json

NOTES = ROOT / "build" / "deep.jsonl"
RESULT = Path(__file__).with_name("results") / "deep_run.json"
Note = dict[str, Any]


# ---- the notes -------------------------------------------------------------------------------------------------


def notes(path: Path | None = None) -> Iterator[Note]:
    path = path or NOTES
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):  # a line cut short is of a run that was killed
                yield json.loads(line)


def passed(path: Path | None = None) -> set[tuple[str, str]]:
    """(test, digest) of what has passed."""
    return {(note["test"], note["digest"]) for note in notes(path) if note["outcome"] == "passed"}


# ---- the plugin ------------------------------------------------------------------------------------------------


def name_of(item: Any) -> str:
    """A property has one name in all memory layouts, which share its examples."""
    given = getattr(item, "callspec", None)
    rest = [str(v) for n, v in given.params.items() if n != "layout"] if given else []
    return item.nodeid.split("[")[0] + (f"[{'-'.join(rest)}]" if rest else "")


def is_property(item: Any) -> bool:
    """Hypothesis draws its examples, or (it counts them itself) draws them inside."""
    return hypothesis.is_hypothesis_test(getattr(item, "obj", None)) or "record_property" in item.fixturenames


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Properties alone, what has not passed as it is now, the fewest dependencies first."""
    done = passed()
    for item in items:
        if is_property(item):
            item.deep = modules(item)
    chosen = [i for i in items if is_property(i) and (i.nodeid, digest(i.deep)) not in done]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = sorted(chosen, key=lambda item: len(item.deep))


COUNTED: dict[Any, list[int]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any):
    """Count the examples that are really run."""
    handle = getattr(getattr(item, "obj", None), "hypothesis", None)
    if handle is None:
        return (yield)
    function = getattr(item.obj, "__func__", item.obj)
    if function not in COUNTED:
        COUNTED[function] = count = [0]
        inner = handle.inner_test

        @functools.wraps(inner)
        def counting(*args: Any, **options: Any) -> Any:
            count[0] += 1
            return inner(*args, **options)

        handle.inner_test = counting
    before = COUNTED[function][0]
    try:
        return (yield)
    finally:
        item.user_properties.append(("examples", COUNTED[function][0] - before))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: Any, call: Any):
    report = yield
    if call.when == "call" and hasattr(item, "deep"):
        report.user_properties += [("digest", digest(item.deep)), ("property", name_of(item))]
    return report


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Notebook:
    """In the process that gathers the results: one line a test, as it comes."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = dict(report.user_properties)
        if report.when == "call" and "digest" in found:
            NOTES.parent.mkdir(exist_ok=True)
            note = {"test": report.nodeid, "digest": found["digest"], "outcome": report.outcome,
                    "property": found["property"], "examples": found.get("examples", 0),
                    "seconds": round(report.duration, 2), "date": now()}  # fmt: skip
            if report.failed:
                note["why"] = report.longreprtext[-3000:]
            with NOTES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")


def pytest_configure(config: Any) -> None:
    if hypothesis.settings.default.max_examples < DEEP:
        raise pytest.UsageError("-p parity_tests.deep needs HYPOTHESIS_PROFILE=deep: it notes what was run in full")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Notebook())


# ---- how far it is ---------------------------------------------------------------------------------------------


class Collected:
    """The properties that there are, with the digest of what each depends on now."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}  # test -> its property, and the digest

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.found = {i.nodeid: (name_of(i), digest(modules(i))) for i in items if is_property(i)}


def state() -> dict[str, Any]:
    """Properties, how many have passed as the sources are now, on how many examples."""
    from parity_tests.report import machine, versions

    watch = Collected()
    quiet = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]  # hypothesis is
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "--rootdir", str(ROOT), *quiet, str(ROOT / "parity_tests")], plugins=[watch])
    latest = {(note["test"], note["digest"]): note for note in notes()}
    properties: dict[str, list[Note | None]] = {}
    for test, (name, mark) in watch.found.items():
        properties.setdefault(name, []).append(latest.get((test, mark)))
    outcomes = {name: {note["outcome"] if note else "not run" for note in parts} for name, parts in properties.items()}
    good = {n: sum(note["examples"] for note in parts if note) for n, parts in sorted(properties.items())
            if outcomes[n] == {"passed"}}  # fmt: skip
    return {
        "examples_asked": DEEP, "properties": len(properties), "passed": len(good),
        "failed": sorted(n for n, o in outcomes.items() if "failed" in o),
        "skipped": sorted(n for n, o in outcomes.items() if "skipped" in o),
        "not_run": sum("not run" in o for o in outcomes.values()),
        "with_all_examples": sum(n >= DEEP for n in good.values()), "examples": sum(good.values()),
        "seconds": round(sum(note["seconds"] for parts in properties.values() for note in parts if note)),
        "examples_of": good, "versions": versions(), "machine": machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def main() -> int:
    found = state()
    write_json(RESULT, found)
    print(
        f"{found['passed']} of {found['properties']} properties passed, {found['with_all_examples']} of them on at "
        f"least {DEEP} examples (the others have no more), {len(found['failed'])} failed, {len(found['skipped'])} "
        f"skipped, {found['not_run']} not run; {found['examples']} examples. Written: {RESULT}"
    )
    return bool(found["failed"])


if __name__ == "__main__":
    sys.exit(main())
