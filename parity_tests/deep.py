"""A deep run that may be broken off: what each property has passed is kept, and not done again.

`python -m parity_tests --deep` runs every property on DEEP examples, those that depend on the fewest files first, and
notes each in build/deep.jsonl with a digest of the sources that it depends on. Run again, it does what is missing or
what a change has made new. `python -m parity_tests.deep` prints how far it is and writes results/deep_run.json.

A test of one stage (its file, or its parameter, says which) depends on its own imports and on what that stage's files
import in both engines; any other test on all of both engines.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import functools
import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from parity_tests.planting import ROOT, source_path
from parity_tests.strategies import DEEP
from vit_common.files import write_json

NOTES = ROOT / "build" / "deep.jsonl"
RESULT = Path(__file__).with_name("results") / "deep_run.json"
ENGINES, COMMON = ("numpy_vit", "torch_vit"), "vit_common"
PACKAGES = (*ENGINES, COMMON, "parity_tests", "benchmarks")
# The file of a stage that is not named after it.
FILES = {"softmax": "attention", "drop_path": "dropout", "pool": "head", "cross_entropy": "loss", "vit": "model"}
# What speaks only after a failure, or of another's engine: it decides nothing.
ASIDE = {f"parity_tests.{name}" for name in ("foreign", "diagnosis", "reproduce", "traces")}
Note = dict[str, Any]


# ---- what a test depends on ------------------------------------------------------------------------------------


@cache
def imports(module: str) -> frozenset[str]:
    """The project's modules that a module names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(source_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            where = gathered() if node.module == COMMON else {}
            found |= {where.get(alias.name, node.module) for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(n for n in found if n.split(".")[0] in PACKAGES and source_path(n).is_file())


@cache
def gathered() -> dict[str, str]:
    """Name -> the module that defines it, of what vit_common hands out as its own."""
    tree = ast.parse(source_path(COMMON).read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    found = {alias.name: node.module for node in froms for alias in node.names if node.module != COMMON}
    return found | dict.fromkeys(("load_checkpoint", "save_checkpoint"), "vit_common.checkpoint")


@cache
def reached(module: str) -> frozenset[str]:
    """The module and all that it imports, directly or not; not what an engine's __init__ gathers, nor ASIDE."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen and name not in ASIDE:
            seen.add(name)
            todo += imports(name) if name not in ENGINES else []
    return frozenset(seen)


def modules(item: Any) -> frozenset[str]:
    """Every module that a test depends on."""
    test = reached(f"parity_tests.{item.path.stem}") if item.path.parent.name == "parity_tests" else frozenset()
    own = {m for m in test if m.split(".")[0] not in ENGINES}
    parts = [reached(f"{engine}.{file}") for engine in ENGINES for file in stage_files(item)]
    return frozenset(own.union(*parts) if parts else own | every_engine_file())


def stage_files(item: Any) -> list[str]:
    """The file of the stage that a test is about; none if it is about several."""
    given = getattr(item, "callspec", None)
    named = given.params.get("name") if given else None
    stage = named if isinstance(named, str) else item.path.stem.removeprefix("test_")
    file = FILES.get(stage, stage)
    return [file] if (ROOT / ENGINES[0] / f"{file}.py").is_file() else []


@cache
def every_engine_file() -> frozenset[str]:
    return frozenset(f"{e}.{p.stem}" for e in ENGINES for p in (ROOT / e).glob("*.py"))


@cache
def digest(names: frozenset[str]) -> str:
    found = hashlib.blake2b(digest_size=12)
    for name in sorted(names):
        found.update(f"{name}\n{meaning(source_path(name).read_text(encoding='utf-8'))}".encode())
    return found.hexdigest()


def meaning(source: str) -> str:
    """A source without its comments, docstrings and functions' annotations: changing those changes no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


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
