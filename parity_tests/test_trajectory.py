"""Training runs of both engines, every parameter and both moments at every step; and where two runs part."""

import dataclasses

import numpy as np
import pytest

import torch_vit
from numpy_vit.engine import NumpyEngine
from parity_tests import trajectories
from parity_tests.tolerances import unit_roundoff
from parity_tests.trajectories import CONFIG, RECIPE, first_divergence, initial, one_ulp_away, run, worst_ratio
from torch_vit.engine import TorchEngine

STEPS = 200


class ExplicitTorchEngine(TorchEngine):
    """The same model with attention written out: the same function, other roundings. A control."""

    def load(self, config, params, dtype="float32"):
        super().load(config, params, dtype)
        for block in self.model.blocks:
            block.attn.attention = "explicit"


class ManualTorchEngine(TorchEngine):
    """The same model with a hand-written attention backward. A control."""

    def load(self, config, params, dtype="float32"):
        super().load(config, params, dtype)
        for block in self.model.blocks:
            block.attn.attention = "manual"


class ReversedTorchEngine(TorchEngine):
    """Every batch last image first: the same means, summed in the other order. A control."""

    def train_step(self, images, labels, masks, lr):
        def back(a):
            return np.ascontiguousarray(a[::-1])

        return super().train_step(back(images), back(labels), {name: back(m) for name, m in masks.items()}, lr)


# Where attention drops something, torch has one path: these two are then the reference itself, to the bit.
PATHS = {"explicit": ExplicitTorchEngine, "manual": ManualTorchEngine}


# A run may be as far from torch's as torch's own variants are from each other, with room for their being few: the
# largest of a hundred-odd tensors' distances, each a random variable, stays within a factor of 16 of the controls'.
ROOM = 16.0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_float64_every_step(optimizer):
    recipe = RECIPE.replace(optimizer=optimizer)
    config = CONFIG.replace(attn_drop_rate=0.0) if optimizer == "sgd" else CONFIG
    start = initial(config, recipe)
    runs = {
        "ours": run(NumpyEngine(), start, config, recipe, STEPS),
        "torch": run(TorchEngine(), start, config, recipe, STEPS),
        "ulp up": run(TorchEngine(), one_ulp_away(start), config, recipe, STEPS),
        "ulp down": run(TorchEngine(), one_ulp_away(start, -np.inf), config, recipe, STEPS),
        "reversed": run(ReversedTorchEngine(), start, config, recipe, STEPS),
    }
    if not config.attn_drop_rate:
        runs |= {name: run(engine(), start, config, recipe, STEPS) for name, engine in PATHS.items()}
    others = [name for name in runs if name not in ("ours", "torch")]
    floor = 64 * unit_roundoff(np.float64)  # the first steps, before any error has grown
    for step, results in enumerate(zip(*runs.values(), strict=True)):
        losses = {name: loss for name, (loss, _) in zip(runs, results, strict=True)}
        states = {name: state for name, (_, state) in zip(runs, results, strict=True)}
        controls = [states[name] for name in others]
        ratio, tensor = worst_ratio(states["ours"], states["torch"], controls, floor)
        assert ratio <= ROOM, f"step {step}: {tensor} is {ratio:.1f} times as far from torch as torch's own variants"
        spread = max(abs(losses[name] - losses["torch"]) for name in others)
        assert abs(losses["ours"] - losses["torch"]) <= ROOM * max(spread, floor * abs(losses["torch"]))
    for name in others:
        apart = max(trajectories.distance(states[name][t], states["torch"][t]) for t in states["torch"])
        assert apart > 0, f"the control {name} is the reference itself, and says nothing"


def test_float32_against_the_control():
    """The step at which we leave torch by 1e-4 relative comes no clearly sooner than for one-ulp-moved weights."""
    recipe = RECIPE.replace(dtype="float32")
    start = initial(CONFIG, recipe)
    losses = {
        name: np.array([loss for loss, _ in run(engine, params, CONFIG, recipe, STEPS)])
        for name, engine, params in [
            ("ours", NumpyEngine(), start), ("torch", TorchEngine(), start),
            ("ulp", TorchEngine(), one_ulp_away(start)),
        ]
    }  # fmt: skip
    gaps = {n: np.maximum.accumulate(np.abs(losses[n] - losses["torch"]) / losses["torch"]) for n in ("ours", "ulp")}
    floor = 64 * unit_roundoff(np.float32)
    assert np.all(gaps["ours"] <= ROOM * np.maximum(gaps["ulp"], floor)), "parted clearly sooner than the control"
    assert losses["ours"][-20:].mean() < losses["ours"][:20].mean(), "nothing was learned"


class Tampered(NumpyEngine):
    """A right engine, wrong in one place."""

    def __init__(self, where, at=0):
        super().__init__()
        self.where, self.at, self.count = where, at, 0

    def train_step(self, images, labels, masks, lr):
        if self.where == "update" and self.count >= self.at:
            lr = lr * (1 + 1e-6)
        self.count += 1
        return super().train_step(images, labels, masks, lr)

    def trace(self, images, labels, masks=None, label_smoothing=0.0):
        true = self.config
        if self.where == "eps" and self.count >= self.at:
            self.config = true.replace(norm_eps=1e-5)
        if self.where == "smoothing" and self.count >= self.at:
            label_smoothing += 1e-9
        traced = super().trace(images, labels, masks, label_smoothing)
        self.config = true
        if self.where == "gradient" and self.count >= self.at:
            traced.param_grads["blocks.1.mlp.fc2.bias"][3] *= 1 + 1e-9
        return traced


@pytest.mark.parametrize(
    ("where", "kind", "tensor"),
    [("eps", "value", "blocks.0.norm1"), ("smoothing", "gradient", "logits"), ("update", "update", "params/"),
     ("gradient", "parameter gradient", "blocks.1.mlp.fc2.bias")],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 3])
def test_first_divergence_names_step_stage_and_tensor(where, kind, tensor, at):
    start = initial(CONFIG, RECIPE)
    found = first_divergence(NumpyEngine(), Tampered(where, at), start, CONFIG, RECIPE, steps=5)
    assert found is not None
    assert (found.step, found.kind) == (at, kind)
    assert found.tensor.startswith(tensor)
    assert str(found).startswith(f"step {at}: first apart in the {kind} {tensor}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_engines_do_not_diverge(dtype):
    recipe = RECIPE.replace(dtype=dtype)
    assert first_divergence(NumpyEngine(), TorchEngine(), initial(CONFIG, recipe), CONFIG, recipe, steps=10) is None


def test_controls_are_other_runs():
    """A control equal to the reference would make every bound vacuous or zero."""
    recipe = dataclasses.replace(RECIPE)
    start = initial(CONFIG, recipe)
    moved = one_ulp_away(start)
    assert all(np.all(moved[n] != p) for n, p in start.items())
    last = [list(run(TorchEngine(), p, CONFIG, recipe, 5))[-1][1] for p in (start, moved)]
    assert trajectories.distance(last[0]["params/norm.weight"], last[1]["params/norm.weight"]) > 0
    assert torch_vit.MultiHead(CONFIG).attention == "fused"
