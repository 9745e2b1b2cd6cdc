"""`convert`: a checkpoint from anybody's layout to anybody's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vit_common.cli import parse
from vit_common.engine import EngineFactory
from vit_common.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Two paths, IN and OUT, and the layout of OUT."""

    paths: tuple[Path, ...] = field(metadata={"positional": True})
    """IN: folder or file of weights. OUT: a folder, or a file ending in .safetensors or .npz"""
    layout: str
    """timm, huggingface, google, torchvision, ...; an unknown name lists them all"""
    architecture: str = ""
    """timm's name of the model, where IN does not say what its shapes cannot tell (heads, epsilon, activation)"""
    overwrite: bool = False
    """replace what is already in OUT"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    from vit_common.commands.common import read_checkpoint
    from vit_common.config import ViTConfig
    from vit_common.convert import write_layout
    from vit_common.expressible import departures
    from vit_common.layouts import LAYOUTS

    (options,) = parse(factory, "convert", argv, convert=ConvertOptions)
    if len(options.paths) != 2:
        raise ConfigError(f"got {len(options.paths)} paths, expected IN and OUT: convert IN OUT --layout huggingface")
    given = ViTConfig.from_timm(options.architecture) if options.architecture else None
    source, target = options.paths
    config, params = read_checkpoint(source, given)
    layout = write_layout(target, options.layout, config, params, (source,), options.overwrite)
    print(f"{target}: layout {layout}, its tensors read back and equal to those of {source} to the bit")
    for departure in departures(config, LAYOUTS[layout]):
        print(f"note: {departure}")
    return 0
