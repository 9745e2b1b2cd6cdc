"""torch.compile as the engine uses it: the whole function in one graph, for one shape."""

from collections.abc import Callable
from typing import Any

import torch

from torch_vit.options import TorchOptions

BACKEND = "inductor"


def compiled(function: Callable[..., Any], options: TorchOptions) -> Callable[..., Any]:
    """The function, compiled if the options ask for it. What cannot be one graph is an error, not a slow surprise."""
    if not options.compile:
        return function
    return torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND, mode=options.compile_mode)


def begin(options: TorchOptions, device: torch.device) -> None:
    """Before each call of what was compiled: of CUDA graphs, the memory of the call before may be used again."""
    if options.compile and device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()
