"""The parity report as one static page: no scripts, no network, pictures inside."""

from __future__ import annotations

import html
import io
import math
from typing import Any

from parity_tests.report import WIDE, groups, killed_share
from vit_common.plots import COLOURS, figure, style

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { font-weight: 600 } table { border-collapse: collapse; margin: .5rem 0 1rem }
th, td { text-align: right; padding: .12rem .7rem; border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums }
th:first-child, td:first-child, td.text, th.text { text-align: left } tr.wide td { color: #946200 }
summary { cursor: pointer; padding: .15rem 0 } svg { max-width: 100%; height: auto } td svg { vertical-align: middle }
.bad { color: #b00020 } .good { color: #2c8a4b } pre { white-space: pre-wrap; background: #f6f6f6; padding: .6rem }
"""
LOW, HIGH = -3.0, 9.0  # decades of eps that the small pictures show


def render(report: dict[str, Any]) -> str:
    tests = report["tests"]
    verdict = "bad" if tests["failed"] else "good"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Parity report</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style><h1>Parity report</h1>",
        f"<p class='{verdict}'>{tests['passed']} checks passed, {tests['failed']} failed, {tests['skipped']} skipped. "
        f"{html.escape(report['date'])}, profile {html.escape(report['profile'])}, {report['seconds']:.0f} s.</p>",
        failures(tests),
        "<h2>Worst error and bound, each stage</h2><p>In units of the dtype's eps of the tensor's largest value; "
        "dot: the worst error seen over all examples, bar: its bound. float64 counts both engines' errors.</p>",
        overview(report["rows"]),
        "<h2>Every tensor</h2><p>In each small picture, from 10<sup>-3</sup> to 10<sup>9</sup> eps: the dot is "
        "the worst error, the bar its bound. <i>Of its bound</i> is the nearest that any element came to its own "
        f"bound. Marked rows never used {WIDE:.0%} of it.</p>",
        *(stage_table(*group) for group in groups(report["rows"])),
        *mutation(report["mutation"]),
        *trajectories(report["trajectories"]),
        *skips(tests),
        "<h2>Versions and machine</h2>",
        pairs({**report["versions"], **report["machine"]}),
        "</html>",
    ]
    return "\n".join(parts)


def failures(tests: dict[str, Any]) -> str:
    return "".join(
        f"<p class='bad'>{html.escape(f['test'])}</p><pre>{html.escape(f['message'])}\n"
        f"{html.escape(f.get('reproduce', ''))}</pre>"
        for f in tests["failures"]
    )


def skips(tests: dict[str, Any]) -> list[str]:
    if not tests["skip_reasons"]:
        return []
    reasons = "".join(f"<li>{n} &times; {html.escape(why)}</li>" for why, n in tests["skip_reasons"].items())
    return [f"<h2>Skipped</h2><ul>{reasons}</ul>"]


def stage_table(stage: str, dtype: str, rows: list[dict[str, Any]]) -> str:
    nearest = max(r["of_bound"] for r in rows)
    head = f"<summary><b>{html.escape(stage)}</b> {dtype}: {len(rows)} tensors, at most {nearest:.1%} of a bound"
    wide = sum(r["wide"] for r in rows)
    head += f", {wide} under {WIDE:.0%}</summary>" if wide else "</summary>"
    body = "".join(
        f"<tr{' class=wide' if r['wide'] else ''}><td>{html.escape(r['tensor'])}<td>{r['examples']}"
        f"<td>{r['worst_eps']:.3g}<td>{r['bound_eps']:.3g}<td>{r['of_bound']:.2%}<td>{bar(r)}"
        f"<td class=text>{html.escape(r.get('why', ''))}"
        for r in rows
    )
    columns = "<tr><th>tensor<th>examples<th>worst, eps<th>its bound, eps<th>of its bound<th><th>"
    return f"<details>{head}<table>{columns}{body}</table></details>"


def bar(row: dict[str, Any]) -> str:
    """A number line, 120 pixels wide, one pixel a tenth of a decade."""

    def at(value: float) -> float:
        return 120 * (min(max(math.log10(value), LOW), HIGH) - LOW) / (HIGH - LOW) if value > 0 else 0.0

    error, bound = at(row["worst_eps"]), at(row["bound_eps"])
    return (
        f"<svg width='126' height='12' viewBox='-3 0 126 12'><line x1='0' x2='120' y1='6' y2='6' stroke='#ddd'/>"
        f"<line x1='{bound:.1f}' x2='{bound:.1f}' y1='1' y2='11' stroke='{COLOURS['control']}' stroke-width='2'/>"
        f"<circle cx='{error:.1f}' cy='6' r='3' fill='{COLOURS['numpy']}'/></svg>"
    )


def overview(rows: list[dict[str, Any]]) -> str:
    """Each stage and dtype at the tensor that came nearest to its bound."""
    if not rows:
        return ""
    found = groups(rows)
    names = list(dict.fromkeys(stage for stage, _, _ in found))
    fig, axes = figure(1, 1, 9, 0.3 * len(names) + 1.2)
    ax = axes[0, 0]
    style(ax, "", "eps, log scale")
    for dtype, colour, shift in (("float64", COLOURS["numpy"], -0.15), ("float32", COLOURS["torch"], 0.15)):
        chosen = [(stage, max(group, key=lambda r: r["of_bound"])) for stage, kind, group in found if kind == dtype]
        y = [names.index(stage) + shift for stage, _ in chosen]
        errors = [max(r["worst_eps"], 10**LOW) for _, r in chosen]
        bounds = [max(r["bound_eps"], 10**LOW) for _, r in chosen]
        ax.hlines(y, errors, bounds, color=colour, linewidth=0.8, alpha=0.6)
        ax.plot(errors, y, "o", color=colour, markersize=5, label=f"{dtype}: worst error")
        ax.plot(bounds, y, "|", color=colour, markersize=9, label=f"{dtype}: bound")
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.legend(fontsize=7, frameon=False)
    return svg(fig)


def mutation(table: dict[str, dict[str, int]] | None) -> list[str]:
    if not table:
        return ["<h2>Mutation score</h2><p>Not measured yet: <code>make mutants</code>.</p>"]
    columns = list(next(iter(table.values())))
    head = "".join(f"<th>{html.escape(c)}" for c in columns)
    body = "".join(f"<tr><td>{html.escape(f)}" + "".join(f"<td>{row[c]}" for c in columns) for f, row in table.items())
    left, total = (sum(row[name] for row in table.values()) for name in ("not run", "mutants"))
    said = f"<p>{killed_share(table):.2%} of the mutants that were run and can be noticed were caught."
    said += f" {left} of {total} have not been run.</p>" if left else "</p>"
    details = f"<details><summary>by file</summary><table><tr><th>file{head}{body}</table></details>"
    return ["<h2>Mutation score</h2>", said, details]


def trajectories(curves: dict[str, dict[str, Any]] | None) -> list[str]:
    if not curves:
        return []
    fig, axes = figure(2, len(curves), 11, 6)
    for (dtype, run), (losses, apart) in zip(curves.items(), axes.T, strict=True):
        steps = range(1, run["steps"] + 1)
        style(losses, f"{dtype}: loss", "step", "nats")
        losses.plot(steps, run["losses"]["torch"], color=COLOURS["torch"], linewidth=2.2, alpha=0.6, label="torch")
        losses.plot(steps, run["losses"]["numpy"], color=COLOURS["numpy"], linewidth=0.9, label="numpy")
        losses.legend(fontsize=7, frameon=False)
        style(apart, f"{dtype}: distance from torch", "step", "relative, all parameters and moments")
        for i, (name, distances) in enumerate(run["apart"].items()):
            dashes = ("-", "--", ":")[i % 3]
            look: dict[str, Any] = {"color": COLOURS["control"], "linewidth": 1, "linestyle": dashes}
            if name == "numpy":
                look = {"color": COLOURS["numpy"], "linewidth": 1.6}
            apart.plot(steps, distances, label=name, **look)
        apart.axhline(run["unit_roundoff"], color="#bbbbbb", linewidth=0.8, label="unit roundoff")
        apart.set_yscale("log")
        apart.legend(fontsize=7, frameon=False)
    about = (
        "<p>AdamW, warm-up and cosine, clipping, label smoothing, dropout and stochastic depth, the same masks to the "
        "bit. The controls are torch itself from weights moved by rounding alone: rounding grows in any training, and "
        "NumPy's distance is judged against theirs.</p>"
    )
    return ["<h2>Training side by side</h2>", about, svg(fig)]


def svg(fig: Any) -> str:
    """The figure as SVG markup, without its XML head."""
    text = io.StringIO()
    fig.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    markup = text.getvalue()
    return markup[markup.index("<svg") :]


def pairs(values: dict[str, Any]) -> str:
    body = "".join(f"<tr><td>{html.escape(k)}<td class=text>{html.escape(str(v))}" for k, v in values.items())
    return f"<table>{body}</table>"
