"""GELU and erf: parity, accuracy against mpmath, the ends of the range, and algebra that must hold."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numpy_vit.gelu as ours
import torch_vit.gelu as theirs
from benchmarks import fit_erf
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import dtypes, normal, seeds
from vit_common import DtypeError, ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("gelu")

floating = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# What gelu_forward documents, in unit roundoffs: the error's share of |x|, and of |y| at a negative x.
OF_X, OF_Y = 3.0, 12.0


def unit_roundoff(dtype) -> float:
    return float(np.finfo(dtype).eps) / 2


def true_gelu(x: float) -> tuple[mp.mpf, mp.mpf]:
    """y and dy/dx to 50 digits."""
    with mp.workdps(50):
        cdf = mp.erfc(-mp.mpf(x) / mp.sqrt(2)) / 2
        return x * cdf, cdf + x * mp.npdf(x)


def numbers(dtype, low: float, high: float) -> st.SearchStrategy[list[float]]:
    """Lists: many numbers in one example, so that vectorised loops and their remainders are both met."""
    width = 8 * np.dtype(dtype).itemsize
    low, high = float(dtype(low)), float(dtype(high))
    return st.lists(st.floats(low, high, width=width, allow_subnormal=True), min_size=1, max_size=40)


# ---- erf ---------------------------------------------------------------------------------------------------------


def erf_error(dtype, z: list[float]) -> tuple[float, float]:
    """Largest error in ulp of the true value and, in float64, in units of the promised 1e-15 relative."""
    info, ulp, relative = np.finfo(dtype), 0.0, 0.0
    got = harness.stage_function(harness.ENGINE, "erf")(np.array(z, dtype))
    assert got.dtype == dtype
    with mp.workdps(50):
        for value, argument in zip(got.tolist(), z, strict=True):
            true = mp.erf(argument)
            if true == 0:
                assert value == 0
                assert math.copysign(1, value) == math.copysign(1, argument)
                continue
            spacing = mp.ldexp(1, max(int(mp.frexp(true)[1]) - 1, int(info.minexp)) - info.nmant)
            ulp = max(ulp, float(abs(value - true) / spacing))
            if abs(true) >= info.tiny:
                relative = max(relative, float(abs(value / true - 1)) / 1e-15)
    return ulp, relative


@given(z=numbers(np.float32, -4.5, 4.5) | numbers(np.float32, -1e-3, 1e-3) | numbers(np.float32, -3e38, 3e38))
def test_erf_float32_within_two_and_a_half_ulp(z):
    assert erf_error(np.float32, z)[0] <= 2.5


@given(z=numbers(np.float64, -6.5, 6.5) | numbers(np.float64, -1e-3, 1e-3) | numbers(np.float64, -1e308, 1e308))
def test_erf_float64_within_1e_15(z):
    ulp, relative = erf_error(np.float64, z)
    assert relative <= 1
    assert ulp <= 1e-15 / unit_roundoff(np.float64)  # the same promise where numbers are subnormal


@floating
def test_erf_at_the_seam_and_where_it_saturates(dtype):
    """Every float near |z| = 1, where the series hands over to the tail; a grid where erf rounds to 1."""
    eps, last = np.finfo(dtype).eps, 3.9 if dtype == np.float32 else 5.9
    seam = [1 + np.arange(-300, 300) * eps, np.linspace(0.97, 1.03, 600)]
    z = np.concatenate([*seam, last + np.linspace(-0.2, 0.2, 600)])
    ulp, relative = erf_error(dtype, z.astype(dtype).tolist())
    assert ulp <= 2.5
    assert relative <= 1 or dtype == np.float32
    assert ours.erf(z.astype(dtype)).max() == 1


@floating
def test_erf_at_the_ends_of_the_range(dtype):
    info = np.finfo(dtype)
    z = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, info.max, info.min, 1e10, -1e10], dtype)
    y = harness.stage_function(harness.ENGINE, "erf")(z)
    np.testing.assert_array_equal(y, np.array([1, -1, np.nan, 0, 0, 1, -1, 1, -1], dtype), strict=True)
    np.testing.assert_array_equal(np.signbit(y[3:5]), [False, True])
    np.testing.assert_array_equal(y, theirs.erf(torch.from_numpy(z)).numpy())


@given(dtype=dtypes, seed=seeds, scale=st.sampled_from([1e-40, 1e-3, 1.0, 3.0, 1e4]))
def test_erf_is_odd_to_the_last_bit_and_within_one(dtype, seed, scale):
    z = normal(seed, (37,), scale).astype(dtype)
    y = harness.stage_function(harness.ENGINE, "erf")(z)
    np.testing.assert_array_equal(ours.erf(-z), -y)
    assert np.abs(y).max() <= 1


@given(z=numbers(np.float64, -5, 5))
def test_erf_complex_step(z):
    """Im erf(z + ih) / h is the bell. Relative bound: the tail's 12 u and the exponent's rounding, as in GELU."""
    z = np.array(z)
    slope = ours.erf(z + 1e-200j).imag / 1e-200
    truth = 2 / math.sqrt(math.pi) * np.exp(-z * z)
    series = np.abs(z) < 1  # absolute there: its terms alternate, and sum to at most 2e/sqrt(pi) in modulus
    share = np.where(series, 2 * len(ours.SERIES) * math.e * 2 / math.sqrt(math.pi), (2 * OF_Y + 4 * z * z) * truth)
    assert np.all(np.abs(slope - truth) <= share * unit_roundoff(np.float64))


def test_coefficients_are_those_that_the_fit_prints():
    for dtype in fit_erf.RECIPES:
        p, q, error = fit_erf.table(dtype)
        assert ours.TAIL[np.dtype(dtype).type] == (p, q)
        assert error < unit_roundoff(dtype)
        assert min(*p, *q) > 0


# ---- GELU --------------------------------------------------------------------------------------------------------


@given(data=st.data(), dtype=dtypes)
def test_documented_accuracy(data, dtype):
    u, x = unit_roundoff(dtype), data.draw(numbers(dtype, -8, 8))
    y, cache = ours.gelu_forward(np.array(x, dtype))
    for a, value, slope in zip(x, y.tolist(), cache.slope.tolist(), strict=True):
        true, true_slope = true_gelu(a)
        least = float(np.finfo(dtype).smallest_subnormal)
        assert abs(value - true) <= OF_X * u * abs(a) + least
        assert abs(slope - true_slope) <= OF_X * u
        if a < 0:
            assert abs(value - true) <= (a * a / 2 + OF_Y) * u * abs(true) + least


@floating
def test_no_less_accurate_than_torch(dtype):
    """Largest error over a grid: absolute, and relative."""
    x = np.linspace(-8, 8, 4001).astype(dtype)
    true, true_slope = (np.array(side) for side in zip(*map(true_gelu, x.tolist()), strict=True))
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y_torch = theirs.gelu_forward(leaf)
    (slope_torch,) = torch.autograd.grad(y_torch, leaf, torch.ones_like(leaf))
    y, cache = ours.gelu_forward(x)
    nonzero = x != 0

    def worst(y, slope) -> np.ndarray:
        error = np.abs(y - true).astype(float)
        relative = error[nonzero] / np.abs(true[nonzero]).astype(float)
        return np.array([error.max(), relative.max(), np.abs(slope - true_slope).astype(float).max()])

    mine, its = worst(y, cache.slope), worst(y_torch.detach().numpy(), slope_torch.numpy())
    rounding = np.array([8, 1, 1]) * unit_roundoff(dtype)  # half the last bit of the largest y: neither's merit
    assert np.all(mine <= its + rounding), f"ours {mine}, torch's {its}"
    assert mine[1] < 1e-3 * its[1]


@given(dtype=dtypes, seed=seeds, scale=st.sampled_from([1e-30, 1e-3, 1.0, 3.0, 30.0]))
def test_the_two_sides_mirror_each_other(dtype, seed, scale):
    r"""$\Phi(x) + \Phi(-x) = 1$, so y(x) - y(-x) = x and the slopes at x and -x sum to 1.

    At most: one rounding each of $\Phi$, of both products and of this test's own difference; for the slopes, of
    the sums and of the bell's product, which both sides share.
    """
    x, u = normal(seed, (37,), scale).astype(dtype), unit_roundoff(dtype)
    (y, cache), (mirrored, mirrored_cache) = ours.gelu_forward(x), ours.gelu_forward(-x)
    assert np.all(np.abs(y - mirrored - x) <= 4 * u * np.abs(x))
    assert np.all(np.abs(cache.slope + mirrored_cache.slope - 1) <= 5 * u)


@given(x=numbers(np.float64, -8, 8))
def test_complex_step_goes_through_the_slope_too(x):
    r"""$d^2y/dx^2 = (2 - x^2)\, \varphi(x)$, also at 0, where the two sides of the tail meet.

    P, Q and their derivatives are sums of n positive terms: 2n roundings each. In the derivative of P / Q they cancel,
    by at most the degrees' sum.
    """
    x = np.array([0.0, *x])
    _, cache = ours.gelu_forward(x + 1e-200j)
    bell = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    terms = sum(map(len, ours.TAIL[np.float64]))
    bound = terms * 2 * terms * unit_roundoff(np.float64) * (2 + x * x) * bell
    assert np.all(np.abs(cache.slope.imag / 1e-200 - (2 - x * x) * bell) <= bound)


@floating
def test_ends_of_the_range_are_those_of_torch(dtype):
    """One number at a time: over whole float32 vectors torch's oneDNN kernel makes NaN of +inf, and inf of 3e38."""
    info = np.finfo(dtype)
    values = [np.inf, -np.inf, np.nan, 0.0, -0.0, info.tiny, -info.tiny, 20.0, -40.0, 1e9, -1e9, info.max / 4, info.min]
    for value in values:
        x = np.array(value, dtype)
        leaf = torch.tensor(value, dtype=getattr(torch, np.dtype(dtype).name), requires_grad=True)
        y_torch = theirs.gelu_forward(leaf)
        (slope_torch,) = torch.autograd.grad(y_torch, leaf)
        y, cache = ours.gelu_forward(x)
        np.testing.assert_array_equal(y, y_torch.detach().numpy(), err_msg=f"y({value})", strict=True)
        np.testing.assert_array_equal(cache.slope, slope_torch.numpy(), err_msg=f"slope({value})", strict=True)
        assert np.isnan(y) or np.signbit(y) == np.signbit(y_torch.item()), f"sign of y({value})"


