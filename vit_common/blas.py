"""How many threads NumPy's matrix products use, and a way to hold them to one while other threads do the splitting."""

import functools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@functools.cache
def _controller() -> Any:
    if sys.platform in ("emscripten", "wasi"):  # no threads there
        return None
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        warnings.warn(
            "threadpoolctl is not installed, so NumPy's matrix products cannot be held to one thread each; "
            "the batch is not split over threads (pip install threadpoolctl, up to twice as fast)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return ThreadpoolController()  # looks through the loaded libraries once: a few milliseconds


def blas_threads() -> int:
    """Threads of the widest BLAS in use; 1 where that cannot be known."""
    libraries = _controller().info() if _controller() else []
    return max((lib["num_threads"] for lib in libraries if lib["user_api"] == "blas"), default=1)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, every matrix product runs on the thread that calls it. For the whole process, and undone at the end."""
    if _controller() is None:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield
