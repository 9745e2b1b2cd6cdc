r"""Optimizers: torch's own, behind the pure interface of the NumPy engine, and as objects for the training loop."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vit_common.errors import CheckpointError, RangeError, check_shape

Tensors = Mapping[str, Tensor]


class SgdState(NamedTuple):
    momentum: dict[str, Tensor]


class AdamWState(NamedTuple):
    step: int
    m: dict[str, Tensor]
    v: dict[str, Tensor]


def sgd_init(params: Tensors) -> SgdState:
    """Zero momentum for every parameter."""
    return SgdState({name: torch.zeros_like(p) for name, p in params.items()})


def sgd_step(
    params: Tensors,
    grads: Tensors,
    state: SgdState,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay: Mapping[str, bool] | None = None,
) -> tuple[dict[str, Tensor], SgdState]:
    """One step of `torch.optim.SGD` on copies."""
    leaves = _leaves(params, grads, lr)
    optimizer = torch.optim.SGD(parameter_groups(leaves.items(), weight_decay, decay), lr, momentum)
    for name, leaf in leaves.items():
        optimizer.state[leaf]["momentum_buffer"] = state.momentum[name].clone()
    if momentum:
        optimizer.step()
        buffers = {name: optimizer.state[leaf]["momentum_buffer"] for name, leaf in leaves.items()}
    else:  # torch then keeps no buffer; the one step that it would hold is the decayed gradient
        rates = {name: weight_decay if decay is None or decay[name] else 0.0 for name in leaves}
        buffers = {name: grads[name].detach().add(leaf.detach(), alpha=rates[name]) for name, leaf in leaves.items()}
        optimizer.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}, SgdState(buffers)


def adamw_init(params: Tensors) -> AdamWState:
    """Step 0 and zero moments for every parameter."""
    return AdamWState(0, sgd_init(params).momentum, sgd_init(params).momentum)


def adamw_step(
    params: Tensors,
    grads: Tensors,
    state: AdamWState,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    decay: Mapping[str, bool] | None = None,
) -> tuple[dict[str, Tensor], AdamWState]:
    """One step of `torch.optim.AdamW` on copies."""
    leaves = _leaves(params, grads, lr)
    optimizer = torch.optim.AdamW(parameter_groups(leaves.items(), weight_decay, decay), lr, (beta1, beta2), eps)
    for name, leaf in leaves.items():
        step = torch.tensor(float(state.step))
        moments = {"exp_avg": state.m[name].clone(), "exp_avg_sq": state.v[name].clone()}
        optimizer.state[leaf] = {"step": step, **moments}
    optimizer.step()
    m, v = ({n: optimizer.state[p][key] for n, p in leaves.items()} for key in ("exp_avg", "exp_avg_sq"))
    return {name: leaf.detach() for name, leaf in leaves.items()}, AdamWState(state.step + 1, m, v)


def clip_grad_norm(grads: Tensors, max_norm: float) -> tuple[dict[str, Tensor], float]:
    """`torch.nn.utils.clip_grad_norm_` on copies; also returns the norm before.

    Raises:
        RangeError: `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise RangeError(f"max_norm={max_norm} must be positive; leave clipping out instead")
    leaves = _leaves(grads, grads, 0.0)
    norm = nn.utils.clip_grad_norm_(leaves.values(), max_norm)
    clipped = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}  # every leaf has one
    return clipped, float(norm)


def parameter_groups(
    named: Iterable[tuple[str, Tensor]], weight_decay: float, decay: Mapping[str, bool] | None
) -> list[dict[str, object]]:
    """Two parameter groups for a torch optimizer: those that `decay` names, and the others with no decay."""
    named = list(named)
    kept = [p for name, p in named if decay is None or decay[name]]
    free = [p for name, p in named if not (decay is None or decay[name])]
    groups = {"params": kept, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}
    return [group for group in groups if group["params"]]


def _leaves(params: Tensors, grads: Tensors, lr: float) -> dict[str, Tensor]:
    if params.keys() != grads.keys():
        odd = sorted(params.keys() ^ grads.keys())
        raise CheckpointError(f"parameters and gradients have different names: {', '.join(odd[:6])}")
    for name, p in params.items():
        check_shape(f"gradient of {name}", grads[name], p.shape)
    if not (math.isfinite(lr) and lr >= 0):
        raise RangeError(f"lr={lr} is not a learning rate; expected a finite number of at least 0")
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    for name, leaf in leaves.items():
        leaf.grad = grads[name].detach().clone()
    return leaves