@floating
def test_subnormals_are_halved(dtype):
    x = (np.arange(-8, 9, 2) * np.finfo(dtype).smallest_subnormal).astype(dtype)
    assert np.count_nonzero(x) == 8
    np.testing.assert_array_equal(ours.gelu_forward(x)[0], x / 2)


@floating
def test_silent_though_every_floating_point_flag_raises(dtype):
    info = np.finfo(dtype)
    x = np.array([np.inf, -np.inf, np.nan, info.max, info.min, -14.2, -38.0, info.smallest_subnormal, -1e19], dtype)
    with np.errstate(all="raise"):
        ours.gelu_forward(x)
        ours.erf(x)
        ours.gelu_forward(x[3:] + np.zeros(6, np.result_type(dtype, np.complex64)))


def test_blocks_meet_without_a_seam():
    for n in (ours.BLOCK - 1, ours.BLOCK, ours.BLOCK + 1, 2 * ours.BLOCK + 3):
        x = normal(n, (n,), 2.0).astype(np.float32)
        y, cache = ours.gelu_forward(x)
        pieces = [ours.gelu_forward(piece.astype(np.float64)) for piece in np.array_split(x, 7)]
        true, slope = np.concatenate([p[0] for p in pieces]), np.concatenate([p[1].slope for p in pieces])
        assert np.all(np.abs(y - true) <= OF_X * unit_roundoff(np.float32) * np.abs(x))
        assert np.all(np.abs(cache.slope - slope) <= OF_X * unit_roundoff(np.float32))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)])
