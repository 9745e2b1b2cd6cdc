"""`attend`: a picture of where the model looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.attention_maps import attention_probs, class_attention, rollout
from vit_common.cli import parse
from vit_common.commands.classify import ClassifyOptions, preparation, read_images
from vit_common.commands.common import checkpoint_flag, load_engine, open_checkpoint
from vit_common.engine import EngineFactory
from vit_common.errors import ConfigError
from vit_common.outputs import check_ending, check_outputs

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class AttendOptions(ClassifyOptions):
    """Photos and a model, as for classify, and where the picture goes."""

    out: Path = Path("attention.png")
    """the picture: each photo, the class token's attention in the last block (mean of the heads), and the rollout"""
    overwrite: bool = False
    """replace a picture that is already in --out"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    checkpoint_flag(argv)
    options, engine_options = parse(factory, "attend", argv, attend=AttendOptions, engine=factory.Options())
    if not options.images:
        raise ConfigError("no picture given; name one or more files, e.g. attend cat.png --checkpoint FILE")
    check_ending("--out", options.out, ".png")
    check_outputs([options.out], [*options.images, options.checkpoint], options.overwrite)
    config, params, run = open_checkpoint(options.checkpoint)
    if not config.class_token:
        raise ConfigError("attend shows what the class token reads, and this model has none (class_token=False)")
    batch = read_images(options, config, run)
    engine = load_engine(factory, engine_options, config, params, options.dtype, options.check_finite)
    classes = max(config.num_classes, 1)
    trace = engine.trace(batch, np.zeros(len(batch), np.int64) % classes, None, 0.0)
    probs = attention_probs(trace.values, config.depth)
    prefix = config.num_tokens - config.num_patches
    grid = (len(batch), *config.grid_size)
    last = class_attention(probs[-1], prefix).mean(axis=1).reshape(grid)
    flow = rollout(probs, prefix).reshape(grid)
    how = preparation(options, config, run)
    pixels = batch * np.array(how.std).reshape(1, -1, 1, 1) + np.array(how.mean).reshape(1, -1, 1, 1)
    draw(options.out, pixels.clip(0, 1).transpose(0, 2, 3, 1), last, flow)
    for path, heat in zip(options.images, flow, strict=True):
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        print(f"{path}: the rollout is largest at patch row {row}, column {column} of {heat.shape[0]}x{heat.shape[1]}")
    print(f"picture in {options.out}")
    return 0


def draw(path: Path, pixels: Array, last: Array, flow: Array) -> None:
    """Photos (B, H, W, C) and two maps (B, grid_h, grid_w), laid over the photo."""
    from vit_common.plots import figure, save

    fig, axes = figure(len(pixels), 3, 9, 3 * len(pixels))
    titles = "photo", "class token, last block", "rollout through all blocks"
    for row, (image, *maps) in zip(axes, zip(pixels, last, flow, strict=True), strict=True):
        grey = image[..., 0] if image.shape[-1] == 1 else image
        for ax, heat, title in zip(row, (None, *maps), titles, strict=True):
            _tile(ax, grey, heat, title)
    save(fig, path)


def _tile(ax: Any, image: Array, heat: Array | None, title: str) -> None:
    extent = (0, image.shape[1], image.shape[0], 0)
    ax.imshow(image, cmap="gray", extent=extent)
    if heat is not None:
        ax.imshow(heat, cmap="magma", alpha=0.65, extent=extent, interpolation="bilinear")
    ax.set_title(title, fontsize=9, loc="left")
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
