"""Special values: infinities, NaN, subnormal and negative zeros, equal and huge numbers, put among ordinary ones.

Where torch has NaN, so has every engine; infinities are equal in place and sign; what stays finite stays within its
bound. Torch runs in the same dtype, so that both leave the range at the same place; where torch alone leaves it (its
LayerNorm's gradient multiplies by numbers that cancel), an engine may also be right.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st

import torch_vit
from parity_tests import harness
from parity_tests.harness import Named, Stage
from parity_tests.strategies import Array, Case

HUGE = float(np.float32(1e30))  # its square leaves float32, and not float64
VALUES = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan, "subnormal": None, "-0.0": -0.0, "0.0": 0.0, "huge": HUGE,
          "-huge": -HUGE}  # fmt: skip
# Beyond these a stage does not survive, and engines may part: what squares its input cannot hold 1e60 in float32.
SQUARES = ("layer_norm", "rms_norm", "mae_loss")
LEFT_OUT = {(name, np.float32): {"huge", "-huge"} for name in SQUARES}
LEAVES = [name for name, stage in harness.STAGES.items() if stage.kind == "leaf"]

kinds = st.sampled_from([*VALUES, "equal"])
places = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**16), kinds), min_size=1, max_size=4)


def plant(stage: Stage, case: Case, dtype: Any, chosen: list[tuple[int, int, str]]) -> Case:
    """The case with special values at some places: (which array, which number, what)."""
    arrays = {name: np.array(a) for name, a in case.arrays.items()}
    names = list(arrays)
    for which, number, kind in chosen:
        if kind in LEFT_OUT.get((stage.name, dtype), ()):
            continue
        a = arrays[names[which % len(names)]]
        if kind == "equal":
            a[...] = a.flat[number % a.size]
        else:
            subnormal = float(np.finfo(dtype).smallest_subnormal) * 3
            a.flat[number % a.size] = subnormal if kind == "subnormal" else VALUES[kind]
    return case._replace(arrays=arrays)


def check_special(stage: Stage, case: Case, dtype: Any, seed: int) -> None:
    y_true, g_true, dy = run_torch(stage, case, np.float64, None, seed)
    y_torch, g_torch, _ = run_torch(stage, case, dtype, dy, seed)
    y, grads = harness.run_numpy(stage, case, dtype, dy)
    bound = harness.derive_bounds(stage, case, dtype, dy)
    for name, value in {"y": y, **grads}.items():
        theirs, truth = (y_torch, y_true) if name == "y" else (g_torch[name], g_true[name])
        same(stage, name, dtype, value, theirs, truth, bound[name], either(stage, name, case))


def either(stage: Stage, tensor: str, case: Case) -> bool:
    """Whether NaN and infinity are both right in this tensor; what is finite must be so in both engines.

    The terms of LayerNorm's input gradient cancel, and torch adds them in another order, as infinite ones may meet. Of
    a row of equal numbers it makes 0 up to rounding, and an infinite weight NaN of 0, infinity of any other number; a
    subnormal number is 0 or not by the order in which RMSNorm multiplies it.
    """
    if stage.name not in ("layer_norm", "rms_norm"):
        return False
    infinite = not np.isfinite(case.arrays["weight"]).all()
    return tensor in ("x", "y") and (infinite or (tensor, stage.name) == ("x", "layer_norm"))


def run_torch(stage: Stage, case: Case, dtype: Any, dy: Array | None, seed: int) -> tuple[Array, Named, Array]:
    """Torch; GELU by its formula, because the CPU's vector kernel makes NaN of +inf and inf of 3e38; packed attention
    written out, because the CPU's fused kernel takes a row of NaN for a row that may read nothing, and makes it 0."""
    if stage.name == "packed_attention":
        with mock.patch("torch_vit.packed_attention.fused_attention_forward", torch_vit.attention_forward):
            return harness.run_torch(stage, case, dtype, dy, seed)
    if stage.name != "gelu":
        return harness.run_torch(stage, case, dtype, dy, seed)
    x = torch.from_numpy(case.arrays["x"].astype(dtype)).requires_grad_()
    y = x * 0.5 * (1.0 + torch.erf(x / 2**0.5))
    dy = harness.upstream(y.detach(), seed) if dy is None else dy
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(dy.astype(dtype)))
    return y.detach().numpy(), {"x": dx.numpy()}, dy


def same(
    stage: Stage, tensor: str, dtype: Any, got: Array, torch_got: Array, truth: Array, bound: Array, either: bool
) -> None:
    got, torch_got = np.asarray(got), np.asarray(torch_got)
    where = f"{stage.name}: {tensor} in {np.dtype(dtype)}"
    kinds = {"NaN": np.isnan, "+inf": lambda a: a == np.inf, "-inf": lambda a: a == -np.inf}
    if either:
        kinds = {"NaN or infinity": lambda a: ~np.isfinite(a)}
    for what, where_is in kinds.items():
        ours, theirs = where_is(got), where_is(torch_got)
        wrong = (ours != theirs) & (ours != where_is(truth))
        assert not wrong.any(), f"{where}: {what} at {places_of(ours)}, torch's at {places_of(theirs)}"
    known = np.isfinite(got) & np.isfinite(truth) & np.isfinite(np.broadcast_to(bound, got.shape))
    engines = 2 if dtype == np.float64 else 1
    error = np.abs(np.where(known, got, 0.0).astype(np.float64) - np.where(known, truth, 0.0))
    bad = known & (error > engines * np.broadcast_to(bound, got.shape))
    want = np.asarray(truth)[bad]
    assert not bad.any(), f"{where}: beyond its bound at {places_of(bad)}: {got[bad]}, expected {want}"


def places_of(mask: Array) -> list[tuple[int, ...]]:
    return [tuple(int(i) for i in at) for at in np.argwhere(mask)[:4]]
