r"""The bounds of packed rows: those of each segment by itself, side by side; parameters that served several, summed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate

from parity_tests import bounds
from parity_tests.bounds import Grads, Pullback
from parity_tests.tolerances import Bounded, concatenate


def segments(lengths: Sequence[int]) -> list[slice]:
    return [slice(end - length, end) for end, length in zip(accumulate(lengths), lengths, strict=True)]


def packed_attention(q: Bounded, k: Bounded, v: Bounded, lengths: Sequence[int]) -> tuple[Bounded, Pullback]:
    r"""Attention's, of each segment."""
    places = segments(lengths)
    parts = [bounds.attention(*(a[:, :, s] for a in (q, k, v))) for s in places]

    def pullback(dy: Bounded) -> Grads:
        grads = [back(dy[:, :, s]) for (_, back), s in zip(parts, places, strict=True)]
        return {name: concatenate([g[name] for g in grads], 2) for name in "qkv"}

    return concatenate([y for y, _ in parts], 2), pullback


def packed_block(params: Grads, x: Bounded, lengths: Sequence[int], config) -> tuple[Bounded, Pullback]:
    r"""The encoder block's, of each segment; a parameter's gradient is the sum over the segments."""
    places = segments(lengths)
    parts = [bounds.encoder_block(params, x[:, s], config) for s in places]

    def pullback(dy: Bounded) -> Grads:
        grads = [back(dy[:, s]) for (_, back), s in zip(parts, places, strict=True)]
        dx = concatenate([g.pop("x") for g in grads], 1)
        return {"x": dx, **{name: reduce(Bounded.__add__, [g[name] for g in grads]) for name in params}}

    return concatenate([y for y, _ in parts], 1), pullback
