"""Several engines trained side by side, step by step on the same batches."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vit_common.config import ViTConfig
from vit_common.data import Dataset
from vit_common.engine import Engine
from vit_common.loop import Plan, evaluate, make_batch
from vit_common.progress import progress_bar
from vit_common.recipe import Recipe


@dataclass
class Log:
    """What one engine did: the loss and the seconds of each step, the test accuracy of each epoch."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    @property
    def step_time(self) -> float:
        """Median seconds a step."""
        return float(np.median(self.seconds))


def one_ulp_up(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every weight moved to the next larger number of its dtype."""
    return {name: np.nextafter(p, np.array(np.inf, p.dtype)) for name, p in params.items()}


def train_together(
    engines: Mapping[str, Engine], config: ViTConfig, recipe: Recipe, dataset: Dataset, show: bool = True
) -> dict[str, Log]:
    """Train started engines to the end of the recipe, alternating after every step.

    Alternating lets a disturbance of the machine hit all alike, and no two ever compute at the same time; each step
    begins with another engine. Only `train_step` is timed: making the batch is common to all.
    """
    plan = Plan.of(len(dataset.train), recipe)
    logs = {name: Log() for name in engines}
    bars = {name: progress_bar(plan.total_steps, f"{name:8}", position=i, show=show) for i, name in enumerate(engines)}
    names = list(engines)
    try:
        for step in range(plan.total_steps):
            batch = make_batch(dataset, config, recipe, step)
            for name in names[step % len(names) :] + names[: step % len(names)]:
                start = time.perf_counter()
                logs[name].losses.append(engines[name].train_step(*batch).loss)  # the clock stops when it is there
                logs[name].seconds.append(time.perf_counter() - start)
                bars[name].update()
            if (step + 1) % plan.steps_per_epoch == 0:
                for name in names:
                    accuracy = evaluate(engines[name], dataset, dataset.test, recipe.dtype).accuracy
                    logs[name].accuracies.append(accuracy)
                    bars[name].set_postfix(loss=f"{logs[name].losses[-1]:.4f}", test=f"{accuracy:.2%}", refresh=False)
    finally:
        for bar in bars.values():
            bar.close()
    return logs
