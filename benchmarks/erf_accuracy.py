r"""How exact are `erf` and GELU of the NumPy engine? Measured against mpmath, and beside PyTorch's.

erf is measured in units in the last place (ulp) of the true value and relative to it. GELU is $x\,\Phi(x)$,
and $\Phi$ lies between 0 and 1, so its error is given in $u\,|x|$, $u$ the unit roundoff; also relative to
the value, which dies away on the negative side.

`python -m benchmarks erf`, or `python -m benchmarks.erf_accuracy`: ten seconds; needs mpmath. It writes
`benchmarks/results/erf_accuracy.json`, and fails if erf breaks its promise. The figures hold for one build of
NumPy on one processor, by whose features NumPy picks its exp. To measure as on a lesser one, set
NPY_DISABLE_CPU_FEATURES (the words differ between versions of NumPy: see `np.show_config()`).
"""

import math
import os
import platform
import time
from pathlib import Path

import numpy as np

from numpy_vit.gelu import erf, gelu_forward
from vit_common.files import write_json

RESULT = Path(__file__).parent / "results" / "erf_accuracy.json"
ULP_FLOAT32, RELATIVE_FLOAT64 = 2.5, 1e-15  # what erf promises, at most
Array = np.ndarray


def samples(dtype, count: int) -> Array:
    """Dense, random and special arguments of erf, of both signs."""
    rng, info = np.random.default_rng(0), np.finfo(dtype)
    last = 4.0 if dtype == np.float32 else 6.0  # erf rounds to 1 shortly before
    tiny, least = float(info.tiny), float(info.smallest_subnormal)
    z = [
        [0.0, least, 3 * least, tiny / 3, tiny, 1e-30, 10.0, 30.0, float(info.max)],
        1 + np.arange(-20, 21) * float(info.eps),  # the seam between series and tail
        rng.uniform(0.9, 1.1, count),
        last + np.linspace(-0.2, 0.2, 41),  # saturation
        np.linspace(0, last, count),
        rng.uniform(0, last, count),
        10 ** rng.uniform(math.log10(least) + 1, 1, count),
    ]
    z = np.concatenate(z).astype(dtype)
    return np.concatenate([z, -z])


def erf_errors(z: Array) -> tuple[float, float]:
    """Largest error of erf(z) in ulp of the true value, and relative to it where it is a normal number."""
    import mpmath as mp

    info = np.finfo(z.dtype)
    ulp = relative = 0.0
    with mp.workdps(50):
        for got, argument in zip(erf(z).tolist(), z.tolist(), strict=True):
            true = mp.erf(argument)
            exponent = max(mp.frexp(true)[1] - 1, info.minexp) - info.nmant
            ulp = max(ulp, float(abs(got - true) / mp.ldexp(1, int(exponent))))
            if abs(true) >= info.tiny:
                relative = max(relative, float(abs(got / true - 1)))
    return ulp, relative


def sweep_float32(stride: int) -> float:
    """Largest ulp error of erf over every stride-th float32 in [2^-14, 4.5], against our own float64 erf."""
    first, last = np.array([2.0**-14, 4.5], np.float32).view(np.int32)
    worst, step = 0.0, stride << 18
    for start in range(first, last, step):
        z = np.arange(start, min(start + step, last), stride, dtype=np.int32).view(np.float32)
        true = erf(z.astype(np.float64))
        worst = max(worst, float((np.abs(erf(z) - true) / np.spacing(true.astype(np.float32))).max()))
    return worst


def check_special(dtype) -> None:
    """Infinities, NaN and signed zeros; dtype kept; never beyond 1."""
    y = erf(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype))
    np.testing.assert_array_equal(y, np.array([1, -1, np.nan, 0, 0], dtype), strict=True)
    np.testing.assert_array_equal(np.signbit(y[3:]), [False, True])
    np.testing.assert_array_equal(np.abs(erf(samples(dtype, 1000))).max(), 1)


def numpy_gelu(x: Array) -> tuple[Array, Array]:
    """y and dy/dx of this engine."""
    y, cache = gelu_forward(x)
    return y, cache.slope


