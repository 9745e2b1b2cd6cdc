"""`classify`: the most probable classes of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vit_common.cli import parse
from vit_common.commands.common import checkpoint_flag, load_engine, open_checkpoint
from vit_common.config import ViTConfig
from vit_common.engine import EngineFactory
from vit_common.errors import ConfigError, DataError, check_finite
from vit_common.images import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, as_pair, preprocess
from vit_common.run_folder import RunInfo
from vit_common.stated_preparation import Preparation, stated_preparation


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """Pictures, a model, and how the pictures are prepared: by default as for its training, if that is known."""

    images: tuple[Path, ...] = field(metadata={"positional": True})
    """files of pictures"""
    checkpoint: Path
    """folder of a run or of a hub snapshot, or a file of weights (.safetensors, .npz, .pt ...)"""
    top: int = 5
    """how many classes to print"""
    labels: Path | None = None
    """names of the classes: one a line, or index, id and name separated by tabs"""
    resize: int | None = None
    """pixels of the short side before the centre is cut out"""
    mean: tuple[float, ...] | None = None
    """mean of each channel, of pixels in 0..1"""
    std: tuple[float, ...] | None = None
    """standard deviation of each channel"""
    invert: bool = False
    """swap black and white: for ink on paper, when the model learned light on dark (digits, MNIST)"""
    dtype: Literal["float32", "float64"] = "float32"
    """precision of the arithmetic"""
    check_finite: bool = False
    """stop if a parameter, a pixel or a logit is not a finite number"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    checkpoint_flag(argv)
    groups = {"classify": ClassifyOptions, "engine": factory.Options()}
    options, engine_options = parse(factory, "classify", argv, **groups)
    if not options.images:
        raise ConfigError("no picture given; name one or more files, e.g. classify cat.png --checkpoint FILE")
    if options.top < 1:
        raise ConfigError(f"--top {options.top}: expected 1 or more")
    config, params, run = open_checkpoint(options.checkpoint)
    if not config.num_classes:
        raise ConfigError(f"{options.checkpoint} has no classification head (num_classes=0); it cannot classify")
    batch = read_images(options, config, run)
    engine = load_engine(factory, engine_options, config, params, options.dtype, options.check_finite)
    logits = engine.predict(batch).astype(np.float64)  # (B, K)
    if options.check_finite:
        check_finite(images=batch, logits=logits)
    names = class_names(options, config, run)
    ready = config.head_softmax  # then the model's own last stage is the softmax
    for path, probabilities in zip(options.images, logits if ready else softmax(logits), strict=True):
        print(path)
        for index in np.argsort(-probabilities, kind="stable")[: options.top]:
            print(f"  {probabilities[index]:7.4f}  {index:4d}  {names[index]}")
    return 0


def read_images(options: ClassifyOptions, config: ViTConfig, run: RunInfo | None) -> np.ndarray:
    """The pictures as one batch, (B, C, H, W)."""
    how, channels, dtype = preparation(options, config, run), config.in_channels, np.dtype(options.dtype)
    batch = [
        preprocess(path, config.image_size, how.resize, how.mean, how.std, channels, dtype, how.crop_pct,
                   how.interpolation, how.squash)
        for path in options.images
    ]  # fmt: skip
    images = np.concatenate(batch)
    if options.invert:  # 1 - x before normalisation is (1 - 2 mean) / std - x after it
        shift = (1 - 2 * np.array(how.mean)) / np.array(how.std)
        images = shift.astype(images.dtype)[:, None, None] - images
    return images


def preparation(options: ClassifyOptions, config: ViTConfig, run: RunInfo | None) -> Preparation:
    """What the flags say, else what the run used or the checkpoint's folder states, else a guess.

    Of a run: cropped from the short side as it is. Of a hub folder: what `stated_preparation` finds there. Where
    nothing is said, as a last resort: the short side 248/224 of the crop, mean and std 0.5, as Google's and timm's
    ViTs; if the file's name has "deit" in it, 256/224, ImageNet's mean and std.
    """
    channels, size = config.in_channels, as_pair(config.image_size)
    stated = Preparation(run.mean, run.std) if run is not None else stated_preparation(options.checkpoint, size)
    how = stated or _guess(options.checkpoint.resolve().name.lower(), channels, min(size))
    mean, std = (had if said is None else said for said, had in ((options.mean, how.mean), (options.std, how.std)))
    how = how._replace(mean=_each("mean", mean, channels), std=_each("std", std, channels))
    return how._replace(resize=options.resize, squash=None) if options.resize is not None else how


def _guess(name: str, channels: int, short: int) -> Preparation:
    deit = "deit" in name
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if deit else (HALF_MEAN, HALF_STD)
    resize = round(short * (256 if deit else 248) / 224) if short >= 64 else None
    return Preparation(mean[:channels], std[:channels], resize)


def _each(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value for each channel."""
    if len(values) not in (1, channels):
        raise ConfigError(f"--{name} has {len(values)} numbers; expected 1 or {channels}, one a channel")
    return values * channels if len(values) == 1 else values


def class_names(options: ClassifyOptions, config: ViTConfig, run: RunInfo | None) -> Sequence[str]:
    """From --labels, else the run, else a single *labels*.txt beside the weights, else the bare numbers."""
    path = options.labels
    if path is None and run is not None and len(run.class_names) >= config.num_classes:
        return run.class_names
    if path is None:
        folder = options.checkpoint if options.checkpoint.is_dir() else options.checkpoint.parent
        beside = sorted(folder.glob("*labels*.txt"))
        if len(beside) != 1:
            return [f"class {i}" for i in range(config.num_classes)]
        path = beside[0]
    names = read_labels(path)
    if len(names) != config.num_classes:
        raise DataError(f"{path} names {len(names)} classes, the model has {config.num_classes}; give another file")
    return names


def read_labels(path: Path) -> list[str]:
    """Names in the order of the classes. Raises DataError if the file cannot be read or its numbers have gaps."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {path} cannot be read ({error}); expected a text file, one class a line") from error
    rows = [line.split("\t") for line in lines]
    if not all(len(row) > 1 and row[0].strip().isdigit() for row in rows):
        return [line.strip() for line in lines]
    names = {int(row[0]): row[-1].strip() for row in rows}
    if names.keys() != set(range(len(rows))):
        raise DataError(f"labels {path}: expected the indices 0 to {len(rows) - 1}, each once")
    return [names[i] for i in range(len(rows))]


def softmax(logits: np.ndarray) -> np.ndarray:
    """(B, K) -> (B, K). NaN stays NaN."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
