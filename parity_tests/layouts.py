"""Memory layouts: the same numbers, laid out as a caller might have them."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray

LAYOUTS: dict[str, Callable[[Array], Array]] = {}


def layout(name: str):
    def register(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        LAYOUTS[name] = function
        return function

    return register


@layout("C")
def contiguous(a: Array) -> Array:
    return np.array(a, order="C")


@layout("Fortran")
def fortran(a: Array) -> Array:
    return np.array(a, order="F")


@layout("strided")
def strided(a: Array) -> Array:
    room = np.full((*a.shape[:-1], 2 * a.shape[-1]) if a.ndim else a.shape, np.nan, a.dtype)
    if not a.ndim:
        return np.array(a)
    room[..., ::2] = a
    return room[..., ::2]


@layout("negative")
def negative(a: Array) -> Array:
    return np.array(a[::-1], order="C")[::-1] if a.ndim else np.array(a)


@layout("read-only")
def read_only(a: Array) -> Array:
    a = np.array(a, order="C")
    a.flags.writeable = False
    return a


@layout("unaligned")
def unaligned(a: Array) -> Array:
    room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    room[...] = a
    return room


@layout("transposed view")
def transposed(a: Array) -> Array:
    return np.array(a.swapaxes(0, -1), order="C").swapaxes(0, -1) if a.ndim > 1 else np.array(a)


@layout("broadcast")
def broadcast(a: Array) -> Array:
    """Stride 0 along every axis on which the array is constant; `repeated` makes such arrays."""
    small = np.array(a)
    for axis in range(a.ndim):
        first = small.take([0], axis) if a.shape[axis] else small
        if np.array_equal(small, np.broadcast_to(first, small.shape), equal_nan=True):
            small = first
    return np.broadcast_to(small, a.shape)


def repeated(a: Array, seed: int) -> Array:
    """Constant along one of its axes."""
    if not a.size or not a.ndim:
        return a
    return np.array(np.broadcast_to(a.take([0], seed % a.ndim), a.shape))
