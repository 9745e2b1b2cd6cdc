"""Run the suite inside this process, or on several: progress, results, and what `harness.record` measured.

Loaded into pytest as a plugin (`-p parity_tests.running`), it also runs in the workers of pytest-xdist, which send
their records home when they finish.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from parity_tests import harness

ROOT = Path(__file__).resolve().parent.parent
# A quick run: the stages' own tests, less what fits coefficients or needs many examples to say anything.
QUICK = ("linear", "patch_embed", "class_token", "pos_embed", "layer_norm", "gelu", "dropout", "attention",
         "multi_head", "mlp", "encoder_block", "encoder", "head", "loss", "optimizer", "model", "algebra")  # fmt: skip
SLOW_TESTS = ("test_coefficients_are_those_that_the_fit_prints", "test_error_ratio")

Key = tuple[str, str, str]  # stage, dtype, tensor


@dataclass
class Outcome:
    """What a run of the suite found."""

    passed: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> tests
    records: dict[Key, dict[str, float]] = field(default_factory=dict)
    status: int = 0
    output: str = ""

    def merge(self, rows: dict[Key, dict[str, float]]) -> None:
        for key, row in rows.items():
            mine = self.records.setdefault(key, dict(row, examples=0))
            if row["worst_eps"] > mine["worst_eps"]:
                mine |= {"worst_eps": row["worst_eps"], "bound_eps": row["bound_eps"]}
            mine["of_bound"] = max(mine["of_bound"], row["of_bound"])
            mine["examples"] += row["examples"]


class Watch:
    """Counts tests and moves the bar. A worker's records come as (key, row) pairs: JSON has no tuple keys."""

    def __init__(self, bar: Any):
        self.bar, self.outcome, self.seen = bar, Outcome(), set()

    def pytest_collection_finish(self, session: Any) -> None:
        self.bar.total = len(session.items) or None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.bar.total = len(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        output = getattr(node, "workeroutput", {})
        self.outcome.merge({tuple(key): row for key, row in output.get("parity_records", [])})

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcome.failures.append({"test": report.nodeid, "message": last_line(report.longreprtext)})

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            text = report.longreprtext
            again = dict(report.sections).get("Reproduce", "")
            entry = {"test": report.nodeid, "message": first_error(text), "reproduce": again.strip()}
            self.outcome.failures.append(entry)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            self.outcome.skipped[reason] = self.outcome.skipped.get(reason, 0) + 1
        elif report.when == "call":
            self.outcome.passed += 1
        if report.nodeid not in self.seen and (report.when == "call" or not report.passed):
            self.seen.add(report.nodeid)
            self.bar.set_postfix_str(report.nodeid.split("::")[-1][:36], refresh=False)
            self.bar.update()


def pytest_sessionfinish(session: Any) -> None:
    """In a worker: send the records to the process that started it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["parity_records"] = [[list(key), row] for key, row in harness.RECORDS.items()]


def first_error(text: str) -> str:
    """The first line that says what is wrong."""
    lines = [line[1:].strip() for line in text.splitlines() if re.match(r"E\s", line)]
    return (lines or text.strip().splitlines() or ["no message"])[0]


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8) if importlib.util.find_spec("xdist") else 0


def run(profile: str, quick: bool, processes: int, bar: Any, more: list[str] | None = None) -> Outcome:
    """The whole suite (or the quick part) under a hypothesis profile; nothing is printed but the bar."""
    os.environ["HYPOTHESIS_PROFILE"] = profile
    tests = ROOT / "parity_tests"
    chosen = [str(tests / f"test_{name}.py") for name in QUICK] if quick else [str(tests)]
    arguments = [*chosen, "--rootdir", str(ROOT), "-p", "parity_tests.running", "--tb=short", *(more or [])]
    if quick:
        arguments += ["-k", " and ".join(f"not {name}" for name in SLOW_TESTS)]
    if processes > 1:
        arguments += ["-n", str(processes)]
    arguments += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]  # hypothesis is
    watch, text = Watch(bar), io.StringIO()
    harness.RECORDS.clear()
    with contextlib.redirect_stdout(text):
        watch.outcome.status = int(pytest.main(arguments, plugins=[watch]))
    watch.outcome.merge(harness.RECORDS)
    watch.outcome.output = text.getvalue()
    return watch.outcome
