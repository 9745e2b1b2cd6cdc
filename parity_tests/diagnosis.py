"""What a wrong gradient looks like: it is compared with the mistakes that are usually made.

Not on the numbers that failed, which may be small and special, but on an ordinary example whose sizes all differ, so
that a number says which size it came from. A guess and no verdict: the bounds decide what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity_tests import harness
from parity_tests.ordinary import Setting, ordinary_case
from parity_tests.strategies import Case

Array = np.ndarray
Named = dict[str, Array]
CLOSE = 1e-5  # relative: wrong in one way and right otherwise, rounding aside


def explain(engine: Any, stage: str) -> str:
    """A line for each gradient that is wrong on an ordinary example, with what it looks like."""
    try:
        with np.errstate(all="ignore"):
            lines = list(_explain(engine, stage))
    except Exception as error:
        return f"\n  On an ordinary example: {type(error).__name__}: {error}"
    if not lines:
        lines = [
            "On ordinary numbers all values are right: look at the ends (huge, equal, sizes of one, other options)."
        ]
    return "".join(f"\n  {line}" for line in lines)


def _explain(engine: Any, name: str) -> Iterator[str]:
    stage, case = harness.STAGES[name], ordinary_case(name, Setting())
    y_true, g_true, dy = harness.run_torch(stage, case, np.float64, None, 5)
    y, cache = stage.forward(engine, harness.cast(case.arrays, np.float64), case.options)
    if not similar(y, y_true):
        yield f"The output of {name} {looks_like(np.asarray(y), y_true, {}, sizes(case)) or 'is wrong'}."
        return  # the gradients are those of another function: mend the forward first
    grads = stage.backward(engine, dy, cache, case.arrays)
    strange = []
    for tensor, want in g_true.items():
        got = np.asarray(grads[tensor])
        if not similar(got, want):
            known = {**mistakes(stage, case, dy, g_true, tensor), **OWN_MISTAKES.get(name, nothing)(case, dy, tensor)}
            if found := looks_like(got, want, known, sizes(case)):
                yield f"The gradient of {tensor} {found}."
            else:
                strange.append(tensor)
    if strange:
        more = f" and {len(strange) - 4} more" if len(strange) > 4 else ""
        yield f"Wrong, but like no usual mistake: the gradient of {', '.join(strange[:4])}{more}."


def similar(a: Array, b: Array) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= CLOSE * np.abs(b).max(initial=1e-300)))


def looks_like(got: Array, want: Array, known: Named, factors: dict[str, float]) -> str | None:
    """The first mistake that fits, as the rest of a sentence."""
    if got.size and not got.any() and want.any():
        return "is zero everywhere: the backward gives nothing back"
    if not np.all(np.isfinite(got)):
        return "is not finite"
    if similar(got, -want):
        return "has the wrong sign"
    if got.ndim >= 2 and similar(got.swapaxes(-1, -2), want):
        return "is transposed"
    for mistake, value in known.items():
        if similar(got, value):
            return mistake
    if got.shape != want.shape:
        return f"has shape {got.shape} and should have {want.shape}{_unsummed(got, want)}"
    ratio = float(np.sum(got * want) / np.sum(want * want))
    if similar(got, ratio * want):
        for what, factor in factors.items():
            if math.isclose(ratio, 1 / factor, rel_tol=CLOSE):
                return f"is too small by {what}: multiply by {factor:.4g}"
            if math.isclose(ratio, factor, rel_tol=CLOSE):
                return f"is too large by {what}: divide by {factor:.4g}"
        return f"is {ratio:.6g} times the right one: a factor is missing, or there is one too many"
    if similar(np.sort(got, axis=None), np.sort(want, axis=None)):
        return "has the right numbers in the wrong places: a transpose, a reshape or the order of an axis"
    return None


def _unsummed(got: Array, want: Array) -> str:
    """A hint where an axis that the forward broadcasts over was not summed."""
    for axis in range(got.ndim):
        for keepdims in (False, True):
            if similar(got.sum(axis, keepdims=keepdims), want):
                return f": it still has axis {axis}, over which it must be summed"
    return ""


def sizes(case: Case) -> dict[str, float]:
    """Factors that get lost, in words -> number."""
    x = next(iter(case.arrays.values()))
    found = {"a factor of 2": 2.0, "the batch size": float(x.shape[0]), "the number of tokens": float(x.shape[-2])}
    found |= {"the width": float(x.shape[-1]), "the batch times the tokens": float(x.shape[0] * x.shape[-2])}
    if "q" in case.arrays:
        heads, dim = x.shape[1], x.shape[-1]
        found = {"the root of the head width": math.sqrt(dim), "the head width": float(dim),
                 "the root of the width over the number of heads": math.sqrt(dim / heads), **found}  # fmt: skip
    for rate in (case.options.get("rate"), case.options.get("drop_rate")):
        if rate:
            found["the keep rate, 1 - p"] = 1 / (1 - rate)
    if case.options.get("pool") == "mean":
        found = {"the number of patches": float(x.shape[1] - case.options["prefix"]), **found}
    return found


def mistakes(stage: harness.Stage, case: Case, dy: Array, right: Named, tensor: str) -> Named:
    """What fits the rest of "The gradient of w ..." -> the gradient with that mistake, of any stage."""
    found: Named = {}
    if np.ndim(dy) >= 2 and len(dy) > 1:
        for index, which in ((0, "first"), (-1, "last")):
            alone = np.zeros_like(dy)
            alone[index] = dy[index]
            only = f"counts the {which} image of the batch only: sum over the batch"
            found[only] = _torch(stage, case, alone)[tensor]
        if dy.ndim >= 3:
            alone = np.zeros_like(dy)
            alone[:, 0] = dy[:, 0]
            found["counts the first token only: sum over the tokens too"] = _torch(stage, case, alone)[tensor]
    want = right[tensor]
    if np.shape(dy) == want.shape:
        found["is the upstream gradient, passed on unchanged"] = np.asarray(dy)
        found["lacks what flows past the branch: add the residual's gradient"] = want - dy
        found["has the upstream gradient added once too often"] = want + dy
    for other, value in right.items():
        if other != tensor and value.shape == want.shape:
            found[f"is that of {other}: two gradients are exchanged"] = value
    return found


def _torch(stage: harness.Stage, case: Case, dy: Array) -> Named:
    return harness.run_torch(stage, case, np.float64, dy, 0)[1]


# ---- the mistakes of single stages: (case, dy, tensor) -> as above ---------------------------------------------


def nothing(case: Case, dy: Array, tensor: str) -> Named:
    return {}


def linear(case: Case, dy: Array, tensor: str) -> Named:
    rows = dy.reshape(-1, dy.shape[-1])
    return {"is summed along the wrong axis: over the rows, not the columns": rows.sum(1)} if tensor == "bias" else {}


def softmax(case: Case, dy: Array, tensor: str) -> Named:
    e = np.exp(case.arrays["x"] - case.arrays["x"].max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return {
        "is p * g alone: subtract the row's sum of g * p from g first": p * dy,
        "is p * (1 - p) * g, the diagonal of the Jacobian alone": p * (1 - p) * dy,
        "subtracts the sum, but is not multiplied by p": dy - (dy * p).sum(-1, keepdims=True),
        "takes the mean of g * p where the sum belongs": p * (dy - (dy * p).mean(-1, keepdims=True)),
    }


def layer_norm(case: Case, dy: Array, tensor: str) -> Named:
    if tensor != "x":
        return {}
    x, weight = case.arrays["x"], case.arrays["weight"]
    centred = x - x.mean(-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + case.options["eps"])
    xhat, h = centred * r, dy * weight

    def gradient(h: Array, mean: float = 1.0, along: float = 1.0) -> Array:
        return h - mean * h.mean(-1, keepdims=True) - along * xhat * (h * xhat).mean(-1, keepdims=True)

    return {
        "forgets that the mean and the deviation depend on x": r * h,
        "forgets that the deviation depends on x: the term with xhat is missing": r * gradient(h, along=0.0),
        "forgets that the mean depends on x": r * gradient(h, mean=0.0),
        "is not multiplied by the weight": r * gradient(dy),
        "is not divided by the deviation": gradient(h),
    }


def gelu(case: Case, dy: Array, tensor: str) -> Named:
    from scipy.stats import norm

    x = case.arrays["x"]
    return {
        "is g * Phi(x): the term x * phi(x) is missing": dy * norm.cdf(x),
        "is g * x * phi(x): the term Phi(x) is missing": dy * x * norm.pdf(x),
    }


def dropout(case: Case, dy: Array, tensor: str) -> Named:
    mask, rate = case.options["mask"], case.options["rate"]
    return {
        "is masked but not divided by the keep rate, 1 - p": dy * mask,
        "is divided by the keep rate but not masked": dy / (1 - rate),
        "keeps what was dropped: the mask is inverted": dy * ~mask / (1 - rate),
    }


def cross_entropy(case: Case, dy: Array, tensor: str) -> Named:
    x, labels, s = case.arrays["x"], case.options["labels"], case.options["label_smoothing"]
    e = np.exp(x - x.max(1, keepdims=True))
    p, one = e / e.sum(1, keepdims=True), np.eye(x.shape[1])[labels]
    return {
        "is p - t without the label smoothing": float(dy) * (p - one) / len(x),
        "is p: the target is not subtracted": float(dy) * p / len(x),
        "is p - t: divide by the batch, and multiply by the upstream gradient": p - (1 - s) * one - s / x.shape[1],
        "ignores the upstream gradient": (p - (1 - s) * one - s / x.shape[1]) / len(x),
    }


OWN_MISTAKES = {
    "linear": linear, "softmax": softmax, "layer_norm": layer_norm, "gelu": gelu, "dropout": dropout,
    "cross_entropy": cross_entropy,
}  # fmt: skip
