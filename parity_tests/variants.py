"""The tests that every variant stage gets: `variant_tests(name)` in a test file of its own.

What a check does, always: random upstream gradients, exact dtype, shape and names, inputs that cannot be written to.
The bound is normwise: a stage chains at most ROUNDS products and sums of at most n terms, so its error is at most
ROUNDS gamma_n times the size of what it computes with (Higham 2002, section 3.5), which is that of its results here:
all inputs are of size one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given

from parity_tests.strategies import seeds
from parity_tests.tolerances import gamma, unit_roundoff
from parity_tests.variant_cases import CASES, VariantCase

Array = np.ndarray
ROUNDS = 32


def variant_tests(name: str) -> tuple[Callable, ...]:
    """(parity with torch in float64 and float32, complex-step adjoint, linearity in the upstream gradient)."""
    build = CASES[name]

    @given(seed=seeds)
    def test_parity(seed):
        check_parity(build(np.random.default_rng(seed)), seed)

    @given(seed=seeds)
    def test_adjoint_of_complex_step(seed):
        check_adjoint(build(np.random.default_rng(seed)), seed)

    @given(seed=seeds)
    def test_linear_in_upstream(seed):
        check_linear(build(np.random.default_rng(seed)), seed)

    return test_parity, test_adjoint_of_complex_step, test_linear_in_upstream


def run(case: VariantCase, arrays: dict[str, Array], seed: int) -> tuple[list[Array], list[Array], dict[str, Array]]:
    """Outputs, the upstream gradients drawn for them, gradients; the inputs are read-only."""
    for a in arrays.values():
        a.flags.writeable = False
    y, cache = case.numpy(arrays)
    outputs = _several(y)
    rng = np.random.default_rng(seed + 1)
    dys = [np.asarray(rng.normal(size=np.shape(o)), np.asarray(o).real.dtype) for o in outputs]
    for dy in dys:
        dy.flags.writeable = False
    return outputs, dys, _backward(case, dys, cache)


def _backward(case: VariantCase, dys: list[Array], cache: Any) -> dict[str, Array]:
    if len(dys) == 1:
        return case.back(dys[0] if dys[0].ndim else float(dys[0]), cache)
    from numpy_vit import rope_mixed_backward  # the one stage with two outputs

    return {next(iter(case.arrays)): rope_mixed_backward(*dys, cache)}


def check_parity(case: VariantCase, seed: int) -> None:
    """Oracle 1, torch autograd in float64, for NumPy in float64 and in float32."""
    outputs, dys, _ = run(case, dict(case.arrays), seed)
    leaves = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in case.arrays.items()}
    truths = list(_several(case.torch(leaves)))
    torch.autograd.backward(truths, [torch.from_numpy(np.array(dy)) for dy in dys])
    slopes = {n: t.grad.numpy() for n, t in leaves.items() if t.grad is not None}
    for dtype in (np.float64, np.float32):
        arrays = {n: a.astype(dtype) for n, a in case.arrays.items()}
        exact = dtype == np.float64 or all(np.array_equal(a, case.arrays[n]) for n, a in arrays.items())
        outputs, _, grads = run(case, arrays, seed)
        assert set(grads) == set(slopes), set(grads) ^ set(slopes)
        close(dict(enumerate(outputs)), dict(enumerate(t.detach().numpy() for t in truths)), dtype, exact)
        close(grads, slopes, dtype, exact)


def close(ours: dict[Any, Array], theirs: dict[Any, Array], dtype: Any, exact: bool) -> None:
    size = max((float(np.abs(t).max()) for t in theirs.values() if t.size), default=0.0)
    n = max((t.size for t in theirs.values()), default=1) + (0 if exact else 1)  # rounding the inputs: one more
    bound = ROUNDS * gamma(n, unit_roundoff(dtype)) * max(size, 1.0)
    for name, truth in theirs.items():
        assert np.asarray(ours[name]).dtype == dtype, f"{name} is {np.asarray(ours[name]).dtype}, not {np.dtype(dtype)}"
        assert np.shape(ours[name]) == truth.shape, f"{name} has shape {np.shape(ours[name])}, expected {truth.shape}"
        error = float(np.abs(ours[name] - truth).max()) if truth.size else 0.0
        assert error <= bound, f"{name} differs by {error:.3e} in {np.dtype(dtype).name}, bound {bound:.3e}"


def check_adjoint(case: VariantCase, seed: int) -> None:
    r"""Oracle 2, no torch: $\langle g, Jd \rangle = \langle J^\top g, d \rangle$ with $Jd$ by the complex step."""
    _, dys, grads = run(case, dict(case.arrays), seed)
    rng, h = np.random.default_rng(seed + 2), 1e-150
    directions = {n: rng.normal(size=a.shape) for n, a in case.arrays.items()}
    stepped, _ = case.numpy({n: a + 1j * h * directions[n] for n, a in case.arrays.items()})
    products = [dy * np.asarray(y).imag / h for dy, y in zip(dys, _several(stepped), strict=True)]
    against = [grads[n] * d for n, d in directions.items()]
    left, right = (sum(float(np.sum(p)) for p in group) for group in (products, against))
    terms = sum(float(np.abs(p).sum()) for p in products + against)
    n = sum(p.size for p in products + against)
    assert abs(left - right) <= ROUNDS * gamma(n, unit_roundoff(np.float64)) * max(terms, 1.0), (left, right)


def check_linear(case: VariantCase, seed: int) -> None:
    """The backward is linear, to the bit for a power of two; running it twice gives the same."""
    y, cache = case.numpy(dict(case.arrays))
    rng = np.random.default_rng(seed + 1)
    dys = [np.asarray(rng.normal(size=np.shape(o))) for o in _several(y)]
    once = _backward(case, dys, cache)
    for factor in (-2.0, 0.0, 1.0):
        scaled = _backward(case, [np.asarray(factor * dy) for dy in dys], cache)
        for name, g in once.items():
            assert np.array_equal(scaled[name], factor * g), f"backward of {factor} dy is not {factor} times: {name}"


def _several(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)
