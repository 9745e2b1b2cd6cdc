"""Two ways to choose an example's sizes, options and numbers: by hypothesis, or the smallest that are legal.

A stage's cases are a function of a `Choice`; drawn by hypothesis they are any size and shrink when they fail, drawn
from `Smallest` every size is the least or the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from hypothesis import strategies as st

from parity_tests.strategies import Array, Case, arrays, gentle, normal, scales, seeds, wide

SCALES = {"gentle": gentle, "any": scales, "wide": wide, "one": st.just(1.0)}


class Choice(Protocol):
    def size(self, low: int = 1, high: int = 4) -> int:
        """A length."""

    def of(self, values: Sequence[Any]) -> Any:
        """One of several."""

    def array(self, *shape: int, scale: str = "gentle") -> Array:
        """Numbers that float32 holds exactly."""

    def seed(self) -> int:
        """For what is drawn as a whole."""


class Drawn:
    def __init__(self, draw: Callable[[Any], Any]):
        self.draw = draw

    def size(self, low: int = 1, high: int = 4) -> int:
        return self.draw(st.integers(low, high))

    def of(self, values: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(values)))

    def array(self, *shape: int, scale: str = "gentle") -> Array:
        return self.draw(arrays(shape, SCALES[scale]))

    def seed(self) -> int:
        return self.draw(seeds)


class Smallest:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def size(self, low: int = 1, high: int = 4) -> int:
        return min(low + int(self.rng.integers(2)), high)

    def of(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def array(self, *shape: int, scale: str = "gentle") -> Array:
        return normal(self.seed(), shape)

    def seed(self) -> int:
        return int(self.rng.integers(2**16))


Build = Callable[[Choice], Case]


def drawn_cases(build: Build) -> st.SearchStrategy[Case]:
    return st.composite(lambda draw: build(Drawn(draw)))()


def smallest_cases(build: Build, count: int = 24) -> list[Case]:
    return [build(Smallest(seed)) for seed in range(count)]
