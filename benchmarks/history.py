"""The history: one JSON line a run; and what changed between two runs beyond their noise."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_common.errors import DataError
from vit_common.files import read_json, write_atomically

LEAST = 0.02  # changes below 2% are never called one: frequency and placement alone make as much


@dataclass(frozen=True)
class Change:
    """A contestant's median in two runs, and how large a change noise alone may make."""

    what: str
    before: float
    after: float
    noise: float

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def real(self) -> bool:
        return abs(math.log(self.ratio)) > max(self.noise, math.log1p(LEAST))


def times(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("case / contestant", its time) of every figure in a result or a line of history."""
    if "times" in result:
        yield from result["times"].items()
    for row in result.get("rows", ()):
        for name, time in row.get("times", {}).items():
            yield f"{row['case']} / {name}", time


def append(result: dict[str, Any], path: Path) -> None:
    """Add one line; the file is replaced as a whole, so a crash never leaves half a line."""
    brief = {key: result[key] for key in ("command", "label", "precision", "threads")}
    machine = result["machine"]
    brief |= {"date": machine["date"], "processor": machine["processor"], "versions": machine["versions"]}
    brief["times"] = dict(times(result))
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomically(
        path, lambda temporary: temporary.write_text(old + json.dumps(brief) + "\n", encoding="utf-8")
    )


def read(which: str, history: Path) -> dict[str, Any]:
    """A result file, or a line of the history counted from 0, or from the end: -1 is the last.

    Raises:
        DataError: neither a file nor a line that exists.
    """
    if not which.lstrip("-").isdigit():
        return read_json(which)
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    try:
        return json.loads(lines[int(which)])
    except IndexError:
        raise DataError(
            f"run {which} is not in {history}, which has {len(lines)} lines; give 0..{len(lines) - 1}"
        ) from None


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    r"""Every figure that both runs have.

    The standard error of a median is about $1.25 \sigma / \sqrt n$, and half an interquartile range $0.67
    \sigma$; noise is three standard errors of the difference.
    """
    old, changes = dict(times(before)), []
    for what, new in times(after):
        if what in old:
            errors = [1.25 / 0.67 * (t["spread"] or 0.0) / math.sqrt(t["samples"]) for t in (old[what], new)]
            changes.append(Change(what, old[what]["median_ms"], new["median_ms"], 3 * math.hypot(*errors)))
    return changes


def report(changes: list[Change]) -> str:
    """The real changes, largest first, and how many there are that are none."""
    real = sorted((c for c in changes if c.real), key=lambda c: -abs(math.log(c.ratio)))
    lines = [
        f"{c.what}: {c.before:.4g} -> {c.after:.4g} ms, x{c.ratio:.3f} ("
        f"{'slower' if c.ratio > 1 else 'faster'}; "
        f"noise up to x{math.exp(max(c.noise, math.log1p(LEAST))):.3f})"
        for c in real
    ]
    return "\n".join([*lines, f"{len(changes) - len(real)} of {len(changes)} figures unchanged within noise"])
