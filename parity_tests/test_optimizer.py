"""Optimizers: SGD, AdamW and clipping against torch's own; ten steps compared step by step."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_vit
from parity_tests import harness
from parity_tests.strategies import dtypes, normal, scales, seeds
from parity_tests.tolerances import unit_roundoff
from torch_vit.optimizer import parameter_groups
from vit_common import CheckpointError, RangeError, ShapeError

SHAPES = {"blocks.0.attn.qkv.weight": (3, 4), "norm.bias": (4,), "cls_token": (1, 1, 4)}
DECAY = {"blocks.0.attn.qkv.weight": True, "norm.bias": False, "cls_token": False}
STEPS = 10


def draw(seed, scale, dtype):
    return {n: normal(seed + i, shape, scale).astype(dtype) for i, (n, shape) in enumerate(SHAPES.items())}


def run(module, name, params, grads, wrap, options):
    """Parameters and optimizer state after every step, as NumPy arrays."""
    params = {n: wrap(p) for n, p in params.items()}
    init, step = (harness.stage_function(module, f"{name}_{verb}") for verb in ("init", "step"))
    state, history = init(params), []
    for g in grads:
        params, state = step(params, {n: wrap(a) for n, a in g.items()}, state, **options)
        moments = {f"{field}.{n}": np.asarray(a) for field, values in state._asdict().items()
                   if isinstance(values, dict) for n, a in values.items()}  # fmt: skip
        history.append({**{n: np.asarray(p) for n, p in params.items()}, **moments})
    return history


options_sgd = st.fixed_dictionaries(
    {"lr": st.sampled_from([1e-3, 0.1, 1.0]), "momentum": st.sampled_from([0.0, 0.5, 0.9]),
     "weight_decay": st.sampled_from([0.0, 0.05, 0.5]), "decay": st.sampled_from([None, DECAY])}
)  # fmt: skip
options_adamw = st.fixed_dictionaries(
    {"lr": st.sampled_from([1e-4, 1e-3, 0.1]), "beta1": st.sampled_from([0.0, 0.5, 0.9]),
     "beta2": st.sampled_from([0.5, 0.99, 0.999]), "eps": st.sampled_from([1e-8, 1e-3]),
     "weight_decay": st.sampled_from([0.0, 0.05, 0.5]), "decay": st.sampled_from([None, DECAY])}
)  # fmt: skip


@given(seed=seeds, scale=scales, dtype=dtypes, options=options_sgd)
def test_sgd(seed, scale, dtype, options):
    """Each step is a handful of roundings of numbers no larger than the terms that are summed."""
    check("sgd", seed, scale, dtype, options)


@given(seed=seeds, scale=scales, dtype=dtypes, options=options_adamw)
def test_adamw(seed, scale, dtype, options):
    check("adamw", seed, scale, dtype, options)


def check(name, seed, scale, dtype, options):
    params = draw(seed, 1.0, dtype)
    grads = [draw(seed + 100 * (s + 1), scale, dtype) for s in range(STEPS)]
    before = {n: p.copy() for n, p in params.items()}
    ours = run(harness.ENGINE, name, params, grads, np.asarray, options)
    theirs = run(torch_vit, name, params, grads, lambda a: torch.from_numpy(np.array(a)), options)
    assert all(np.array_equal(params[n], before[n]) for n in params), "the parameters given were written to"
    u = unit_roundoff(dtype)
    # A moment is a sum of at most STEPS decayed gradients, a parameter of itself and STEPS updates: the size of all
    # terms together, and about six roundings each; Adam's update divides two such, at most 1 / (1 - beta) each.
    sizes: dict[str, np.ndarray] = {}
    growth = 1.0 / (1.0 - options.get("momentum", 0.0))
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.keys() == b.keys()
        for tensor in a:
            assert a[tensor].dtype == dtype
            plain = tensor.split(".", 1)[1] if tensor.split(".")[0] in ("m", "v", "momentum") else tensor
            if plain != tensor:
                term = np.abs(grads[t][plain]) + 0.5 * np.abs(before[plain]) + 0.5 * np.abs(a[plain])
                term = np.square(grads[t][plain]) if tensor.startswith("v.") else growth * term
            else:
                old = np.abs(before[plain]) if t == 0 else np.abs(ours[t - 1][plain])
                term = old + np.abs(a[tensor] - (before[plain] if t == 0 else ours[t - 1][plain]))
            sizes[tensor] = sizes.get(tensor, 0.0) + term
            bound = 12 * (t + 1) * u * np.maximum(sizes[tensor], np.finfo(dtype).tiny / u)
            harness.assert_within(name, tensor, dtype, a[tensor], b[tensor], bound)


@given(seed=seeds, scale=scales, dtype=dtypes, share=st.sampled_from([0.1, 0.99, 1.01, 10.0]))
def test_clip_grad_norm(seed, scale, dtype, share):
    grads = draw(seed, scale, dtype)
    true_norm = np.sqrt(sum(np.sum(np.square(g.astype(np.float64))) for g in grads.values()))
    clip = harness.stage_function(harness.ENGINE, "clip_grad_norm")
    clipped, norm = clip(grads, float(true_norm * share) or 1.0)
    theirs, their_norm = torch_vit.clip_grad_norm(
        {n: torch.from_numpy(g.copy()) for n, g in grads.items()}, float(true_norm * share) or 1.0
    )
    bound = 32 * unit_roundoff(dtype)
    assert abs(norm - true_norm) <= bound * true_norm + np.finfo(dtype).tiny
    for n, g in grads.items():
        assert clipped[n].dtype == dtype
        harness.assert_within("clip_grad_norm", n, dtype, clipped[n], theirs[n].numpy(), 3 * bound * np.abs(g))
    if share * true_norm > true_norm + 1e-5:  # beyond torch's guard of 1e-6 in the quotient
        assert all(np.array_equal(clipped[n], grads[n]) for n in grads)
    assert abs(their_norm - true_norm) <= bound * true_norm + np.finfo(dtype).tiny


@pytest.mark.parametrize("module", [harness.ENGINE, torch_vit])
def test_errors(module):
    wrap = np.asarray if module is harness.ENGINE else torch.from_numpy
    params = {"a": wrap(normal(0, (2,)))}
    for name in ("sgd", "adamw"):
        init, step = (harness.stage_function(module, f"{name}_{verb}") for verb in ("init", "step"))
        with pytest.raises(CheckpointError, match="different names: a, b"):
            step(params, {"b": wrap(normal(1, (2,)))}, init(params), lr=0.1)
        for shape in ((1, 2), (1,)):
            with pytest.raises(ShapeError, match=re.escape(f"gradient of a has shape {shape}")):
                step(params, {"a": wrap(normal(1, shape))}, init(params), lr=0.1)
        for lr in (-0.1, float("nan"), float("inf")):
            with pytest.raises(RangeError, match="not a learning rate"):
                step(params, params, init(params), lr=lr)
        step(params, params, init(params), lr=0.0)
    for norm in (0.0, -1.0, float("nan")):
        with pytest.raises(RangeError, match="must be positive"):
            harness.stage_function(module, "clip_grad_norm")(params, norm)


def test_parameter_groups():
    """Those that decay, those that do not, no empty group; any iterable will do, one that can be read once as well."""
    tensors = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    weight, bias, token = tensors.values()
    for decay, want in [
        (DECAY, [([weight], 0.3), ([bias, token], 0.0)]),
        (None, [([weight, bias, token], 0.3)]),
        (dict.fromkeys(DECAY, False), [([weight, bias, token], 0.0)]),
    ]:
        groups = parameter_groups(iter(tensors.items()), 0.3, decay)
        assert [set(group) for group in groups] == [{"params", "weight_decay"}] * len(want)
        for group, (members, rate) in zip(groups, want, strict=True):
            assert group["weight_decay"] == rate
            assert all(a is b for a, b in zip(group["params"], members, strict=True))
