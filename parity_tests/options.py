"""Arguments drawn at random, of a library that is installed: what the draws of timm and of Hugging Face share.

A draw is what one may write. What the library itself refuses is no case; what is refused here is a failure.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity_tests.peers import FLOOR

BOUND = 1e-11
Array = np.ndarray


class Chooser:
    """Random choices from one seed."""

    def __init__(self, *seed: int):
        self.rng = np.random.default_rng(seed)

    def one(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def some(self, share: float, **choices: tuple) -> dict[str, Any]:
        """Each argument, with this probability, as one of its choices."""
        return {name: self.one(*values) for name, values in choices.items() if self.rng.random() < share}

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


class Refused(Exception):
    """The library does not take these arguments."""


def sweep(check: Callable[[int], float], seeds: range) -> dict[str, Any]:
    """`check` of every seed: how many cases there were, how many were reproduced, the largest error, what failed."""
    cases, worst, refused, failed = 0, 0.0, Counter[str](), dict[str, str]()
    for seed in seeds:
        try:
            error = check(seed)
        except Refused as reason:
            refused[str(reason)] += 1
            continue
        except Exception as problem:
            error, failed[str(seed)] = math.inf, f"{type(problem).__name__}: {problem}"
        cases += 1
        if error <= BOUND:
            worst = max(worst, error)
        else:
            failed.setdefault(str(seed), f"relative error {error:.3g}")
    return {"cases": cases, "reproduced": cases - len(failed), "worst": worst, "failed": failed,
            "refused_by_the_library": dict(refused.most_common())}  # fmt: skip


def relative(ours: Any, theirs: Any, least: float = 0.0) -> float:
    """max|a - b| / max(max|b|, least); another shape or no number counts as infinity."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return math.inf
    if not theirs.size or not (ours.any() or theirs.any()):
        return 0.0
    return float(abs(ours - theirs).max() / max(abs(theirs).max(), least, np.finfo(float).tiny))


def gradient_error(ours: dict[str, Array], theirs: dict[str, Array]) -> float:
    """The largest over the names. A gradient that only we have must be zero: it belongs to what they never read."""
    least = FLOOR * max((float(abs(g).max()) for g in theirs.values() if g.size), default=0.0)
    extra = [name for name in ours.keys() - theirs.keys() if ours[name].any()]
    missing = [name for name in theirs.keys() - ours.keys() if theirs[name].any()]
    if extra or missing:
        return math.inf
    return max((relative(ours[n], g, least) for n, g in theirs.items() if n in ours), default=0.0)


def run_both(
    config: Any, params: dict[str, Array], images: Array, dlogits: Array, masks: dict[str, Array] | None,
    training: bool = False,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Of NumPy, then of torch: logits, gx, grads, and the tape of intermediates."""
    import torch

    import numpy_vit
    import torch_vit

    tape: dict[str, Array] = {}
    logits, cache = numpy_vit.vit_forward(params, images, config, masks, tape)
    gx, grads = numpy_vit.vit_backward(dlogits, cache)
    yield {"logits": logits, "gx": gx, "grads": grads, "tape": tape}
    model = torch_vit.VisionTransformer(config, seed=None).double().train(training)
    model.load_state_dict(torch_vit.to_torch(params))
    x = torch.from_numpy(images.copy()).requires_grad_()
    with torch_vit.Tape(model) as recorded:
        out = model(x, None if masks is None else torch_vit.to_torch(masks))
    out.backward(torch.from_numpy(np.asarray(dlogits)))
    values = {name: value.numpy() for name, value in recorded.values.items()}
    yield {"logits": out.detach().numpy(), "gx": gradient(x), "grads": gradients(model), "tape": values}


def gradients(module: Any) -> dict[str, Array]:
    """Of every parameter, zeros where none came."""
    return {name: gradient(p) for name, p in module.named_parameters()}


def gradient(tensor: Any) -> Array:
    return np.zeros(tuple(tensor.shape)) if tensor.grad is None else tensor.grad.numpy()
