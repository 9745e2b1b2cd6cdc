r"""Bounds that are derived: running error analysis in the standard model of rounding.

Every floating-point operation obeys $\mathrm{fl}(a \circ b) = (a \circ b)(1 + \delta) + \eta$ with $|\delta| \le u$,
the unit roundoff, and $|\eta|$ at most the smallest normal number (Higham 2002, *Accuracy and Stability of Numerical
Algorithms*, section 2.2). A `Bounded` array carries a value and a rigorous bound on the distance between it and
whatever an engine computes; each operation adds its own rounding to what it inherits. No tolerance is chosen: a stage's
bound is its own formula, evaluated in this arithmetic (`bounds.py`).
"""

from __future__ import annotations

from functools import cache, reduce

import numpy as np

Array = np.ndarray

# Errors of elementary functions in units of the last place, taken twice for the unit roundoff: NumPy's SIMD exp is
# within 2.52 ulp in float32 and 1 in float64, torch's (SLEEF) within 1; log, sqrt and division are better.
ELEMENTARY = 6.0
ERF = 6.0  # both engines' erf: at most 3 ulp


# Formats that NumPy has not: significant bits p (the leading one counted), so u = 2^-p, and the smallest normal number.
# Both have float32's 8 bits of exponent. bfloat16: 7 bits stored (Kalamkar et al. 2019, table 1). TF32: 10 bits stored;
# the inputs of a product are rounded to it, what is summed is float32 (NVIDIA A100 white paper 2020).
LOW_PRECISION = {"bfloat16": (8, 2.0**-126), "tf32": (11, 2.0**-126)}


@cache
def unit_roundoff(dtype) -> float:
    r"""$u = \tfrac12 \varepsilon$: half the distance from 1 to the next number; with p significant bits $2^{-p}$."""
    if dtype in LOW_PRECISION:
        return 2.0 ** -LOW_PRECISION[dtype][0]
    return float(np.finfo(dtype).eps) / 2


@cache
def smallest_normal(dtype) -> float:
    """Below it, the error of a rounding is no longer relative."""
    return LOW_PRECISION[dtype][1] if dtype in LOW_PRECISION else float(np.finfo(dtype).tiny)


def dtype_name(dtype) -> str:
    return dtype if dtype in LOW_PRECISION else np.dtype(dtype).name


def gamma(n: int, u: float) -> float:
    r"""Higham 2002, lemma 3.1: $\gamma_n = nu / (1 - nu)$ bounds the relative error of n successive roundings."""
    return n * u / (1.0 - n * u)


