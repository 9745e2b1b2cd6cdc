r"""The batch split over threads on a CPU, one core each: data-parallel training inside one process.

The arithmetic of `numpy_vit.data_parallel`, $L = \sum_s \frac{B_s}{B} L_s$ and the same for the gradients. Torch's
kernels use all cores by themselves, but the cores meet after each of them and wait there for the slowest; threads with
a share of the batch meet once. `python -m benchmarks shares`, two cores: 0.74 to 1.04 of the time for shares from
`LEAST_TOKENS` on, 1.0 to 2.0 below. On other devices the shares come one after the other, known as gradient
accumulation: autograd keeps the intermediates of one share only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from torch_vit.loss import cross_entropy_forward
from torch_vit.model import vit_forward
from vit_common.config import ViTConfig

LEAST_TOKENS = 50_000  # numbers of the token array (B, T, D) in a share: with fewer, a second thread brings nothing


def parallel_predict(
    params: Mapping[str, Tensor], images: Tensor, config: ViTConfig, workers: int | None = None
) -> Tensor:
    """images (B, C, H, W) -> logits (B, K), those of `vit_forward`, without what a gradient would need.

    Args:
        workers: see `parallel_loss_and_grads`.
    """

    @torch.no_grad()
    def work(share: slice) -> Tensor:
        return vit_forward(params, images[share], config)

    return torch.cat(list(_all(work, images, batch_shares(images, config, workers))))


def parallel_loss_and_grads(
    params: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    config: ViTConfig,
    masks: Mapping[str, Tensor] | None = None,
    label_smoothing: float = 0.0,
    workers: int | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """images (B, C, H, W), labels (B,) -> mean loss, its gradients by the parameters' names.

    Args:
        masks: those of the whole batch; each share gets the rows of its images.
        workers: shares, on a CPU each in a thread of its own; None: there as many as torch has threads, and fewer if
            the shares were too small, elsewhere one.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}

    @torch.enable_grad()
    def work(share: slice) -> tuple[Tensor, list[Tensor]]:
        logits = vit_forward(leaves, images[share], config, share_of(masks, share))
        loss = cross_entropy_forward(logits, labels[share], label_smoothing) * (len(logits) / len(images))
        return loss.detach(), list(torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True))

    loss, grads = sum_shares(_all(work, images, batch_shares(images, config, workers)))
    return loss.item(), {name: g.clone() for name, g in zip(leaves, grads, strict=True)}  # no two share memory


def batch_shares(images: Tensor, config: ViTConfig, workers: int | None = None) -> list[slice]:
    """The shares of a batch; see `parallel_loss_and_grads` for `workers`."""
    if workers is None:
        most = len(images) * config.num_tokens * config.embed_dim // LEAST_TOKENS
        workers = min(torch.get_num_threads(), most) if _threads_can(images) else 1
    return split(len(images), workers)


def _threads_can(images: Tensor) -> bool:
    """Whether shares can run side by side. (A torch without OpenMP has one number of threads for all.)"""
    return images.device.type == "cpu" and torch.backends.openmp.is_available()


def split(count: int, workers: int | None = None) -> list[slice]:
    """`count` images in at most `workers` shares, as even as can be; one share, perhaps empty, at least."""
    shares = max(1, min(count, workers or 1))
    ends = [count * i // shares for i in range(shares + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def share_of(masks: Mapping[str, Tensor] | None, share: slice) -> dict[str, Tensor]:
    """The masks' rows for these images; an `attn_mask` (T, T) or (1, ...) holds for all of them."""
    common = {site for site, mask in (masks or {}).items() if site == "attn_mask" and (mask.ndim < 4 or len(mask) == 1)}
    return {site: mask if site in common else mask[share] for site, mask in (masks or {}).items()}


def _all(work: Callable[[slice], Any], images: Tensor, shares: Sequence[slice]) -> Iterable[Any]:
    return run(work, shares) if _threads_can(images) else map(work, shares)


def run(work: Callable[[slice], Any], shares: Sequence[slice]) -> list[Any]:
    """`work` on every share, each in a thread of its own with torch held to one core; the results in order.

    Grad mode, inference mode and autocast belong to a thread: `work` sets what it needs.
    """
    if len(shares) == 1:
        return [work(shares[0])]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(shares), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, shares))
    finally:
        torch.set_num_threads(before)  # of threads to come: this one's was not touched


def sum_shares(parts: Iterable[tuple[Tensor, list[Any]]]) -> tuple[Tensor, list[Any]]:
    """The losses' sum, and the gradients', in the order of the shares.

    Not in place: two gradients may be views of one array (of a single image, those of positions and class token). One
    is None, in all shares, where the loss does not depend on the parameter.
    """
    parts = iter(parts)
    loss, total = next(parts)
    for more_loss, more in parts:
        loss = loss + more_loss
        total = [None if g is None else g + m for g, m in zip(total, more, strict=True)]
    return loss, total
