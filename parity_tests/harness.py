r"""One harness for every stage: run it in both engines, hold every output and gradient against its derived bound.

What a check does, always: random upstream gradients (never ones: with ones the gradients of softmax and LayerNorm
vanish); exact dtype, shape and names; inputs, parameters and caches not written to; NaN never equal to anything.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
import torch

from parity_tests import strategies
from parity_tests.foreign import ForeignEngine
from parity_tests.registry import STAGES as STAGES
from parity_tests.stage import Named, Stage
from parity_tests.stage import load_engine as load_engine
from parity_tests.stage import stage_function as stage_function
from parity_tests.strategies import LAYOUTS, Case
from parity_tests.tolerances import LAMBDA, Alike, Bounded, Probable, dtype_name, unit_roundoff

Array = np.ndarray


# ---- the engine under test -------------------------------------------------------------------------------------

ENGINE: Any = importlib.import_module("numpy_vit")


# ---- the report ------------------------------------------------------------------------------------------------

RECORDS: dict[tuple[str, str, str], dict[str, float]] = {}


def record(stage: str, dtype: Any, tensor: str, error: Array, bound: Array, scale: Array) -> None:
    """Keep the worst error seen, in units of eps of the tensor's own size, and as a share of its bound.

    Where the bound exceeds the tensor itself (a gradient that is zero but for rounding), only the share says anything.
    """
    eps = 2 * unit_roundoff(dtype)
    size = float(np.max(np.abs(scale), initial=0.0))
    finite = np.isfinite(bound) & (bound > 0)
    share = float(np.max(error[finite] / bound[finite], initial=0.0))
    empty = {"examples": 0, "worst_eps": 0.0, "of_bound": 0.0, "bound_eps": 0.0}
    row = RECORDS.setdefault((stage, dtype_name(dtype), tensor), empty)
    row["examples"] += 1
    row["of_bound"] = max(row["of_bound"], share)
    limit = float(np.max(bound[finite], initial=0.0))
    if not finite.any() or limit > size:
        return
    worst = float(np.max(error[finite], initial=0.0)) / size / eps
    if worst >= row["worst_eps"]:
        row["worst_eps"] = worst
        row["bound_eps"] = limit / size / eps


# ---- running both engines --------------------------------------------------------------------------------------


def cast(arrays: Named, dtype: Any, layout: str = "C") -> Named:
    return {name: LAYOUTS[layout](a.astype(dtype)) for name, a in arrays.items()}


def upstream(y: Any, seed: int) -> Array:
    """A random gradient of the output's shape, exactly representable in float32."""
    return np.asarray(strategies.normal(seed, np.shape(y)))


def run_torch(stage: Stage, case: Case, dtype: Any, dy: Array | None, seed: int) -> tuple[Array, Named, Array]:
    tensors = {n: torch.from_numpy(np.array(a.astype(dtype))).requires_grad_() for n, a in case.arrays.items()}
    y = stage.torch(tensors, case.options)
    dy = upstream(y.detach(), seed) if dy is None else dy
    grads = torch.autograd.grad(
        y, list(tensors.values()), torch.from_numpy(np.array(dy.astype(dtype))), allow_unused=True
    )
    named = {
        n: np.zeros(a.shape, dtype) if g is None else g.numpy()  # None: the output does not depend on it
        for (n, a), g in zip(case.arrays.items(), grads, strict=True)
    }
    return y.detach().numpy(), named, dy


def run_numpy(stage: Stage, case: Case, dtype: Any, dy: Array, layout: str = "C") -> tuple[Array, Named]:
    """Forward and backward of the engine under test, with everything checked that is not a number."""
    arrays = cast(case.arrays, dtype, layout)
    before = {name: a.copy() for name, a in arrays.items()}
    y, cache = stage.forward(ENGINE, arrays, case.options)
    y_before, dy_given = np.array(y), LAYOUTS[layout](np.asarray(dy.astype(dtype)))
    dy_given = stage.upstream(dy_given)
    grads = stage.backward(ENGINE, dy_given, cache, arrays)
    again = stage.backward(ENGINE, dy_given, cache, arrays)
    assert set(grads) == set(arrays), f"{stage.name}: gradients for {sorted(grads)}, expected {sorted(arrays)}"
    for name, a in arrays.items():
        assert np.array_equal(a, before[name], equal_nan=True), f"{stage.name} wrote to its input {name}"
        assert grads[name].shape == a.shape, f"{stage.name}: gradient of {name} is {grads[name].shape}, not {a.shape}"
        assert grads[name].dtype == dtype, f"{stage.name}: gradient of {name} is {grads[name].dtype}"
        assert np.array_equal(grads[name], again[name], equal_nan=True), (
            f"{stage.name}: a second backward gives another gradient of {name}: the cache was written to"
        )
    assert np.asarray(y).dtype == dtype, f"{stage.name}: output is {np.asarray(y).dtype}, not {np.dtype(dtype)}"
    assert np.array_equal(y, y_before, equal_nan=True), f"{stage.name}: the backward wrote to the output"
    if isinstance(dy_given, np.ndarray):
        same = np.array_equal(dy_given, dy.astype(dtype), equal_nan=True)
        assert same, f"{stage.name} wrote to its upstream gradient"
    return np.asarray(y), grads


