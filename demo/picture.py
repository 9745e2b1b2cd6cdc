"""The demo's picture: both losses over each other, their difference beside the control's, and where the models look."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from demo.train_together import Log
from demo.verdict import PARTED, Verdict, relative_gap
from vit_common.attention_maps import attention_probs
from vit_common.attention_maps import class_attention as patch_attention
from vit_common.config import ViTConfig
from vit_common.plots import COLOURS, INK, figure, save, smooth, style

DIGITS = 6


def class_attention(engine: Any, images: np.ndarray, labels: np.ndarray, config: ViTConfig) -> np.ndarray:
    """Attention of the class token over the patches in the last block, mean of the heads: (B, grid_h, grid_w)."""
    trace = engine.trace(images, labels, None, 0.0)
    last = attention_probs(trace.values, config.depth)[-1]  # (B, NH, T, T)
    return patch_attention(last, prefix=1).mean(axis=1).reshape(-1, *config.grid_size)


def draw(
    path: str | PathLike, logs: Mapping[str, Log], verdict: Verdict, pixels: np.ndarray,
    attention: Mapping[str, np.ndarray], titles: Sequence[str],
) -> None:  # fmt: skip
    """Write the picture. `pixels` (B, H, W), `attention` of each engine (B, grid_h, grid_w)."""
    fig, _ = figure(1, 1, 11, 6.6)
    fig.clear()
    above, below = fig.subfigures(2, 1, height_ratios=(1.35, 1))
    loss, gap = above.subplots(1, 2)
    style(loss, "training loss, both engines over each other", "step", "nats")
    style(gap, "", "step", "relative difference of the losses")
    for name, line in (("torch", "-"), ("numpy", (0, (3, 3)))):
        values = logs[name].losses
        steps = np.arange(1, len(values) + 1)
        loss.plot(steps, smooth(values), color=COLOURS[name], linestyle=line, linewidth=1.8, label=name)
    loss.legend(frameon=False, fontsize=8)
    reference = logs["torch"].losses
    for name, label, part in (
        ("control", "torch against torch, weights one ulp apart", verdict.control_parts),
        ("numpy", "numpy against torch", verdict.engines_part),
    ):
        gaps = relative_gap(logs[name].losses, reference)
        seen = np.flatnonzero(gaps > 0)  # a zero has no place on a logarithmic axis
        gap.plot(seen + 1, gaps[seen], ".", color=COLOURS[name], markersize=2.5, label=label)
        if part:
            gap.axvline(part, color=COLOURS[name], linewidth=1.0)
    gap.axhline(PARTED, color=INK, linewidth=0.8, linestyle=":")
    gap.set_yscale("log")
    gap.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    below.suptitle("attention of the class token over the patches, last block, mean of the heads",
                   x=0.01, ha="left", fontsize=10, color=INK)  # fmt: skip
    axes = below.subplots(1 + len(attention), len(pixels), squeeze=False)
    for column, image in enumerate(pixels):
        _tile(axes[0, column], image, "gray")
        axes[0, column].set_title(titles[column], fontsize=8, color=INK)
        for row, (name, maps) in enumerate(attention.items(), start=1):
            _tile(axes[row, column], maps[column], "magma")
            if column == 0:
                axes[row, 0].set_ylabel(name, fontsize=8, color=INK)
    save(fig, path)


def _tile(ax: Any, image: np.ndarray, colours: str) -> None:
    ax.imshow(image, cmap=colours)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