def torch_gelu(x: Array) -> tuple[Array, Array]:
    """y and dy/dx of the other engine."""
    import torch

    from torch_vit.gelu import gelu_forward as forward

    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y = forward(leaf)
    (slope,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    return y.detach().numpy(), slope.numpy()


def true_gelu(x: Array) -> tuple[Array, Array]:
    """y and dy/dx to 50 digits of float64 x; of float32 x, the NumPy engine's in float64."""
    if x.dtype == np.float32:
        return numpy_gelu(x.astype(np.float64))
    import mpmath as mp

    with mp.workdps(50):
        numbers = np.array([mp.mpf(a) for a in x.tolist()], dtype=object)
        cdf = np.array([mp.erfc(-a / mp.sqrt(2)) / 2 for a in numbers], dtype=object)
        bell = np.array([mp.npdf(a) for a in numbers], dtype=object)
        return numbers * cdf, cdf + numbers * bell


def gelu_errors(gelu, dtype, count: int) -> dict[str, float]:
    r"""Largest errors of gelu over [-8, 8], in unit roundoffs."""
    import mpmath as mp

    x = np.random.default_rng(1).uniform(-8, 8, count).astype(dtype)
    with mp.workdps(50):
        (y, slope), (true, true_slope) = gelu(x), true_gelu(x)
        error = abs(y - true)
        relative = (error / abs(true)).astype(float)
        found = {
            "y, of |x|": (error / abs(x)).astype(float),
            "slope": abs(slope - true_slope).astype(float),
            "y, of |y|, -8..-1": relative[x < -1],
            "y, of |y|, 0..8": relative[x > 0],
        }
    return {name: float(e.max()) / (float(np.finfo(dtype).eps) / 2) for name, e in found.items()}


def machine() -> dict[str, str]:
    """What the figures hold for."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_features_disabled": os.environ.get("NPY_DISABLE_CPU_FEATURES", ""),
    }


def measure(count: int, stride: int) -> dict[str, dict]:
    """{"erf": {dtype: figures}, "gelu": {"dtype, engine": figures}}; PyTorch only where it is installed."""
    contestants = {"numpy": numpy_gelu}
    try:
        import torch
    except ImportError:
        pass
    else:
        contestants[f"torch {torch.__version__}"] = torch_gelu
    figures: dict[str, dict] = {"erf": {}, "gelu": {}}
    for dtype in (np.float64, np.float32):
        name, z = np.dtype(dtype).name, samples(dtype, count)
        check_special(dtype)
        ulp, relative = erf_errors(z)
        figures["erf"][name] = {"ulp": ulp, "relative": relative, "samples": len(z)}
        for who, gelu in contestants.items():
            many = 500 * count if dtype == np.float32 else count
            figures["gelu"][f"{name}, {who}"] = gelu_errors(gelu, dtype, many)
    figures["erf"]["float32"]["ulp, sweep"] = sweep_float32(stride)
    return figures


def main() -> int:
    """Print and write the figures; 1 if erf breaks its promise."""
    figures = measure(count=4000, stride=101)
    single, double = figures["erf"]["float32"], figures["erf"]["float64"]
    worst, relative = max(single["ulp"], single["ulp, sweep"]), double["relative"]
    print(f"erf, float32: {worst:.2f} ulp (at most {ULP_FLOAT32})")
    print(f"erf, float64: {relative:.2e} relative (at most {RELATIVE_FLOAT64:.0e}), {double['ulp']:.2f} ulp")
    for i, (who, row) in enumerate(figures["gelu"].items()):
        if not i:
            print("gelu, largest errors in unit roundoffs:".ljust(40), *row, sep="  ")
        cells = [f"{error:.3g}".rjust(len(name)) for name, error in row.items()]
        print(f"  {who}".ljust(40), *cells, sep="  ")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(RESULT, {"time": when, "machine": machine(), **figures})
    print(f"written to {os.path.relpath(RESULT)}")
    return int(worst > ULP_FLOAT32 or relative > RELATIVE_FLOAT64)


if __name__ == "__main__":
    raise SystemExit(main())
