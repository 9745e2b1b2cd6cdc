r"""Optimizers over flat parameter dicts: SGD with momentum, AdamW, global-norm clipping. Pure: new dicts come back."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vit_common.errors import CheckpointError, RangeError, check_float, check_shape

Array = np.ndarray
Arrays = Mapping[str, Array]


class SgdState(NamedTuple):
    momentum: dict[str, Array]


class AdamWState(NamedTuple):
    step: int
    m: dict[str, Array]  # running mean of the gradient
    v: dict[str, Array]  # running mean of its square


def sgd_init(params: Arrays) -> SgdState:
    """Zero momentum for every parameter."""
    return SgdState({name: np.zeros_like(p) for name, p in params.items()})


def sgd_step(
    params: Arrays,
    grads: Arrays,
    state: SgdState,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay: Mapping[str, bool] | None = None,
) -> tuple[dict[str, Array], SgdState]:
    r"""One step of SGD with (heavy-ball) momentum and L2 decay.

    $$g \leftarrow g + \lambda p, \qquad u \leftarrow \beta u + g, \qquad p \leftarrow p - \eta u$$

    with the learning rate $\eta$, the momentum $\beta$ and the weight decay $\lambda$; Sutskever et al. 2013, eq. 1 and
    2, in torch's form (the learning rate outside the buffer). `decay` says which parameters are decayed; None means
    all.

    Raises:
        CheckpointError, ShapeError: gradients of other names or shapes than the parameters.
        RangeError: a learning rate that is negative or not finite.
    """
    _check(params, grads, lr)
    new, buffers = {}, {}
    for name, p in params.items():
        rate = weight_decay if decay is None or decay[name] else 0.0
        g = grads[name] + rate * p if rate else grads[name]
        buffers[name] = momentum * state.momentum[name] + g
        new[name] = p - lr * buffers[name]
    return new, SgdState(buffers)


def adamw_init(params: Arrays) -> AdamWState:
    """Step 0 and zero moments for every parameter."""
    m, v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    return AdamWState(0, m, v)


def adamw_step(
    params: Arrays,
    grads: Arrays,
    state: AdamWState,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    decay: Mapping[str, bool] | None = None,
) -> tuple[dict[str, Array], AdamWState]:
    r"""One step of AdamW: Adam with decoupled weight decay.

    $$m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
      \hat m = \frac{m}{1-\beta_1^t}, \quad \hat v = \frac{v}{1-\beta_2^t}$$
    $$p \leftarrow (1 - \eta\lambda)\, p - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$

    with the step $t = 1, 2, \dots$, the learning rate $\eta$ and the weight decay $\lambda$; Kingma and Ba 2015,
    algorithm 1; Loshchilov and Hutter 2019, algorithm 2, decay scaled by $\eta$ as in torch. `decay` says which
    parameters are decayed; None means all.

    Raises:
        CheckpointError, ShapeError: gradients of other names or shapes than the parameters.
        RangeError: a learning rate that is negative or not finite.
    """
    _check(params, grads, lr)
    step = state.step + 1
    correction1, correction2 = 1.0 - beta1**step, math.sqrt(1.0 - beta2**step)
    new, ms, vs = {}, {}, {}
    for name, p in params.items():
        g = grads[name]
        ms[name] = m = beta1 * state.m[name] + (1.0 - beta1) * g
        vs[name] = v = beta2 * state.v[name] + (1.0 - beta2) * (g * g)
        update = np.sqrt(v)
        update /= correction2
        update += eps
        np.divide(m, update, out=update)
        update *= -lr / correction1
        update += p * (1.0 - lr * weight_decay) if decay is None or decay[name] else p
        new[name] = update
    return new, AdamWState(step, ms, vs)


def clip_grad_norm(grads: Arrays, max_norm: float) -> tuple[dict[str, Array], float]:
    r"""Scale all gradients so that their common 2-norm is at most `max_norm`; also returns the norm before.

    $$g \leftarrow g \cdot \min\bigl(1,\ c / (\lVert g \rVert + 10^{-6})\bigr)$$

    $c$ being `max_norm`; Pascanu et al. 2013, algorithm 1, with the guard of `torch.nn.utils.clip_grad_norm_`.

    Raises:
        RangeError: `max_norm` is not positive.
        DtypeError: a gradient that is not of float32 or float64; the squares of others overflow.
    """
    if not max_norm > 0:
        raise RangeError(f"max_norm={max_norm} must be positive; leave clipping out instead")
    for name, g in grads.items():
        check_float(f"gradient of {name}", g)
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
    scale = max_norm / (norm + 1e-6)
    if not scale < 1.0:  # also when the norm is NaN: then nothing is hidden
        return dict(grads), norm
    return {name: g * scale for name, g in grads.items()}, norm


def _check(params: Arrays, grads: Arrays, lr: float) -> None:
    if params.keys() != grads.keys():
        odd = sorted(params.keys() ^ grads.keys())
        raise CheckpointError(f"parameters and gradients have different names: {', '.join(odd[:6])}")
    for name, p in params.items():
        check_float(f"parameter {name}", p)
        check_float(f"gradient of {name}", grads[name])
        check_shape(f"gradient of {name}", grads[name], p.shape)
    if not (math.isfinite(lr) and lr >= 0):
        raise RangeError(f"lr={lr} is not a learning rate; expected a finite number of at least 0")