@floating
def test_shape_and_dtype_are_kept(dtype, shape):
    x = normal(1, shape).astype(dtype)
    y, cache = ours.gelu_forward(x)
    dx = ours.gelu_backward(np.asarray(y), cache)
    for result in (y, cache.slope, dx, ours.erf(x)):
        assert result.shape == shape
        assert result.dtype == dtype


def test_float32_never_turns_into_float64(monkeypatch):
    """Every array that NumPy hands to the stage is float32 or a truth value."""
    seen = set()

    class Spy:
        def __getattr__(self, name):
            wanted = getattr(np, name)
            if isinstance(wanted, type) or not callable(wanted):
                return wanted

            def call(*args, **kwargs):
                result = wanted(*args, **kwargs)
                seen.update(str(a.dtype) for a in [result] if isinstance(a, np.ndarray | np.generic))
                return result

            return call

    monkeypatch.setattr(ours, "np", Spy())
    x = np.linspace(-3, 3, 100, dtype=np.float32)
    _, cache = ours.gelu_forward(x)
    ours.gelu_backward(x, cache)
    ours.erf(x)
    assert "float32" in seen
    assert seen <= {"float32", "bool"}


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16, np.longdouble])
def test_other_dtypes_are_refused(dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("long double is float64 on this machine")
    for function in (ours.gelu_forward, ours.erf):
        with pytest.raises(DtypeError, match="expected float32 or float64"):
            function(np.zeros(3, dtype))


@pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 2), (1, 2, 3)])
def test_upstream_that_would_broadcast(shape):
    _, cache = ours.gelu_forward(normal(0, (2, 3)))
    with pytest.raises(ShapeError, match="dy of gelu"):
        ours.gelu_backward(normal(1, shape), cache)
