"""The report's curves: training steps of both engines, and how far they part beside runs that differ by rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.tolerances import unit_roundoff
from parity_tests.trajectories import CONFIG, RECIPE, initial, one_ulp_away, run

STEPS = 200


def trajectories(steps: int = STEPS) -> dict[str, dict[str, Any]]:
    """Per dtype: the losses of both engines, and the relative distance of parameters and moments from torch's."""
    from numpy_vit.engine import NumpyEngine
    from torch_vit.engine import TorchEngine

    found = {}
    for dtype in ("float64", "float32"):
        recipe = RECIPE.replace(dtype=dtype)
        start = initial(CONFIG, recipe)
        runs = {
            "torch": run(TorchEngine(), start, CONFIG, recipe, steps),
            "numpy": run(NumpyEngine(), start, CONFIG, recipe, steps),
            "torch, weights one ulp up": run(TorchEngine(), one_ulp_away(start), CONFIG, recipe, steps),
            "torch, weights one ulp down": run(TorchEngine(), one_ulp_away(start, -np.inf), CONFIG, recipe, steps),
        }
        losses: dict[str, list[float]] = {name: [] for name in runs}
        apart: dict[str, list[float]] = {name: [] for name in runs if name != "torch"}
        for results in zip(*runs.values(), strict=True):
            states = {name: state for name, (_, state) in zip(runs, results, strict=True)}
            for name, (loss, _) in zip(runs, results, strict=True):
                losses[name].append(float(loss))
            for name, distances in apart.items():
                distances.append(relative_distance(states[name], states["torch"]))
        kept = {name: losses[name] for name in ("numpy", "torch")}
        found[dtype] = {"steps": steps, "unit_roundoff": unit_roundoff(dtype), "losses": kept, "apart": apart}
    return found


def relative_distance(state: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Root mean square, over all parameters and moments, of the difference's 2-norm in units of the tensor's own."""
    ratios = []
    for name, value in reference.items():
        value = np.asarray(value, np.float64)
        size = float(np.linalg.norm(value))
        if size > 0 and name != "optim/step":
            ratios.append(float(np.linalg.norm(np.asarray(state[name], np.float64) - value)) / size)
    return float(np.sqrt(np.mean(np.square(ratios))))
