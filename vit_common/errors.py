"""Typed errors: each message names the value, what was expected, and the fix."""

import difflib
import importlib
from collections.abc import Iterable, Mapping, Set
from numbers import Integral
from typing import Any

import numpy as np


class VitError(Exception):
    """Base of every error this project raises on purpose."""


class ShapeError(VitError, ValueError):
    """An array has the wrong number of axes or the wrong size along one of them."""


class DtypeError(VitError, TypeError):
    """An array has a dtype that the stage does not accept."""


class RangeError(VitError, ValueError):
    """A number lies outside its legal range, or is not finite."""


class ConfigError(VitError, ValueError):
    """A configuration that cannot describe a model."""


class DataError(VitError, ValueError):
    """A data file that is missing, damaged, or not what its name says."""


class CheckpointError(VitError, ValueError):
    """A checkpoint that is damaged or does not fit the model."""


class MissingDependencyError(VitError, ImportError):
    """An optional package is needed and not installed."""


def check_shape(name: str, array, expected: tuple) -> None:
    """Raise ShapeError unless `array.shape` is `expected`; strings and None in `expected` match any size.

    >>> check_shape("weight", np.zeros((4, 3)), ("out", 3))
    """
    shape = tuple(array.shape if hasattr(array, "shape") else np.shape(array))
    fits = len(shape) == len(expected) and all(
        want == have for want, have in zip(expected, shape, strict=True) if isinstance(want, int)
    )
    if not fits:
        wanted = "(" + ", ".join("?" if n is None else str(n) for n in expected) + ")"
        raise ShapeError(f"{name} has shape {shape}, expected {wanted}")


FLOATS = (np.float32, np.float64, np.complex64, np.complex128)


def check_float(name: str, array, fix: str = "use np.asarray(x).astype(np.float32)") -> None:
    """Raise DtypeError unless NumPy's `array` is of float32 or float64 (or complex, for complex-step derivatives).

    >>> check_float("x", np.zeros(3, np.float32))
    """
    dtype = getattr(array, "dtype", type(array).__name__)
    if getattr(dtype, "type", None) not in FLOATS:
        raise DtypeError(f"{name} has dtype {dtype}, expected float32 or float64; {fix}")


def check_names(part: str, params: Mapping[str, Any], expected: Set[str]) -> None:
    """Raise CheckpointError unless the parameters of a part of the model have exactly the names expected."""
    if not isinstance(params, Mapping):
        raise DtypeError(f"the parameters of {part} are a {type(params).__name__}, expected a dict of arrays by name")
    if params.keys() != expected:
        odd = {"missing": sorted(expected - params.keys()), "not part of it": sorted(params.keys() - expected)}
        listing = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in odd.items() if names)
        raise CheckpointError(f"these are not the parameters of {part}; {listing}")


def check_least(name: str, value: float, least: float) -> None:
    """Raise RangeError unless value >= least; NaN is not."""
    if not value >= least:
        raise RangeError(f"{name}={value} is too small; expected at least {least}")


def check_sizes(name: str, sizes: tuple[int, int]) -> None:
    """Raise RangeError unless sizes are two positive whole numbers, (height, width)."""
    if isinstance(sizes, str) or len(sizes) != 2 or not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise RangeError(f"{name}={sizes!r} is no size; expected (height, width), two positive whole numbers")


def check_finite(**arrays) -> None:
    """Raise RangeError if any of the named arrays holds a NaN or an infinity; says how many and where the first is.

    An array is NumPy's, or whatever NumPy can read: a torch tensor, on any device, in training or not.

    Raises:
        DtypeError: no array of numbers.
    """
    for name, given in arrays.items():
        array = _numbers(name, given)
        bad = ~np.isfinite(array)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise RangeError(
                f"{name} holds {int(bad.sum())} non-finite of {bad.size} values, the first at index {first}: "
                f"{array[first]}; clean the input or find the stage that made it with a tape"
            )


def _numbers(name: str, given) -> np.ndarray:
    try:
        if hasattr(given, "detach"):  # a torch tensor: off the graph and the device, and bfloat16 is not NumPy's
            given = given.detach().cpu()
            given = given.double() if given.is_floating_point() else given.resolve_conj()
        array = np.asarray(given)
        np.isfinite(array[:0] if array.ndim else array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(f"{name} is no array of numbers ({error}); give a NumPy array or a torch tensor") from error
    return array


def nearest(name: str, choices: Iterable[str]) -> str:
    """A sentence for an error message: the closest legal names, then all of them (or how many)."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    listing = ", ".join(choices) if len(choices) <= 20 else f"{len(choices)} names, e.g. {', '.join(choices[:5])}"
    return f"{hint}known: {listing}"


def require(module: str, extra: str):
    """Import an optional module, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is needed here and could not be imported ({error}); "
            f"install it with: pip install 'vit-written-twice[{extra}]'"
        ) from error
