"""`info`: the table of stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vit_common.cli import parse, peek
from vit_common.commands.common import checkpoint_flag, default_model, open_checkpoint
from vit_common.engine import EngineFactory
from vit_common.errors import ConfigError
from vit_common.info import stage_table


@dataclass(frozen=True)
class InfoOptions:
    """Which model: that of a dataset, a preset, or a checkpoint."""

    data: str = "digits"
    """take the model that fits this dataset"""
    preset: str = ""
    """named model whose fields are the defaults below"""
    checkpoint: Path | None = None
    """folder of a run, or a file of weights, whose fields are the defaults below"""
    batch_size: int = 1
    """pictures at a time"""
    dtype: Literal["float32", "float64"] = "float32"
    """precision of parameters and cache"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    data, preset, checkpoint = peek(argv, "--data", "digits"), peek(argv, "--preset"), checkpoint_flag(argv)
    if checkpoint is not None:
        config = open_checkpoint(checkpoint)[0]
    else:
        config = default_model(data, preset)
    groups = {"info": InfoOptions(data=data, preset=preset), "model": config}
    options, config = parse(factory, "info", argv, **groups)
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size {options.batch_size}: expected 1 or more")
    print(stage_table(config, options.batch_size, {"float32": 4, "float64": 8}[options.dtype]))
    return 0
