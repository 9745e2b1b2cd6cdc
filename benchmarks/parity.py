r"""No number without parity: what is timed is first held, in the same process, against a derived bound.

The truth is a float64 run in the arithmetic of `parity_tests.tolerances.Probable`, which carries with each
number the standard deviation of everything rounding does to it; a contestant may be `LAMBDA` of them away, in
its own precision.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity_tests import bounds
from parity_tests.tolerances import LAMBDA, Probable
from vit_common.config import ViTConfig
from vit_common.errors import VitError

Array = np.ndarray
# Unit roundoffs: half the distance from 1 to the next number. TF32 keeps 10 bits after the point, bfloat16 7.
ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8}


class ParityError(VitError, AssertionError):
    """What was to be timed does not compute what it should: nothing is reported."""


class Truth:
    """Logits and gradients of a small batch, each with its bound for each precision."""

    def __init__(
        self,
        params: Mapping[str, Array],
        images: Array,
        labels: Array,
        config: ViTConfig,
        gradients: bool = True,
    ):
        self.images, self.labels = images, labels
        tracked = {name: Probable(p, 0.0, np.float32) for name, p in params.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            self.logits, pullback = bounds.vit(tracked, Probable(images, 0.0, np.float32), config)
            self.grads: dict[str, Probable] = {}
            if gradients:
                _, loss_back = bounds.cross_entropy(self.logits, labels, 0.0)
                self.grads = pullback(loss_back(Probable(1.0, 0.0, np.float32))["x"])
                self.grads.pop("x")  # of the images: torch does not compute them

    @property
    def logit_bound(self) -> float:
        """The largest error of a float32 logit that rounding can explain."""
        return LAMBDA * float(self.logits.e.max())

    def check(
        self,
        contestant: str,
        logits: Any,
        grads: Mapping[str, Array] | None = None,
        precision: str = "float32",
    ) -> float:
        """Raise ParityError unless all is within its bound; returns the largest error as a share of it.

        Errors grow in proportion to the unit roundoff, so the bound of another precision is the float32 one
        scaled.
        """
        scale = LAMBDA * ROUNDOFF[precision] / ROUNDOFF["float32"]
        worst = within(f"{contestant}: logits", logits, self.logits.v, scale * self.logits.e)
        for name, g in (grads or {}).items():
            want = self.grads[name]
            worst = max(worst, within(f"{contestant}: gradient of {name}", g, want.v, scale * want.e))
        return worst


def within(what: str, got: Any, want: Array, bound: Array) -> float:
    """Largest |got - want| / bound; raises ParityError above 1, for a NaN, and for another shape."""
    got = np.asarray(got, np.float64)
    if got.shape != want.shape:
        raise ParityError(f"{what} has shape {got.shape}, expected {want.shape}; nothing was timed")
    error = np.abs(got - want)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / bound)  # a bound of 0: what only moves numbers is exact
    if not np.all(share <= 1.0):  # also when it is NaN
        at = tuple(int(i) for i in np.argwhere(~(share <= 1.0))[0])
        raise ParityError(
            f"{what} is {got[at]!r} at {at}, expected {want[at]!r} within {bound[at]:.2e}: "
            f"{share[at]:.3g} times the bound of rounding; nothing was timed"
        )
    return float(share.max(initial=0.0))