class Bounded:
    r"""A value $v$ and a bound $e \ge |\hat v - v|$ for every order of summation the engine may choose.

    Args:
        v: the value, float64.
        e: the bound on the error, same shape.
        dtype: the precision that the engine computes in; gives $u$ and the underflow unit.
    """

    def __init__(self, v, e, dtype):
        self.v = np.asarray(v, dtype=np.float64)
        e = np.asarray(e, dtype=np.float64)
        e = np.where(np.isnan(e), np.inf, e)  # 0 * inf: nothing is known
        self.e = e if e.shape == self.v.shape else np.broadcast_to(e, self.v.shape)
        self.dtype = dtype
        self.u = unit_roundoff(dtype)
        self.tiny = smallest_normal(dtype)

    # How errors from different sources come together: at worst, they add.

    def join(self, *errors):
        return sum(errors)

    def carry(self, error, weight):
        """The error of a product whose left factor has this error."""
        return error @ np.abs(weight)

    def collect(self, error, axis, keepdims):
        """The error of a sum of numbers with these errors."""
        return error.sum(axis=axis, keepdims=keepdims)

    def growth(self, n: int) -> float:
        """Relative error of n roundings in a row."""
        return gamma(n, self.u)

    @property
    def size(self) -> Array:
        """The largest magnitude the computed value can have."""
        return np.abs(self.v) + self.e

    def new(self, v, e) -> Bounded:
        return type(self)(v, e, self.dtype)

    def _rounded(self, v, e, roundings: float = 1.0) -> Bounded:
        return self.new(v, self.join(e, roundings * self.u * (np.abs(v) + e)) + self.tiny)

    def evaluated(self, roundings: float) -> Bounded:
        """The same value from a library function that is accurate to so many units roundoff."""
        return self._rounded(self.v, self.e, roundings)

    def _other(self, other) -> Bounded:
        return other if isinstance(other, Bounded) else self.new(other, 0.0)

    def __add__(self, other) -> Bounded:
        other = self._other(other)
        return self._rounded(self.v + other.v, self.join(self.e, other.e))

    def __neg__(self) -> Bounded:
        return self.new(-self.v, self.e)

    def __sub__(self, other) -> Bounded:
        return self + (-self._other(other))

    def __mul__(self, other) -> Bounded:
        r"""$|\hat a \hat b - ab| \le |a| e_b + |b| e_a + e_a e_b$, and one rounding."""
        other = self._other(other)
        error = self.join(np.abs(self.v) * other.e, np.abs(other.v) * self.e, self.e * other.e)
        return self._rounded(self.v * other.v, error)

    def __matmul__(self, other: Bounded) -> Bounded:
        r"""Higham 2002, eq. 3.13: $|\mathrm{fl}(AB) - AB| \le \gamma_n |A||B|$, whatever the order of the sum."""
        n = self.v.shape[-1]
        left = self.carry(self.e, other.v)
        right = self.carry(other.e.swapaxes(-1, -2), self.v.swapaxes(-1, -2)).swapaxes(-1, -2)
        error = self.join(left, right, self.e @ other.e, self.growth(n) * (self.size @ other.size))
        return self.new(self.v @ other.v, error + n * self.tiny)

    def __truediv__(self, other) -> Bounded:
        r"""$\bigl|\tfrac{\hat a}{\hat b} - \tfrac ab\bigr| \le \frac{e_a + |a/b|\, e_b}{|b| - e_b}$, if $e_b < |b|$."""
        other = self._other(other)
        low = np.abs(other.v) - other.e
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            v = self.v / other.v
            error = np.where(low > 0, self.join(self.e, np.abs(v) * other.e) / low, np.inf)
        return self._rounded(v, error)

    def sum(self, axis, keepdims: bool = True) -> Bounded:
        r"""Higham 2002, eq. 4.4: $|\hat s - s| \le \gamma_{n-1} \sum |a_i|$."""
        n = self.v.size // max(self.v.sum(axis=axis, keepdims=True).size, 1)
        rounding = self.growth(n) * self.size.sum(axis=axis, keepdims=keepdims)
        error = self.join(self.collect(self.e, axis, keepdims), rounding)
        return self.new(self.v.sum(axis=axis, keepdims=keepdims), error)

    def mean(self, axis, keepdims: bool = True) -> Bounded:
        total = self.sum(axis, keepdims)
        n = self.v.size // max(total.v.size, 1)
        return self._rounded(total.v / n, total.e / n)

    def exp(self) -> Bounded:
        r"""$|e^{\hat a} - e^a| \le e^a (e^{e_a} - 1)$."""
        v = np.exp(self.v)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._rounded(v, np.where(v > 0, v * np.expm1(self.e), 0.0), ELEMENTARY)

    def log(self) -> Bounded:
        r"""$|\log \hat a - \log a| \le -\log(1 - e_a / a)$."""
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(self.e < self.v, -np.log1p(-self.e / self.v), np.inf)
            return self._rounded(np.log(self.v), error, ELEMENTARY)

    def rsqrt(self) -> Bounded:
        r"""$|\hat a^{-1/2} - a^{-1/2}| \le (a - e_a)^{-1/2} - a^{-1/2}$."""
        low = self.v - self.e
        with np.errstate(divide="ignore", invalid="ignore"):
            v = 1.0 / np.sqrt(self.v)
            error = np.where(low > 0, 1.0 / np.sqrt(np.abs(low)) - v, np.inf)
        return self._rounded(v, error, ELEMENTARY)

    def erf(self) -> Bounded:
        r"""$|\operatorname{erf}\hat a - \operatorname{erf} a| \le \tfrac{2}{\sqrt\pi} e_a$, its largest slope."""
        from scipy.special import erf

        return self._rounded(erf(self.v), 2.0 / np.sqrt(np.pi) * self.e, ERF)

    def tanh(self) -> Bounded:
        r"""$|\tanh\hat a - \tanh a| \le e_a \max \tanh' = e_a (1 - \tanh^2 m)$, $m$ the least size $a$ may have."""
        least = np.maximum(np.abs(self.v) - self.e, 0.0)
        return self._rounded(np.tanh(self.v), self.e / np.cosh(np.minimum(least, 300.0)) ** 2, ELEMENTARY)

    def sigmoid(self) -> Bounded:
        r"""$|\sigma(\hat a) - \sigma(a)| \le \sigma(a) (e^{e_a} - 1)$, as $(\log \sigma)' = 1 - \sigma \le 1$.

        An exponential, a sum and a quotient, each of positive numbers, round.
        """
        from scipy.special import expit

        v = expit(self.v)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._rounded(v, np.where(v > 0, v * np.expm1(self.e), 0.0), ELEMENTARY + 2)

    def sin(self) -> Bounded:
        r"""$|\sin\hat a - \sin a| \le e_a$."""
        return self._rounded(np.sin(self.v), self.e, ELEMENTARY)

    def cos(self) -> Bounded:
        return self._rounded(np.cos(self.v), self.e, ELEMENTARY)

    def constant(self, value) -> Bounded:
        """A number, rounded to the precision computed in."""
        return self.new(value, self.u * np.abs(value))

    def map(self, move) -> Bounded:
        """Apply something that only moves numbers: reshape, transpose, slice, pad."""
        return self.new(move(self.v), move(np.array(self.e)))

    def __getitem__(self, index) -> Bounded:
        return self.map(lambda a: a[index])

    @property
    def T(self) -> Bounded:
        return self.map(lambda a: a.swapaxes(-1, -2))


