r"""Second order: the directional derivative of our hand-written gradient is torch's Hessian-vector product."""

import numpy as np
import torch
from hypothesis import given
from torch.func import functional_call

import torch_vit
from parity_tests import harness
from parity_tests.strategies import at_most, composite_cases, normal, seeds
from parity_tests.tolerances import unit_roundoff

STAGE = harness.STAGES["vit"]


def our_hessian_vector(case, labels, directions):
    r"""$H d = \operatorname{Im} \nabla L(\theta + i h d) / h$: the complex step through forward *and* backward."""
    vit_forward, vit_backward, loss_forward, loss_backward = (
        harness.stage_function(harness.ENGINE, name)
        for name in ("vit_forward", "vit_backward", "cross_entropy_forward", "cross_entropy_backward")
    )
    h = 1e-150
    moved = {n: a + 1j * h * directions[n] for n, a in case.arrays.items()}
    logits, cache = vit_forward({n: a for n, a in moved.items() if n != "x"}, moved["x"], *case.options.values())
    _, loss_cache = loss_forward(logits, labels, 0.1)
    dimages, grads = vit_backward(loss_backward(loss_cache), cache)
    return {n: g.imag / h for n, g in {"x": dimages, **grads}.items()}


def torch_hessian_vector(case, labels, directions, dtype):
    model = torch_vit.VisionTransformer(case.options["config"], "explicit", seed=None).to(dtype).eval()
    masks = case.options["masks"]
    masks = None if masks is None else torch_vit.to_torch(masks)

    def loss(arrays):
        params = {n: a for n, a in arrays.items() if n != "x"}
        logits = functional_call(model, params, (arrays["x"], masks))
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.1)

    point, direction = (
        {n: torch.from_numpy(values[n]).to(dtype) for n in case.arrays} for values in (case.arrays, directions)
    )
    point = {n: p.requires_grad_() for n, p in point.items()}
    grads = torch.autograd.grad(loss(point), list(point.values()), create_graph=True)
    slope = sum((g * direction[n]).sum() for n, g in zip(point, grads, strict=True))  # <grad L, d>
    second = torch.autograd.grad(slope, list(point.values()), allow_unused=True)
    return {
        n: np.zeros(p.shape) if h is None else h.double().numpy()
        for (n, p), h in zip(point.items(), second, strict=True)
    }


def gradient_rounding(case, labels):
    r"""What rounding explains in the gradient itself, root mean square.

    Terms of a gradient that cancel are rounded before they do, and so are their derivatives along a direction of size
    one: LayerNorm's, over a row of equal numbers, are multiplied by $\varepsilon^{-1/2}$ and leave exactly nothing in
    one order of operations and a rounding in another. The float32 run does not tell, where it leaves nothing too.
    """
    logits, _ = STAGE.forward(harness.ENGINE, case.arrays, case.options)
    loss_forward, loss_backward = (
        harness.stage_function(harness.ENGINE, f"cross_entropy_{way}") for way in ("forward", "backward")
    )
    dlogits = loss_backward(loss_forward(logits, labels, 0.1)[1])
    bound = harness.derive_bounds(STAGE, case, np.float64, dlogits)
    squares = np.concatenate([np.ravel(b) ** 2 for name, b in bound.items() if name != "y"])
    known = squares[np.isfinite(squares)]
    return np.sqrt(np.mean(known)) if known.size else np.inf


@given(case=composite_cases("vit"), seed=seeds)
@at_most(25)
def test_hessian_vector_product(case, seed):
    """Judged by the size that rounding has in this very example: torch's own float32 error, scaled to float64.

    To first order an error in units of u does not depend on u. Pooled over all tensors, each in units of its size.
    """
    config = case.options["config"]
    if not config.num_classes:
        return
    labels = np.random.default_rng(seed).integers(0, config.num_classes, len(case.arrays["x"]))
    directions = {n: normal(seed + i, a.shape) for i, (n, a) in enumerate(case.arrays.items())}
    ours = our_hessian_vector(case, labels, directions)
    theirs, single = (torch_hessian_vector(case, labels, directions, d) for d in (torch.float64, torch.float32))
    size = np.sqrt(np.mean(np.concatenate([np.ravel(t) for t in theirs.values()]) ** 2))
    u32, u64 = unit_roundoff(np.float32), unit_roundoff(np.float64)

    def pooled(run):
        return np.sqrt(np.mean(np.concatenate([np.ravel(run[n] - t) for n, t in theirs.items()]) ** 2))

    assert ours.keys() == theirs.keys()
    floor = 64 * (1 + config.depth) * u64 * size + gradient_rounding(case, labels)
    assert pooled(ours) <= 4 * u64 / u32 * pooled(single) + floor
