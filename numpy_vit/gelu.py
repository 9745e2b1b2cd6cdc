r"""GELU, the exact one: each number times the probability that a standard normal draw falls below it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_common.errors import DtypeError, check_shape

Array = np.ndarray

# P and Q, lowest power first, of R(a) = exp(a^2 / 2) Phi(-a) ~ P(a) / Q(a): benchmarks/fit_erf.py fitted them to a
# relative error of 6e-9 and 5e-17; rounded as they stand, 4e-8 and 9e-17. All are positive: nothing cancels.
TAIL = {
    np.float32: (
        (0.5, 0.43759552, 0.18269046, 0.0404419, 0.00408561),
        (1.0, 1.6730759, 1.2002984, 0.4680258, 0.10137939, 0.010240984),
    ),
    np.float64: (
        (0.5, 0.7746647594669561, 0.5937361957527502, 0.28910652000020265, 0.09759569405548844,
         0.023590030605387374, 0.004082257234166192, 0.0004893668740718559, 3.715536430375445e-05,
         1.3810948193925353e-06),
        (1.0, 2.347214079736771, 2.5602782666268302, 1.713374020696877, 0.7813955578561846,
         0.2546825464450873, 0.060351175203720436, 0.01032583608293038, 0.0012301227347412658,
         9.313468671585583e-05, 3.461891324246111e-06),
    ),
}  # fmt: skip
FAR = 40.0  # exp(-a^2 / 2) is 0 from a = 14.5 (float32) and 38.7 (float64) on; far beyond, powers overflow
# S in erf(z) = z + z S(z^2), Maclaurin: 2/sqrt(pi) (-1)^n / (n! (2n + 1)), less the 1 that stands apart
SERIES = [2 / math.sqrt(math.pi) * (-1) ** n / math.factorial(n) / (2 * n + 1) - (n == 0) for n in range(20)]
BLOCK = 32768  # numbers at a time, so that what is worked on stays in the processor's L2 cache


class GeluCache(NamedTuple):
    slope: Array  # (...), dy/dx: all that the backward needs, in no more memory than keeping x


def gelu_forward(x: Array) -> tuple[Array, GeluCache]:
    r"""(...) -> (...), float32 or float64 (complex64 or complex128 for complex-step derivatives).

    $$y = x\, \Phi(x), \qquad \Phi(x) = \tfrac12 \bigl(1 + \operatorname{erf}(x / \sqrt2)\bigr)$$

    Hendrycks and Gimpel 2016, section 2. **Backward**: $\Phi$ is the integral of the bell $\varphi$, so

    $$\frac{dy}{dx} = \Phi(x) + x\, \varphi(x), \qquad \varphi(x) = \frac{e^{-x^2/2}}{\sqrt{2\pi}}, \qquad
      \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} \odot \frac{dy}{dx}$$

    The forward has the exponential at hand already, so it finishes the slope and keeps that instead of x.

    The error of $y$, $u$ the unit roundoff, is at most $3u\,|x|$, and for $x < 0$ also at most $(x^2/2 + 12)\,u\,|y|$
    while $y$ is a normal number (parity_tests/test_gelu.py). (PyTorch's $1 + \operatorname{erf}$ cancels on that side,
    and no digit is right below about -5.5 in float32, -8.3 in float64; for $|x| < 1$ PyTorch rounds once less.)
    $y(-\infty)$ and the slope at $\pm\infty$ are NaN, from $\infty \cdot 0$, as in PyTorch.

    Raises:
        DtypeError: x has another dtype.
    """
    x = np.asarray(x)
    flat = x.reshape(-1)
    y, slope = np.empty_like(flat), np.empty_like(flat)
    work = _workspace(flat[:BLOCK])  # one for all blocks: new arrays for each are slower
    with np.errstate(all="ignore"):  # exp(-x^2 / 2) underflows, and infinity * 0 is NaN, both on purpose
        for start in range(0, flat.size, BLOCK):
            here = slice(start, start + BLOCK)
            part, cdf, bell = flat[here], y[here], slope[here]  # the results' own memory holds both factors
            _normal_cdf(part, cdf, bell, work)  # Phi(x), exp(-x^2 / 2)
            bell *= 1 / math.sqrt(2 * math.pi)  # phi(x)
            bell *= part
            bell += cdf  # slope = Phi(x) + x phi(x)
            cdf *= part  # y = x Phi(x)
    return y.reshape(x.shape), GeluCache(slope.reshape(x.shape))


def gelu_backward(dy: Array, cache: GeluCache) -> Array:
    """(...) -> dx (...)."""
    check_shape("dy of gelu", dy, cache.slope.shape)
    return dy * cache.slope  # y = x Phi(x)


def _normal_cdf(x: Array, cdf: Array, bell: Array, work: Array) -> None:
    r"""(n,): writes $\Phi(x)$ into cdf (n,) and $e^{-x^2/2}$ into bell (n,).

    NumPy has no erf, so with $a = |x|$ the tail is $\Phi(-a) = e^{-a^2/2} R(a)$, where $R$ falls slowly from
    $\tfrac12$, for large $a$ like $1/(a\sqrt{2\pi})$: a ratio of two polynomials. No branch picks the side:
    $\Phi(x) = |H - \Phi(-a)|$, where $H$ is 1 for $x \ge 0$, else 0. (docs/speed.md: other ways, and their times.)
    """
    p, q = TAIL[x.real.dtype.type]
    a, ratio, far = work[:, : x.size]
    np.minimum(_magnitude(x, a), far, out=a)
    np.multiply(a, a, out=bell)
    bell *= -0.5
    np.exp(bell, out=bell)
    _polynomial(p, a, cdf)
    cdf /= _polynomial(q, a, ratio)
    cdf *= bell  # Phi(-a)
    cdf -= x.real >= 0
    _magnitude(cdf, cdf)


def erf(z: Array) -> Array:
    r"""(...) -> (...), the dtypes of `gelu_forward`; within 2.5 units in the last place, in float64 $10^{-15}$.

    $$\operatorname{erf}(z) = \tfrac{2}{\sqrt\pi} \int_0^z e^{-t^2} dt = 1 - 2\,\Phi(-\sqrt2\, z)$$

    By the right side, with the sign of $z$, for $|z| \ge 1$; where that cancels, by the Maclaurin series.
    """
    z = np.asarray(z)
    flat = z.reshape(-1)
    work = _workspace(flat)
    size, tail, bell = np.empty((3, flat.size), z.dtype)
    with np.errstate(all="ignore"):
        _magnitude(flat, size)
        _normal_cdf(size * -math.sqrt(2), tail, bell, work)
        far = np.where(flat.real < 0, 2 * tail - 1, 1 - 2 * tail)
        near = np.where(size.real < 1, flat, 0)
        near += near * _polynomial(SERIES, near * near, bell)
    return np.where(size.real < 1, near, far).reshape(z.shape)


def _workspace(x: Array) -> Array:
    """(n,) -> (3, n): two rows to scribble on, one of the bound (np.minimum is several times slower with a scalar)."""
    if x.real.dtype.type not in TAIL:
        raise DtypeError(f"got {x.dtype}, expected float32 or float64: convert it with .astype(np.float32)")
    work = np.empty((3, x.size), x.dtype)
    work[2] = FAR
    return work


def _magnitude(x: Array, out: Array) -> Array:
    """|x|; of a complex step, x times the sign of its real part, which keeps the derivative of |x|."""
    if np.iscomplexobj(x):
        out[...] = np.where(x.real < 0, -x, x)
        return out
    return np.abs(x, out=out)


def _polynomial(coefficients: Sequence[float], t: Array, out: Array) -> Array:
    """Horner's rule, lowest power first."""
    np.multiply(t, coefficients[-1], out=out)
    for c in coefficients[-2:0:-1]:
        out += c
        out *= t
    out += coefficients[0]
    return out
