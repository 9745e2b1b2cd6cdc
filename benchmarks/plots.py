"""Pictures of results, in the project's one look (`vit_common.plots`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.plots import COLOURS, INK, figure, save, style

ENGINES = ("numpy", "torch")


def roofline(result: Mapping[str, Any], path: Path) -> None:
    """Left: products under the roof. Right: what share of its own limit every stage reaches."""
    fig, axes = figure(1, 2, 11, 5)
    roof, bars = axes[0]
    style(
        roof, f"{result['preset']}, batch {result['batch']}: roofline", "operations per byte moved", "GFLOP/s"
    )
    style(bars, "share of the limit (products or memory) reached", "", "")
    peaks = result["ceilings_gflops"]
    ceilings = {"numpy": peaks["numpy"], "torch": peaks.get("torch oneDNN", peaks["torch F.linear"])}
    intensity = np.geomspace(1, 1000, 100)
    for engine in ENGINES:
        limit = np.minimum(ceilings[engine], intensity * result["bandwidth_gbs"])
        roof.loglog(intensity, limit, color=COLOURS[engine], linewidth=1, label=f"{engine}: limit")
        for marker, way in (("o", "forward"), ("s", "backward")):
            rows = [r for r in result["rows"] if r["flops"] and r["case"].endswith(way)]
            x = [r["flops"] / r["bytes"] for r in rows]
            y = [r["flops"] / r["times"][engine]["min_ms"] / 1e6 for r in rows]
            roof.plot(x, y, marker, color=COLOURS[engine], markersize=4, alpha=0.8, label=f"{engine}: {way}")
    roof.legend(fontsize=7, frameon=False)
    grouped(
        bars,
        [r["case"] for r in result["rows"]],
        {e: [r["efficiency"][e] for r in result["rows"]] for e in ENGINES},
    )
    save(fig, path)


def grouped(ax: Any, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Horizontal bars, a group a label, the first at the top."""
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        y = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * height
        ax.barh(y, values, height, label=name, color=COLOURS.get(name, f"C{i}"))
    ax.set_yticks(range(len(labels)), labels, fontsize=6.5)
    ax.invert_yaxis()
    ax.legend(fontsize=7, frameon=False)


def scaling(result: Mapping[str, Any], path: Path) -> None:
    """Time against each size, with the fitted exponents beside the cost model's."""
    axes_names = list(dict.fromkeys(r["axis"] for r in result["rows"]))
    fig, axes = figure(1, len(axes_names), 3.2 * len(axes_names), 3.2)
    for ax, name in zip(axes[0], axes_names, strict=True):
        rows = [r for r in result["rows"] if r["axis"] == name]
        fits = result["exponents"][name]
        style(ax, f"{name}: cost model {fits['flops']:.2f}", name, "ms, forward + backward")
        for engine in ENGINES:
            y = [r["times"][engine]["min_ms"] for r in rows]
            ax.loglog(
                [r["size"] for r in rows],
                y,
                "o-",
                color=COLOURS[engine],
                label=f"{engine}: {fits[engine]:.2f}",
            )
        ax.legend(fontsize=7, frameon=False)
    save(fig, path)


def ratios(rows: Sequence[Mapping[str, Any]], path: Path, title: str, over: str) -> None:
    """Each contestant's minimum over that of one of them."""
    names = list(dict.fromkeys(n for r in rows for n in r["times"] if over in r["times"]))
    rows = [r for r in rows if over in r["times"]]
    fig, axes = figure(1, 1, 8, 1 + 0.16 * len(rows) * len(names))
    ax = axes[0, 0]
    style(ax, title, f"time over that of {over}", "")
    minima = [{n: t["min_ms"] for n, t in r["times"].items()} for r in rows]
    grouped(ax, [r["case"] for r in rows], {n: [m.get(n, 0.0) / m[over] for m in minima] for n in names})
    ax.axvline(1, color=INK, linewidth=0.8)
    save(fig, path)
