"""torch.compile as the engine uses it: the whole function in one graph, for one shape."""

from collections.abc import Callable
from typing import Any

import torch

from torch_vit.options import TorchOptions
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError

BACKEND = "inductor"


def compiled(function: Callable[..., Any], options: TorchOptions) -> Callable[..., Any]:
    """The function, compiled if the options ask for it. What cannot be one graph is an error, not a slow surprise."""
    if not options.compile:
        return function
    return torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND, mode=options.compile_mode)


def check_compilable(options: TorchOptions, config: ViTConfig) -> None:
    """Raise ConfigError if a training step of this model cannot be one graph."""
    if options.compile and config.patch_drop_rate:
        raise ConfigError(
            f"patch_drop_rate={config.patch_drop_rate} does not go with compile=True: which patches are kept is read "
            "from each step's mask; train without --compile, or with patch_drop_rate=0"
        )


def begin(options: TorchOptions, device: torch.device) -> None:
    """Before each call of what was compiled: of CUDA graphs, the memory of the call before may be used again."""
    if options.compile and device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()
