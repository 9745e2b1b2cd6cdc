"""How to run one stage, in either engine in the arithmetic of its bound; how an engine's functions are found."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_vit
from parity_tests.foreign import ForeignEngine
from parity_tests.tolerances import Bounded

Array = np.ndarray
Named = dict[str, Array]


@dataclass(frozen=True)
class Stage:
    """How to run one stage.

    `kind`: "leaf" takes its arrays as positional arguments, "composite" takes (params, x, config, ...).
    `batched`: the arrays that hold an image in each row, where their first axis has the batch's length.
    `scalar`: the output is one number, a mean over the batch; its gradient is a float, the backward's second argument.
    """

    name: str
    cases: Any
    bound: Callable[..., tuple[Bounded, Callable]]
    kind: str = "leaf"
    batched: tuple[str, ...] = ("x",)
    scalar: bool = False

    def forward(self, engine: Any, arrays: Named, options: dict[str, Any]) -> tuple[Any, Any]:
        """(y, cache) of a NumPy engine."""
        function = stage_function(engine, f"{self.name}_forward")
        return self.call(function, arrays, in_precision(options, next(iter(arrays.values())).real.dtype))

    def backward(self, engine: Any, dy: Any, cache: Any, arrays: Named) -> Named:
        """Gradient of every differentiable input, by name."""
        function = stage_function(engine, f"{self.name}_backward")
        return self.named(function(cache, self.upstream(dy)) if self.scalar else function(dy, cache), arrays)

    def upstream(self, dy: Any) -> Any:
        return float(dy) if self.scalar else dy

    def named(self, result: Any, arrays: Named) -> Named:
        """A backward's result: dx, or dx and gradients by name (others between), or one gradient an array."""
        first = next(iter(arrays))
        if isinstance(result, tuple) and isinstance(result[-1], dict):
            return {first: result[0], **result[-1]}
        if isinstance(result, tuple):
            return dict(zip(arrays, (g for g in result if g is not None), strict=True))
        return {first: result}

    def torch(self, tensors: dict[str, torch.Tensor], options: dict[str, Any]) -> torch.Tensor:
        """y of the torch engine."""
        dtype = next(iter(tensors.values())).dtype
        return self.call(getattr(torch_vit, f"{self.name}_forward"), tensors, as_tensors(options, dtype))

    def bounded(self, arrays: dict[str, Bounded], options: dict[str, Any]) -> tuple[Bounded, Callable]:
        return self.call(self.bound, arrays, options)

    def call(self, function: Callable, arrays: dict[str, Any], options: dict[str, Any]) -> Any:
        if self.kind == "leaf":
            return function(*arrays.values(), **options)
        params = {name: a for name, a in arrays.items() if name != "x"}
        return function(params, arrays["x"], **options)


def in_precision(value: Any, dtype: Any) -> Any:
    """Floating-point arrays inside an option, in the precision of the inputs."""
    return _inside(value, lambda a: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a)


def as_tensors(value: Any, dtype: torch.dtype) -> Any:
    """Arrays inside an option as tensors; the NumPy engine's named tuples as those of the torch engine."""
    return _inside(value, lambda a: _tensor(a, dtype), torch_vit)


def _tensor(a: Array, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.from_numpy(a.copy())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _inside(value: Any, convert: Callable[[Array], Any], package: Any = None) -> Any:
    if isinstance(value, np.ndarray):
        return convert(value)
    if isinstance(value, dict):
        return {name: _inside(v, convert, package) for name, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        kind = getattr(package, type(value).__name__) if package else type(value)
        return kind(*(_inside(v, convert, package) for v in value))
    return value


def load_engine(where: str) -> Any:
    """A module by dotted name or by the path of a .py file."""
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where).resolve()
    if not path.is_file():
        raise pytest.UsageError(f"--engine {where}: no file {path}")
    spec = importlib.util.spec_from_file_location("engine_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # so that it may import its neighbours
    spec.loader.exec_module(module)
    return module


def stage_function(engine: Any, name: str) -> Callable:
    if isinstance(engine, ForeignEngine):
        return engine.function(name)
    function = getattr(engine, name, None)
    if function is None:
        pytest.skip(f"not tested: the engine {engine.__name__} has no {name}")
    return function
