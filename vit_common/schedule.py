"""Learning-rate schedule: linear warm-up, then half a cosine."""

import math

from vit_common.errors import RangeError


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, base_lr: float, min_lr: float = 0.0) -> float:
    r"""Learning rate of step `step` (counted from 0).

    $$\eta_s = \eta_\mathrm{base}\,\frac{s+1}{w} \quad (s < w), \qquad
      \eta_s = \eta_\mathrm{min} + \tfrac12(\eta_\mathrm{base}-\eta_\mathrm{min})
      \Bigl(1+\cos\pi\tfrac{s-w}{S-w}\Bigr) \quad (s \ge w)$$

    with $w$ warm-up steps of $S$ in all; past the end it stays at `min_lr`. The first step already learns.
    Source: Loshchilov and Hutter 2017 (SGDR), eq. 5, without restarts; warm-up of Goyal et al. 2017, section 2.2.

    Raises:
        RangeError: negative counts, or a warm-up longer than the run.
    """
    if step < 0 or total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        raise RangeError(
            f"step={step}, warmup_steps={warmup_steps}, total_steps={total_steps}: expected step >= 0 and "
            f"0 <= warmup_steps <= total_steps with total_steps >= 1"
        )
    if step < warmup_steps:
        return base_lr * (step + 1) / warmup_steps
    done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return min_lr + 0.5 * (base_lr - min_lr) * (1.0 + math.cos(math.pi * done))
