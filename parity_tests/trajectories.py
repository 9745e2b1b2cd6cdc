r"""Whole training runs side by side, and the first place where two of them part.

Training is chaotic: a rounding error grows with the steps, so no fixed tolerance is right for step 200. Two runs of one
function are therefore held against controls, runs of the *same* torch engine that differ only by rounding: initial
weights moved by one unit in the last place, batches summed in the other order, another attention path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from parity_tests import bounds
from parity_tests.strategies import normal
from parity_tests.tolerances import LAMBDA, Bounded, Probable, unit_roundoff
from vit_common import ViTConfig, init_params, make_masks
from vit_common.engine import Engine
from vit_common.recipe import Recipe
from vit_common.schedule import warmup_cosine

Array = np.ndarray
Named = dict[str, Array]

CONFIG = ViTConfig(image_size=(8, 6), patch_size=(4, 3), in_channels=2, num_classes=5, embed_dim=16, depth=2,
                   num_heads=4, mlp_ratio=2.0, pos_drop_rate=0.1, attn_drop_rate=0.1, proj_drop_rate=0.1,
                   drop_path_rate=0.2)  # fmt: skip
RECIPE = Recipe(batch_size=6, lr=3e-3, weight_decay=0.1, clip_norm=1.0, label_smoothing=0.1, dtype="float64")


class Batch(NamedTuple):
    images: Array
    labels: Array
    masks: Named
    lr: float


def batches(config: ViTConfig, recipe: Recipe, steps: int) -> Iterator[Batch]:
    """The same batches, masks and learning rates for every engine: everything is keyed, nothing is global."""
    for step in range(steps):
        shape = recipe.batch_size, config.in_channels, *config.image_size
        labels = np.random.default_rng(step).integers(0, config.num_classes, recipe.batch_size)
        images = normal(1000 + step, shape) + labels.reshape(-1, 1, 1, 1) / config.num_classes
        masks = make_masks(config, recipe.batch_size, recipe.seed, step)
        lr = warmup_cosine(step, steps, max(steps // 10, 1), recipe.lr, recipe.lr / 100)
        yield Batch(images.astype(recipe.dtype), labels, masks, lr)


def one_ulp_away(params: Named, towards: float = np.inf) -> Named:
    """Every weight moved to its neighbour in the direction of infinity (or of minus infinity)."""
    return {name: np.nextafter(p, towards, dtype=p.dtype) for name, p in params.items()}


def run(engine: Engine, params: Named, config: ViTConfig, recipe: Recipe, steps: int) -> Iterator[tuple[float, Named]]:
    """(loss, training state: parameters and both moments) after every step."""
    engine.start(config, params, recipe)
    for batch in batches(config, recipe, steps):
        result = engine.train_step(*batch)
        yield result.loss, engine.state()


def initial(config: ViTConfig, recipe: Recipe) -> Named:
    """Starting weights with nothing at zero, so that every gradient is alive from the first step."""
    params = init_params(config, recipe.seed, recipe.dtype)
    return {n: (p + 0.02 * normal(i, p.shape)).astype(recipe.dtype) for i, (n, p) in enumerate(params.items())}


def distance(a: Array, b: Array) -> float:
    """Root mean square of the difference of two tensors; NaN counts as infinitely far."""
    d = float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))))
    return d if np.isfinite(d) else np.inf


# ---- where two runs part ---------------------------------------------------------------------------------------


class Divergence(NamedTuple):
    """The first tensor on which two engines differ by more than rounding."""

    step: int
    kind: str  # "value", "gradient", "parameter gradient" or "update"
    tensor: str
    error: float
    bound: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: first apart in the {self.kind} {self.tensor}, by {self.error:.3e} where rounding "
            f"explains {self.bound:.3e}"
        )


def first_divergence(
    a: Engine, b: Engine, params: Named, config: ViTConfig, recipe: Recipe, steps: int
) -> Divergence | None:
    """Name the first step, stage and tensor at which engine `b` leaves engine `a`, or None.

    Every step starts both engines from a's state, so that what differs is that step's own doing; tapes are compared in
    the order of computation: values forward, gradients backward, parameters' gradients, then the update.
    """
    for engine in (a, b):
        engine.start(config, params, recipe)
    for step, batch in enumerate(batches(config, recipe, steps)):
        ours, theirs = (e.trace(batch.images, batch.labels, batch.masks, recipe.label_smoothing) for e in (a, b))
        tape, param_bounds = step_bounds(a.params(), batch, config, recipe)
        compared = [
            ("value", tape.values, ours.values, theirs.values),
            ("gradient", tape.grads, ours.grads, theirs.grads),
            ("parameter gradient", param_bounds, ours.param_grads, theirs.param_grads),
        ]
        for kind, bound, left, right in compared:
            for name, limit in bound.items():
                if found := apart(left[name], right[name], 2 * LAMBDA * limit.e):
                    return Divergence(step, kind, name, *found)
        before = a.state()
        for engine in (a, b):
            engine.train_step(*batch)
        after, other = a.state(), b.state()
        for name, value in after.items():
            # The gradients agree to their bounds; Adam divides them by their own size, so an update of size lr may be
            # off by lr times a gradient's relative error, at most all of it for a gradient that is itself rounding.
            bound = update_bound(name, value, before[name], param_bounds, ours.param_grads, batch.lr, recipe)
            if found := apart(value, other[name], bound):
                return Divergence(step, "update", name, *found)
        b.load_state(after)
    return None


def step_bounds(
    params: Named, batch: Batch, config: ViTConfig, recipe: Recipe
) -> tuple[bounds.BoundTape, dict[str, Bounded]]:
    """Bounds of every value and gradient of one forward and backward pass through model and loss."""
    dtype, tape = np.dtype(recipe.dtype).type, bounds.BoundTape()
    exact = {name: Probable(p, 0.0, dtype) for name, p in params.items()}
    logits, pull = bounds.vit(exact, Probable(batch.images, 0.0, dtype), config, batch.masks, tape)
    _, pull_loss = bounds.cross_entropy(logits, batch.labels, recipe.label_smoothing)
    grads = pull(pull_loss(Probable(1.0, 0.0, dtype))["x"])
    grads.pop("x")
    return tape, grads


def update_bound(
    name: str, value: Array, before: Array, grad_bounds: dict[str, Bounded], grads: Named, lr: float, recipe: Recipe
) -> Array:
    """Bound of a parameter or a moment after one step from the same state."""
    u = unit_roundoff(recipe.dtype)
    if name == "optim/step":
        return np.zeros(())
    kind, tensor = name.removeprefix("optim/").split("/", 1)
    error = np.minimum(2 * LAMBDA * grad_bounds[tensor].e, 1e300)
    error = error + 16 * u * np.abs(grads[tensor])  # clipping scales by at most one
    size = np.abs(value) + np.abs(before)
    if kind == "m":
        return error + 16 * u * size
    if kind == "v":
        return 2 * np.abs(grads[tensor]) * error + np.minimum(error, 1e150) ** 2 + 16 * u * size
    relative = np.minimum(error / np.maximum(np.abs(grads[tensor]), np.finfo(recipe.dtype).tiny), 2.0)
    return 16 * u * size + 4 * lr * relative


def apart(a: Array, b: Array, bound: Any) -> tuple[float, float] | None:
    """(error, bound) at the element that exceeds its bound most, if one does; NaN always does."""
    error = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    bad = ~(error <= bound)
    if not bad.any():
        return None
    bound = np.broadcast_to(bound, error.shape)
    excess = np.where(bad, np.nan_to_num(error, nan=np.inf) / (bound + 1e-300), -1.0)
    where = np.unravel_index(np.argmax(excess), error.shape)
    return float(error[where]), float(bound[where])


def worst_ratio(
    states: Mapping[str, Array], reference: Mapping[str, Array], controls: list[Mapping[str, Array]], floor: float
) -> tuple[float, str]:
    """Largest distance of any tensor from the reference, in units of the farthest control's (at least `floor`)."""
    ratios = {}
    for name, value in states.items():
        spread = max(distance(control[name], reference[name]) for control in controls)
        size = float(np.sqrt(np.mean(np.square(reference[name].astype(np.float64)))))
        ratios[name] = distance(value, reference[name]) / max(spread, floor * size, 1e-300)
    name = max(ratios, key=ratios.__getitem__)
    return ratios[name], name
