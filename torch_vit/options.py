"""TorchOptions: where and how the torch engine runs. What the model computes is in no option: they change the speed,
the memory, and how far a product is rounded."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch

from vit_common.errors import ConfigError, nearest


@dataclass(frozen=True)
class TorchOptions:
    """Where and how torch runs.

    Raises:
        ConfigError: an unknown choice, or a mode of compilation without --compile.
    """

    device: str = "auto"
    """cpu, cuda, cuda:1, mps ...; auto takes a GPU if there is one"""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """of matrix products: float32 as it is; tf32, 10 bits on the GPU's tensor cores; bf16, 7 bits (autocast). Weights,
    gradients and optimizer stay float32"""
    compile: bool = False
    """compile model and loss (torch.compile): slow first step, faster ones after"""
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    """with --compile: reduce-overhead adds CUDA graphs, max-autotune also tries every kernel (minutes)"""
    attention_kernel: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    """kernel of scaled-dot-product attention to prefer where it can serve; auto: torch chooses by shape and device"""
    activation_checkpointing: bool = False
    """keep only what enters each block, and compute its inside again in the backward: less memory, a third more work"""

    def __post_init__(self) -> None:
        for field in fields(self):
            choices, value = get_args(field.type), getattr(self, field.name)
            if choices and value not in choices:
                raise ConfigError(f"{field.name}={value!r} is unknown; {nearest(value, choices)}")
        if self.compile_mode != "default" and not self.compile:
            raise ConfigError(f"compile_mode={self.compile_mode!r} needs compile=True; add --compile")

    def find_device(self) -> torch.device:
        """The device of that name, seen to work.

        Raises:
            ConfigError: it cannot be used.
        """
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            torch.empty(1, device=name)
            return torch.device(name)
        except Exception as error:  # RuntimeError, AssertionError, NotImplementedError ...
            raise ConfigError(f"device {name!r} cannot be used: {error}; try --device cpu") from error

    def check_dtype(self, dtype: str) -> None:
        """Raise ConfigError if parameters of this dtype do not go with the precision of products."""
        if self.precision != "float32" and dtype != "float32":
            raise ConfigError(
                f"precision={self.precision!r} rounds products of float32, but the parameters are {dtype}; "
                f"use --precision float32, or --dtype float32"
            )
