r"""Where the numbers in `numpy_vit/gelu.py` come from: a rational fit of the normal distribution's tail.

For $a \ge 0$ the tail splits into a fast exponential and a slow, smooth factor,

$$\Phi(-a) = e^{-a^2/2}\, R(a), \qquad R(0) = \tfrac12, \qquad R(a) \to \frac{1}{a\sqrt{2\pi}} ,$$

and a ratio of two polynomials follows $R$ to where $\Phi(-a)$ is zero in floating point. We want the smallest
*largest relative error* (minimax). Two old ideas get us there, in 60-digit arithmetic:

- **linearise** (Sanathanan and Koerner 1963): $|P - R Q|$ is linear in the coefficients; divided by the $Q$
  of the round before it is the error we mean. So weighted least squares, repeated, solves the ratio;
- **reweight** (Lawson 1961): multiply each point's weight by its error, so that the worst points pull
  hardest, until all the peaks are equally high.

Run `python -m benchmarks.fit_erf` (a few seconds; needs mpmath). It prints the tables and fails if those in
`numpy_vit/gelu.py` are others. Deterministic: no random numbers, no hardware floating point in the fit.
"""

import numpy as np

# dtype: (degree of P, degree of Q, end of the range: beyond it exp(-a^2/2) is zero in that dtype)
RECIPES = {"float32": (4, 5, 14.5), "float64": (9, 10, 39.0)}
POINTS, ROUNDS, SETTLE = 100, 20, 5  # Lawson's weights move once the linearisation has settled


def smooth_factor(a):
    r"""$R(a) = e^{a^2/2}\, \Phi(-a)$ in mpmath's working precision."""
    import mpmath as mp

    return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def fit(degree_p: int, degree_q: int, end: float) -> tuple[list, list, float]:
    """Coefficients, lowest power first, of P, P(0) = 1/2, and Q, Q(0) = 1; the largest relative error."""
    import mpmath as mp

    with mp.workdps(60):
        ones = np.array([mp.mpf(1)] * POINTS, dtype=object)
        chebyshev = [(1 - mp.cos(mp.pi * (2 * i + 1) / (2 * POINTS))) / 2 for i in range(POINTS)]
        u = np.array(chebyshev, dtype=object) ** 2  # in (0, 1): a = u * end, crowded most towards 0
        r = np.array([smooth_factor(a) for a in u * end], dtype=object)
        powers = [u**k for k in range(1, degree_q + 1)]
        # (P - R Q) / R = columns . (p_1 ... q_1 ...) - target
        columns = np.array(powers[:degree_p] + [-r * power for power in powers], dtype=object) / r
        target = (r - ones / 2) / r
        lawson, q_before, best = ones, ones, (mp.inf, [])
        for turn in range(ROUNDS):
            weighted = columns * (lawson / (q_before * q_before))
            normal = mp.matrix((weighted @ columns.T).tolist()), mp.matrix((weighted @ target).tolist())
            solution = np.array(list(mp.lu_solve(*normal)), dtype=object)
            q_before = 1 + sum(c * power for c, power in zip(solution[degree_p:], powers, strict=True))
            error = abs((columns.T @ solution - target) / q_before)
            best = min(best, (max(error), solution.tolist()))
            if turn >= SETTLE:
                lawson = lawson * error / max(error)
                lawson = lawson / sum(lawson) + mp.mpf("1e-30")
        error, solution = best
        p, q = [mp.mpf(1) / 2, *solution[:degree_p]], [mp.mpf(1), *solution[degree_p:]]
        return *([float(c / mp.mpf(end) ** k) for k, c in enumerate(side)] for side in (p, q)), float(error)


def table(dtype: str) -> tuple[tuple, tuple, float]:
    """P and Q of one dtype, rounded to it, as tuples of the shortest decimals, and the error of the fit."""
    p, q, error = fit(*RECIPES[dtype])
    p, q = (tuple(float(str(np.dtype(dtype).type(c))) for c in side) for side in (p, q))
    return p, q, error


def main() -> int:
    """Fit both tables, print them, compare with `numpy_vit/gelu.py`; 1 if they differ."""
    from numpy_vit.gelu import TAIL

    differ = False
    for dtype in RECIPES:
        p, q, error = table(dtype)
        same = TAIL[np.dtype(dtype).type] == (p, q)
        differ |= not same
        print(f"{dtype}: largest relative error of the fit {error:.2e}; as in numpy_vit/gelu.py: {same}")
        print(f"  P = {p}\n  Q = {q}")
    return int(differ)


if __name__ == "__main__":
    raise SystemExit(main())
