"""The parity report as data, and as a short table in the terminal."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests import harness
from parity_tests.running import Outcome
from parity_tests.variants import VARIANTS

LIBRARIES = ("numpy", "torch", "hypothesis", "mpmath", "scipy", "pytest")
SCORE = Path(__file__).with_name("mutation_score.json")
WIDE = 0.01  # a bound of which no example ever used this share is marked

# Why a bound may stay far above everything seen: what the analysis must allow and examples cannot produce.
WHY_WIDE = {
    "alike": "both engines rounded alike in every example, to the bit; the bound holds for any order of summation",
    "exact": "the operation only moves, copies or selects numbers, or rounds by a power of two: no error was expected",
    "worst case": "the bound holds for every order of summation and for roundings that all point one way",
    "probable": "composite: LAMBDA standard deviations of errors propagated as if independent, so that one number in "
    "1e15 would exceed it; with so few numbers in one tensor, none comes near",
}


def build(outcome: Outcome, profile: str, seconds: float, curves: dict[str, Any] | None) -> dict[str, Any]:
    """Everything that is reported, as one tree of plain values."""
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "profile": profile,
        "seconds": round(seconds, 1),
        "tests": {"passed": outcome.passed, "failed": len(outcome.failures), "skipped": sum(outcome.skipped.values()),
                  "failures": outcome.failures, "skip_reasons": outcome.skipped},
        "rows": rows(outcome),
        "mutation": mutation_score(),
        "trajectories": curves,
        "versions": versions(),
        "machine": machine(),
    }


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """One row a stage, dtype and tensor, in reading order."""
    stages = {**harness.STAGES, **VARIANTS}
    order = {name: i for i, name in enumerate(stages)}
    found = []
    for (stage, dtype, tensor), row in outcome.records.items():
        of = stages.get(plain(stage))
        kind = "worst case" if of and of.kind == "leaf" and stage == of.name else "probable"
        if row["of_bound"] == 0:
            kind = "alike" if dtype == "float64" and row["bound_eps"] > 0 else "exact"
        wide = row["of_bound"] < WIDE
        entry = {"stage": stage, "dtype": dtype, "tensor": tensor, "examples": int(row["examples"]),
                 "worst_eps": row["worst_eps"], "bound_eps": row["bound_eps"], "of_bound": row["of_bound"],
                 "wide": wide}  # fmt: skip
        found.append({**entry, "why": WHY_WIDE[kind]} if wide else entry)
    return sorted(found, key=lambda r: (order.get(plain(r["stage"]), len(order)), r["stage"], r["dtype"], r["tensor"]))


def plain(stage: str) -> str:
    """The stage of which this is a form: "linear (torch)" and "linear, in loops" are linear."""
    return stage.split(" (")[0].split(",")[0]


def mutation_score(path: Path = SCORE) -> dict[str, dict[str, int]] | None:
    """Per file: mutants, killed, equivalent, survived, not run; None before `make mutants` has finished once."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the figures hold for; no names and no folders."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return {"processor": processor, "cores": cores, "system": f"{platform.system()} {platform.machine()}", "blas": blas}


def summary(report: dict[str, Any]) -> str:
    """A line a stage and dtype: its worst tensor, and the tensor that came nearest to its bound."""
    lines = [f"{'stage':27}{'dtype':9}{'examples':>9}{'worst error':>14} {'in':22}{'of bound':>9} {'in':22}{'wide':>5}"]
    for stage, dtype, group in groups(report["rows"]):
        worst = max(group, key=lambda r: r["worst_eps"])
        near = max(group, key=lambda r: r["of_bound"])
        wide = sum(r["wide"] for r in group)
        seen = f"{max(r['examples'] for r in group):>9}{worst['worst_eps']:>10.3g} eps {worst['tensor'][:21]:22}"
        lines.append(f"{stage[:26]:27}{dtype:9}{seen}{near['of_bound']:>9.1%} {near['tensor'][:21]:22}{wide:>5}")
    tests = report["tests"]
    lines += [
        f"{tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped in {report['seconds']:.0f} s, "
        f"profile {report['profile']}",
        f"wide: tensors that never used {WIDE:.0%} of their bound; the report says why",
    ]
    if report["mutation"]:
        left, total = (sum(row[name] for row in report["mutation"].values()) for name in ("not run", "mutants"))
        lines.append(f"mutation score: {killed_share(report['mutation']):.2%} ({left} of {total} mutants not run)")
    return "\n".join(lines)


def groups(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["stage"], row["dtype"]), []).append(row)
    return [(stage, dtype, group) for (stage, dtype), group in found.items()]


def killed_share(table: dict[str, dict[str, int]]) -> float:
    """Killed, of the mutants that can be noticed and were run."""
    total = {name: sum(row[name] for row in table.values()) for name in next(iter(table.values()))}
    countable = total["mutants"] - total["equivalent"] - total["not run"]
    return total["killed"] / countable if countable else 1.0


def failures(report: dict[str, Any]) -> str:
    return "\n".join(
        f"FAILED {f['test']}\n  {f['message']}" + (f"\n  again: {f['reproduce']}" if f.get("reproduce") else "")
        for f in report["tests"]["failures"]
    )
