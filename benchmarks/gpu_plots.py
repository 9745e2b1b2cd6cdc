"""The picture of a `gpu` run: throughput, share of the product rate, memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plots import grouped
from vit_common.plots import figure, save, style

PANELS = {
    "images_per_second": "images a second",
    "efficiency": "share of the machine's bfloat16 product rate",
    "peak_mib": "peak memory, MiB",
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """One panel a figure, one group of bars a case and mode, one bar a contestant."""
    rows = result["rows"]
    who = list(dict.fromkeys(name.split(",")[0] for row in rows for name in row["times"]))
    labels = [f"{row['case']}, {row['mode']}" for row in rows]
    fig, axes = figure(1, len(PANELS), 14, 1.5 + 0.5 * len(rows))
    for ax, (field, title) in zip(axes[0], PANELS.items(), strict=True):
        style(ax, f"{result['device']}: {title}", title, "")
        values = {name: [row[field].get(f"{name}, {row['mode']}", 0.0) for row in rows] for name in who}
        grouped(ax, labels if ax is axes[0][0] else [""] * len(rows), values)
    save(fig, path)
