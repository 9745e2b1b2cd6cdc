"""Result files: JSON, written atomically, with the machine they hold for; one line of history a run."""

from pathlib import Path
from typing import Any

from benchmarks import history
from vit_common.files import write_json

RESULTS = Path(__file__).parent / "results"
REQUIRED = {"command", "label", "precision", "threads", "machine", "rows"}  # rows: a list of dicts, see `row`


def row(case: str, timings: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One line of a result: what was measured, {contestant: Timing}, and what belongs to it."""
    return {"case": case, "times": {name: t.to_dict() for name, t in timings.items()}, **more}


def save(result: dict[str, Any], folder: Path = RESULTS, *, finished: bool = True) -> Path:
    """Write RESULTS/command[-label].json, and once it is finished a line of history.

    Raises:
        ValueError: a field is missing.
    """
    missing = REQUIRED - result.keys()
    if missing:
        raise ValueError(f"a result needs the fields {sorted(missing)}")
    name = "-".join(filter(None, (result["command"], result["label"])))
    path = folder / f"{name}.json"
    write_json(path, result)
    if finished:
        history.append(result, folder / "history.jsonl")
    return path
