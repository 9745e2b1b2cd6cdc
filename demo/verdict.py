r"""When may two trainings be called the same? A verdict with a control.

Training amplifies every difference. Two right engines add the same numbers in another order, so their losses differ in
the last bits at first and visibly after some hundred steps; that proves nothing by itself. What it is held against is
the **control**: the same engine twice, the second time from weights moved by one unit in the last place. The control's
difference is what rounding alone can become.

Let $g_s = |a_s - b_s| / |b_s|$ be the relative difference of the two losses at step $s$, and $c_s$ the control's.

- They part at the first step where the difference exceeds $10^{-4}$, far above a float32 loss's last bit
  ($6 \cdot 10^{-8}$) and far below what one can see in a curve.
- The engines part *clearly sooner* than the control when they part before half its steps. In a chaotic stretch a
  difference grows like $\delta\, e^{\lambda s}$, so the parting step is $\ln(10^{-4}/\delta)/\lambda$: halving it takes
  a start $\delta$ of the geometric mean of the control's ($10^{-7}$) and the threshold, $3 \cdot 10^{-6}$, thirty times
  what rounding makes. Between right engines the two steps differ by chance only.
- The first steps are sharper: there rounding has not grown yet. Over the first tenth of the control's steps, the median
  of $g_s$ may not exceed thirty times the larger of the control's median and one unit in the last place of the loss:
  the same factor, seen from the other side.

In float64 the rule is plain: over the first 100 steps $g_s \le 10^{-9}$.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PARTED = 1e-4
SOONER = 0.5
GREATER = 30.0
FLOAT64_STEPS, FLOAT64_BOUND = 100, 1e-9


@dataclass(frozen=True)
class Verdict:
    """Whether the engines agree, and the sentences that say why. Steps count from 1; None: never parted."""

    agree: bool
    engines_part: int | None
    control_parts: int | None
    reasons: tuple[str, ...]


def relative_gap(losses: Sequence[float], reference: Sequence[float]) -> np.ndarray:
    """|a - b| / |b| of each step; infinite where either is not finite."""
    a, b = np.asarray(losses, np.float64), np.asarray(reference, np.float64)
    with np.errstate(all="ignore"):
        gap = np.abs(a - b) / np.abs(b)
    gap[a == b] = 0.0
    return np.where(np.isfinite(a) & np.isfinite(b), gap, np.inf)


def parting_step(gap: np.ndarray, threshold: float = PARTED) -> int | None:
    """The first step, counted from 1, whose gap exceeds the threshold."""
    beyond = np.flatnonzero(gap > threshold)
    return int(beyond[0]) + 1 if beyond.size else None


def judge(numpy: Sequence[float], torch: Sequence[float], control: Sequence[float], dtype: str) -> Verdict:
    """The verdict on the losses of the three runs, step by step."""
    engines, noise = relative_gap(numpy, torch), relative_gap(control, torch)
    parted, expected = parting_step(engines), parting_step(noise)
    judged = _judge_float64(engines) if dtype == "float64" else _judge_float32(engines, noise, parted, expected)
    return Verdict(judged[0], parted, expected, judged[1])


def _judge_float64(engines: np.ndarray) -> tuple[bool, tuple[str, ...]]:
    steps = min(FLOAT64_STEPS, len(engines))
    largest = float(engines[:steps].max())
    fine = largest <= FLOAT64_BOUND
    says = f"float64: over the first {steps} steps the losses differ by at most {largest:.1e} relative"
    return fine, (f"{says}, {'within' if fine else 'beyond'} {FLOAT64_BOUND:g}",)


def _judge_float32(
    engines: np.ndarray, noise: np.ndarray, parted: int | None, expected: int | None
) -> tuple[bool, tuple[str, ...]]:
    steps = len(engines)
    limit = SOONER * (expected or steps)
    on_time = parted is None or parted >= limit
    never = f"(never in {steps})"
    reasons = [
        f"the losses first differ by more than {PARTED:g} relative at step {parted or never}, those of the control at "
        f"step {expected or never}: {'not ' if on_time else ''}clearly sooner (before step {limit:.0f})"
    ]
    early = max(int((expected or steps) / 10), 1)
    seen, allowed = (float(np.median(gap[:early])) for gap in (engines, noise))
    allowed = GREATER * max(allowed, float(np.finfo(np.float32).eps))
    small = seen <= allowed
    reasons.append(
        f"median difference of the first {early} steps {seen:.1e}, {'within' if small else 'beyond'} {allowed:.1e}, "
        f"{GREATER:.0f} times the control's (or the last bit of a float32)"
    )
    return on_time and small, tuple(reasons)