class Probable(Bounded):
    r"""The same arithmetic for independent roundings: $e$ is a standard deviation, and sources add in quadrature.

    The worst case grows by a factor of about five with each stage that feeds the next, and says nothing about the
    gradient of a whole model. Rounding errors behave as independent and centred (Higham and Mary 2019, *A New Approach
    to Probabilistic Rounding Error Analysis*, theorem 2.4): then $\gamma_n$ becomes $\lambda \sqrt n\, u$, and no error
    exceeds $\lambda$ standard deviations except with probability $2 e^{-\lambda^2/2}$. Composite stages are held to
    `LAMBDA` of these.
    """

    def join(self, *errors):
        return reduce(np.hypot, errors)

    # Squares underflow below 1e-154, so never less than the mean: (sum of |a_i|) / sqrt(n) <= sqrt(sum of a_i^2).

    def carry(self, error, weight):
        mean = error @ np.abs(weight) / np.sqrt(weight.shape[-2])
        return np.maximum(np.sqrt(np.square(error) @ np.square(weight)), mean)

    def collect(self, error, axis, keepdims):
        total = error.sum(axis=axis, keepdims=keepdims)
        mean = total / np.sqrt(max(error.size // max(total.size, 1), 1))
        return np.maximum(np.sqrt(np.square(error).sum(axis=axis, keepdims=keepdims)), mean)

    def growth(self, n: int) -> float:
        return np.sqrt(n) * self.u


class Alike(Probable):
    """The same of numbers that repeat: equal terms round alike, so a sum's errors add up as in the worst case."""

    carry, collect, growth = Bounded.carry, Bounded.collect, Bounded.growth


# 2 exp(-LAMBDA^2 / 2) = 1e-15: a thousand million numbers compared, and one chance in a million of a false alarm.
LAMBDA = float(np.sqrt(2.0 * np.log(2e15)))


def concatenate(parts: list[Bounded], axis: int) -> Bounded:
    return parts[0].new(np.concatenate([p.v for p in parts], axis), np.concatenate([p.e for p in parts], axis))
