"""Bounds of composites: how those of parts are put together. What forks is added.

As for the plain model's composites, errors are taken as independent (`tolerances.Probable`).
"""

from __future__ import annotations

from parity_tests import variant_bounds as leaves
from parity_tests.bounds import Grads, Pullback, layer_norm, under
from parity_tests.tolerances import Bounded


def norm(params: Grads, x: Bounded, kind: str, eps: float) -> tuple[Bounded, Pullback]:
    r"""LayerNorm's or RMSNorm's."""
    if kind == "rms":
        return leaves.rms_norm(x, params["weight"], eps)
    return layer_norm(x, params["weight"], params["bias"], eps)


def chain(*stages: tuple[str, Pullback]) -> Pullback:
    """Stages in the order of the forward, each with the prefix of its parameters: their pullbacks in reverse."""

    def pullback(dy: Bounded) -> Grads:
        grads: Grads = {}
        for prefix, back in reversed(stages):
            g = back(dy)
            dy = g.pop("x")
            grads |= under(prefix, g) if prefix else g
        return {"x": dy, **grads}

    return pullback


def total(first: Grads, *others: Grads) -> Grads:
    """What reads one x gets one gradient; the parameters keep theirs."""
    x = first["x"]
    for other in others:
        x = x + other["x"]
    return {**{n: g for grads in (first, *others) for n, g in grads.items()}, "x": x}