def derive_bounds(
    stage: Stage, case: Case, dtype: Any, dy: Array, kind: type[Bounded] | None = None, repeats: bool = False
) -> Named:
    """Bound of the output ("y") and of every gradient, for one engine computing in `dtype`.

    Leaves: the worst case. Composites, where the worst case says nothing: LAMBDA standard deviations, of arrays whose
    numbers repeat or of others. With `kind`, that arithmetic's own bound.
    """
    composite = Alike if repeats else Probable
    kind, times = (kind, 1.0) if kind else (Bounded, 1.0) if stage.kind == "leaf" else (composite, LAMBDA)
    inputs = {n: kind(a, 0.0, dtype) for n, a in case.arrays.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        y, pullback = stage.bounded(inputs, case.options)
        grads = pullback(kind(dy, 0.0, dtype))
        if stage.kind == "leaf" and "x" in grads and "x" not in case.arrays:
            grads[next(iter(case.arrays))] = grads.pop("x")
    return {"y": times * y.e, **{name: times * g.e for name, g in grads.items()}}


# ---- checks ----------------------------------------------------------------------------------------------------


def assert_within(stage: str, tensor: str, dtype: Any, got: Array, want: Array, bound: Array) -> None:
    """Elementwise |got - want| <= bound. A NaN in either fails; an infinity must be met by the same infinity."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{stage}: {tensor} has shape {got.shape}, expected {want.shape}"
    with np.errstate(invalid="ignore"):
        error = np.where(got == want, 0.0, np.abs(got - want))
    bound = np.broadcast_to(bound, error.shape)
    bad = ~(error <= bound)
    if not bad.any():  # what fails is reported as a failure, and a test of the tests may fail on purpose
        record(stage, dtype, tensor, error, bound, want)
    else:
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{stage}: {tensor} in {dtype_name(dtype)} differs at {bad.sum()} of {bad.size} places, first at {at}: "
            f"got {got[at]!r}, expected {want[at]!r}, error {error[at]:.3e}, bound {bound[at]:.3e}"
        )


def check_parity(stage: Stage, case: Case, dtype: Any, layout: str, seed: int) -> None:
    """Oracle 1, torch autograd. float64: both engines, within both bounds; float32: ours against the float64 truth.

    A failure also says which of the usual mistakes it looks like.
    """
    try:
        _check_parity(stage, case, dtype, layout, seed)
    except AssertionError as error:
        from parity_tests.diagnosis import explain

        error.args = (f"{error}{explain(ENGINE, stage.name) if stage.name in STAGES else ''}",)
        raise


def _check_parity(stage: Stage, case: Case, dtype: Any, layout: str, seed: int) -> None:
    dy = None
    if layout == "broadcast":
        constant = {n: strategies.repeated(a, seed + i) for i, (n, a) in enumerate(case.arrays.items())}
        case = case._replace(arrays=constant)
        dy = strategies.repeated(run_torch(stage, case, np.float64, None, seed)[2], seed)
    y_true, g_true, dy = run_torch(stage, case, np.float64, dy, seed)
    if isinstance(ENGINE, ForeignEngine) and not ENGINE.differentiates(stage.name):
        # The output alone; the summary says that the gradients were not tested.
        y, grads = np.asarray(stage.forward(ENGINE, cast(case.arrays, dtype, layout), case.options)[0]), {}
    else:
        y, grads = run_numpy(stage, case, dtype, dy, layout)
    bound = derive_bounds(stage, case, dtype, dy, repeats=layout == "broadcast")
    engines = 2 if dtype == np.float64 else 1  # in float64 the torch side rounds as much as we do
    assert_within(stage.name, "y", dtype, y, y_true, engines * bound["y"])
    for name, g in grads.items():
        assert_within(stage.name, name, dtype, g, g_true[name], engines * bound[name])


class ErrorPair(NamedTuple):
    """Root mean square error of one example over all its tensors, in predicted standard deviations."""

    ours: float
    torch: float
    floor: float  # what FEW roundings of the results themselves amount to


def error_pair(stage: Stage, case: Case, dtype: Any, seed: int) -> ErrorPair:
    r"""Both engines' errors in float32 against the float64 truth, each element in units of its predicted deviation.

    No single example or element decides: torch may be lucky where we are not. An example still fails on its own when
    our error exceeds LAMBDA deviations and twice torch's.
    """
    y_true, g_true, dy = run_torch(stage, case, np.float64, None, seed)
    y_torch, g_torch, _ = run_torch(stage, case, dtype, dy, seed)
    y, grads = run_numpy(stage, case, dtype, dy)
    deviations = derive_bounds(stage, case, dtype, dy, Probable)
    truths = {"y": y_true, **g_true}

    def pooled(run: Named) -> float:
        squares = []
        for name, truth in truths.items():
            e = deviations[name]
            known = np.isfinite(e) & (e > 0)
            squares.append(np.ravel(np.square((np.asarray(run[name], np.float64) - truth)[known] / e[known])))
        flat = np.concatenate(squares)
        return float(np.sqrt(flat.mean())) if flat.size else 0.0

    floor = pooled({name: truth * (1 + FEW * unit_roundoff(dtype)) for name, truth in truths.items()})
    pair = ErrorPair(pooled({"y": y, **grads}), pooled({"y": y_torch, **g_torch}), floor)
    assert pair.ours <= max(2 * pair.torch, LAMBDA), f"{stage.name}: {pair} in predicted standard deviations"
    return pair


FEW = 2.0  # roundings of the result itself


def check_error_ratio(stage: str, pairs: list[ErrorPair]) -> None:
    """Over all examples, the NumPy engine's error is at most twice torch's own and a few eps: medians."""
    ours, theirs, floor = np.median(np.array(pairs), axis=0)
    said = f"{stage}: median float32 error {ours:.3f} predicted deviations, torch's {theirs:.3f}"
    assert ours <= 2 * theirs + floor, said


def check_directional(stage: Stage, case: Case, seed: int) -> None:
    r"""Oracle 2, no torch: the complex step. $\operatorname{Im} f(x + ihd)/h = J d$ without cancellation, so
    $\langle g, Jd \rangle = \langle J^\top g, d \rangle$: the backward is the adjoint of the forward's derivative."""
    grads, dy, directions = _numpy_run_with_directions(stage, case, seed)
    h = 1e-150  # h^2 underflows to nothing beside any value here
    stepped = {n: a + 1j * h * directions[n] for n, a in case.arrays.items()}
    y_step, _ = stage.forward(ENGINE, stepped, case.options)
    jvp = np.asarray(y_step).imag / h
    lost = np.finfo(np.float64).tiny / h  # of a derivative so small, h times it is subnormal and has lost digits
    assert_adjoint(stage, case, dy, jvp, grads, directions, lost)


def _numpy_run_with_directions(stage: Stage, case: Case, seed: int):
    y, cache = stage.forward(ENGINE, cast(case.arrays, np.float64), case.options)
    dy = upstream(y, seed)
    grads = stage.backward(ENGINE, dy, cache, case.arrays)
    directions = {n: strategies.normal(seed + 1 + i, a.shape) for i, (n, a) in enumerate(case.arrays.items())}
    return grads, dy, directions


def assert_adjoint(
    stage: Stage, case: Case, dy: Array, jvp: Array, grads: Named, directions: Named, lost: float = 0.0
) -> None:
    """`lost`: what each number of the derivative may be wrong by, whatever its size."""
    left = float(np.sum(dy * jvp))
    right = sum(float(np.sum(grads[n] * d)) for n, d in directions.items())
    bound = derive_bounds(stage, case, np.float64, dy)
    if not all(np.isfinite(b).all() for b in bound.values()):
        return
    # The right side carries each gradient's bound; the left the derivative's, which by duality is the same sum.
    slack = sum(float(np.sum(bound[n] * np.abs(d))) for n, d in directions.items())
    terms = float(np.sum(np.abs(dy * jvp))) + sum(float(np.sum(np.abs(grads[n] * d))) for n, d in directions.items())
    size = dy.size + sum(d.size for d in directions.values())
    slack = 4 * slack + 4 * size * unit_roundoff(np.float64) * terms + lost * float(np.abs(dy).sum())
    assert abs(left - right) <= slack, (
        f"{stage.name}: <dy, J d> = {left!r} but <J^T dy, d> = {right!r}; "
        f"difference {abs(left - right):.3e}, bound {slack:.3e}"
    )


def check_linear_in_upstream(stage: Stage, case: Case, seed: int) -> None:
    """The backward is linear: scaling the upstream gradient by -2 scales every gradient, to the bit (down to the
    subnormal numbers, which round); a zero upstream gradient gives zeros."""
    arrays = cast(case.arrays, np.float64)
    y, cache = stage.forward(ENGINE, arrays, case.options)
    dy = upstream(y, seed)
    once = stage.backward(ENGINE, dy, cache, arrays)
    twice = stage.backward(ENGINE, -2.0 * dy, cache, arrays)
    none = stage.backward(ENGINE, 0.0 * dy, cache, arrays)
    for name in arrays:
        exact = np.abs(twice[name] + 2.0 * once[name]) <= np.finfo(np.float64).tiny
        assert exact.all(), f"{stage.name}: gradient of {name} is not linear in dy"
        assert not none[name].any(), f"{stage.name}: a zero upstream gradient gives a non-zero gradient of {name}"
