"""Pictures, all in one look. Matplotlib is imported when one is drawn; no window, no global state."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.errors import require
from vit_common.files import write_atomically

INK, PALE = "#333333", "#e6e6e6"
COLOURS = {"numpy": "#1f6fb4", "torch": "#d9541e", "control": "#8a8a8a", "test": "#2c8a4b"}


def figure(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """(figure, axes array), in the project's look."""
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        style(ax)
    return fig, axes


def style(ax: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Thin grid, no box, small title at the left."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK, labelsize=8)
    ax.grid(True, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(title, loc="left", fontsize=10, color=INK)
    ax.set_xlabel(x, fontsize=8, color=INK)
    ax.set_ylabel(y, fontsize=8, color=INK)


def save(fig: Any, path: str | PathLike) -> None:
    """Write a picture as PNG."""
    write_atomically(path, lambda temporary: fig.savefig(temporary, format="png", dpi=130))


def smooth(values: Sequence[float], share: float = 0.02) -> np.ndarray:
    """Running mean over a share of the points: a curve behind the noise of single batches."""
    half = int(len(values) * share / 2)
    total = np.concatenate(([0.0], np.cumsum(np.asarray(values, np.float64))))
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def draw_curves(path: str | PathLike, metrics: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Loss of each step and epoch, test accuracy, learning rate: three panels from the lines of metrics.jsonl."""
    steps = [m for m in metrics if "loss" in m]
    epochs = [m for m in metrics if "test_accuracy" in m]
    fig, axes = figure(1, 3, 11, 3.2)
    loss, accuracy, rate = axes[0]
    style(loss, f"{Path(title).name}: loss", "step", "nats")
    style(accuracy, "test accuracy", "step", "%")
    style(rate, "learning rate", "step")
    x = [m["step"] for m in steps]
    if steps:
        loss.plot(x, [m["loss"] for m in steps], color=COLOURS["numpy"], alpha=0.25, linewidth=0.6)
        mean = smooth([m["loss"] for m in steps])
        loss.plot(x, mean, color=COLOURS["numpy"], linewidth=1.4, label="training batches")
        rate.plot(x, [m["lr"] for m in steps], color=INK, linewidth=1.2)
    if epochs:
        at = [m["step"] for m in epochs]
        loss.plot(at, [m["test_loss"] for m in epochs], color=COLOURS["test"], marker=".", linewidth=1.2, label="test")
        percent = [100 * m["test_accuracy"] for m in epochs]
        accuracy.plot(at, percent, color=COLOURS["test"], marker=".", linewidth=1.2)
        accuracy.annotate(f"{percent[-1]:.2f}%", (at[-1], percent[-1]), ha="right", va="top", fontsize=9, color=INK)
    if steps or epochs:
        loss.set_yscale("log")
        loss.legend(frameon=False, fontsize=8)
    save(fig, path)
