"""The variant stages as the harness knows them, and the tests that each gets in a file of its own.

They go through the checks of the plain model's stages: cases drawn over sizes, options, scales and memory layouts, and
a bound of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from parity_tests import (
    assembled_bounds,
    block_bounds,
    bound_parts,
    ends_bounds,
    packed_bounds,
    resize_bounds,
    stem_bounds,
    token_bounds,
    variant_bounds,
)
from parity_tests.choices import Build, drawn_cases
from parity_tests.generic import tests_of
from parity_tests.stage import Array, Named, Stage
from parity_tests.tolerances import gamma, unit_roundoff
from parity_tests.variant_cases import CASES

BATCHED = {"biased_attention": ("q", "k", "v", "bias"), "diff_attention": ("q", "k", "v"), "rope": ("x", "sin", "cos"),
           "mae_loss": ("prediction", "images"), "packed_attention": ("q", "k", "v")}  # fmt: skip
NO_BATCH = {"rel_pos_bias", "pos_resize", "table_resize", "patch_resize", "rope_mixed", "packed_block"}
COMPOSITES = {"norm", "diff_attention", "assembled_attention", "activated_mlp", "gated_mlp", "assembled_block",
              "parallel_block", "parallel_things_block", "patch_stem", "token_stem", "attention_pool",
              "assembled_encoder", "assembled_head", "packed_block"}  # fmt: skip
BOUNDS = (bound_parts, variant_bounds, token_bounds, resize_bounds, assembled_bounds, block_bounds, stem_bounds,
          ends_bounds, packed_bounds)  # fmt: skip


class DiffAttention(Stage):
    """Called with its parameters, then q, k and v."""

    def call(self, function: Callable, arrays: dict[str, Any], options: dict[str, Any]) -> Any:
        params = {name: a for name, a in arrays.items() if name not in ("q", "k", "v")}
        return function(params, arrays["q"], arrays["k"], arrays["v"], **options)

    def named(self, result: Any, arrays: Named) -> Named:
        dq, dk, dv, _, grads = result
        return {"q": dq, "k": dk, "v": dv, **grads}


class RopeMixed(Stage):
    """Two outputs, sine and cosine: stacked."""

    def forward(self, engine: Any, arrays: Named, options: dict[str, Any]) -> tuple[Any, Any]:
        (sin, cos), cache = super().forward(engine, arrays, options)
        return np.stack((sin, cos)), cache

    def backward(self, engine: Any, dy: Any, cache: Any, arrays: Named) -> Named:
        from parity_tests.stage import stage_function

        return {"freqs": stage_function(engine, "rope_mixed_backward")(dy[0], dy[1], cache)}

    def torch(self, tensors: dict[str, torch.Tensor], options: dict[str, Any]) -> torch.Tensor:
        return torch.stack(super().torch(tensors, options))


CALLED: dict[str, type[Stage]] = {"diff_attention": DiffAttention, "rope_mixed": RopeMixed}


def variant(name: str, build: Build) -> Stage:
    composite = name in COMPOSITES
    bound = next(function for module in BOUNDS if (function := getattr(module, name, None)))
    return CALLED.get(name, Stage)(
        name, drawn_cases(build), bound,
        kind="composite" if composite else "leaf",
        batched=() if name in NO_BATCH else BATCHED.get(name, ("x",)), scalar=name == "mae_loss",
    )  # fmt: skip


VARIANTS: dict[str, Stage] = {name: variant(name, build) for name, build in CASES.items()}


def variant_tests(name: str) -> tuple[Callable, ...]:
    """(parity with torch, float32 error ratio, complex-step adjoint, linearity in the upstream gradient)."""
    return tests_of(VARIANTS[name])


def close(ours: dict[Any, Array], theirs: dict[Any, Array], dtype: Any, exact: bool) -> None:
    """For whole models of which there is no bound yet: ROUNDS gamma_n of the largest result, n its size."""
    size = max((float(np.abs(t).max()) for t in theirs.values() if t.size), default=0.0)
    n = max((t.size for t in theirs.values()), default=1) + (0 if exact else 1)  # rounding the inputs: one more
    bound = ROUNDS * gamma(n, unit_roundoff(dtype)) * max(size, 1.0)
    for name, truth in theirs.items():
        assert np.asarray(ours[name]).dtype == dtype, f"{name} is {np.asarray(ours[name]).dtype}, not {np.dtype(dtype)}"
        assert np.shape(ours[name]) == truth.shape, f"{name} has shape {np.shape(ours[name])}, expected {truth.shape}"
        error = float(np.abs(ours[name] - truth).max()) if truth.size else 0.0
        assert error <= bound, f"{name} differs by {error:.3e} in {np.dtype(dtype).name}, bound {bound:.3e}"


ROUNDS = 32
