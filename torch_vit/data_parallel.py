r"""The batch in shares, one after the other: data-parallel training with one worker, known as gradient accumulation.

The arithmetic of `numpy_vit.data_parallel`, $L = \sum_s \frac{B_s}{B} L_s$ and the same for the gradients. Torch's
kernels use all cores by themselves, so threads would gain nothing; what shares save here is memory, as autograd keeps
the intermediates of one share only.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from torch_vit.loss import cross_entropy_forward
from torch_vit.model import vit_forward
from vit_common.config import ViTConfig


def parallel_predict(
    params: Mapping[str, Tensor], images: Tensor, config: ViTConfig, workers: int | None = None
) -> Tensor:
    """images (B, C, H, W) -> logits (B, K), those of `vit_forward`, in `workers` shares; None means one."""
    return torch.cat([vit_forward(params, images[share], config) for share in split(len(images), workers)])


def parallel_loss_and_grads(
    params: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    config: ViTConfig,
    masks: Mapping[str, Tensor] | None = None,
    label_smoothing: float = 0.0,
    workers: int | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """images (B, C, H, W), labels (B,) -> mean loss, its gradients by the parameters' names."""
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    total, grads = 0.0, {name: torch.zeros_like(p) for name, p in params.items()}
    for share in split(len(images), workers):
        logits = vit_forward(leaves, images[share], config, share_of(masks, share))
        loss = cross_entropy_forward(logits, labels[share], label_smoothing) * (len(logits) / len(images))
        for gradient, more in zip(grads.values(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
            gradient += more
        total += loss.item()
    return total, grads


def split(count: int, workers: int | None = None) -> list[slice]:
    """`count` images in at most `workers` shares, as even as can be; one share, perhaps empty, at least."""
    shares = max(1, min(count, workers or 1))
    ends = [count * i // shares for i in range(shares + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def share_of(masks: Mapping[str, Tensor] | None, share: slice) -> dict[str, Tensor]:
    """The masks' rows for these images; an `attn_mask` (T, T) or (1, ...) holds for all of them."""
    common = {site for site, mask in (masks or {}).items() if site == "attn_mask" and (mask.ndim < 4 or len(mask) == 1)}
    return {site: mask if site in common else mask[share] for site, mask in (masks or {}).items()}
