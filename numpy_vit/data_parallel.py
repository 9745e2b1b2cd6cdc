r"""The batch split over threads, one core each: data-parallel training inside one process.

NumPy lets go of the interpreter's lock while it works on an array, so two threads that run the stages on half the batch
each keep two cores busy, elementwise work included. With the threads inside the matrix products, as BLAS does it by
default, the other cores wait whenever there is no product. The loss is a mean over images, and a gradient the sum of
what each image gives, so shares of $B_s$ images yield

$$L = \sum_s \frac{B_s}{B} L_s, \qquad \nabla L = \sum_s \frac{B_s}{B} \nabla L_s .$$

The stages know nothing of it and stay pure. Small shares do not pay: threads hand the lock over at every array.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from numpy_vit.loss import cross_entropy_backward, cross_entropy_forward
from numpy_vit.model import VitCache, vit_backward, vit_forward
from numpy_vit.serve import predict
from vit_common.blas import blas_threads, one_blas_thread
from vit_common.config import ViTConfig

Array = np.ndarray
LEAST_TOKENS, LEAST_PARAMS = 50_000, 5_000_000  # of a thread, numbers of (B, T, D), and of parameters (docs/speed.md)


def parallel_predict(
    params: Mapping[str, Array], images: Array, config: ViTConfig, workers: int | None = None
) -> Array:
    """images (B, C, H, W) -> logits (B, K), those of `vit_forward` up to rounding.

    Args:
        workers: see `parallel_loss_and_grads`.
    """
    parts = run(lambda share: predict(params, images[share], config), batch_shares(images, config, workers))
    return np.concatenate(parts)


def parallel_loss_and_grads(
    params: Mapping[str, Array],
    images: Array,
    labels: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    label_smoothing: float = 0.0,
    workers: int | None = None,
) -> tuple[float, dict[str, Array]]:
    """images (B, C, H, W), labels (B,) -> mean loss, its gradients by the parameters' names.

    Args:
        masks: those of the whole batch; each worker gets the rows of its images.
        workers: threads; None: as many as BLAS has now, but for each a share of at least `LEAST_TOKENS` numbers.
    """

    def work(share: slice) -> tuple[float, dict[str, Array]]:
        weight = len(labels[share]) / max(len(images), 1)  # of none, the loss says what is wrong
        logits, cache = vit_forward(params, images[share], config, share_of(masks, share))
        loss, loss_cache = cross_entropy_forward(logits, labels[share], label_smoothing)
        if isinstance(cache, VitCache):
            cache = cache._replace(encoder=cache.encoder._replace(blocks=LastUse(cache.encoder.blocks)))
        _, grads = vit_backward(cross_entropy_backward(loss_cache, weight), cache)
        return weight * float(loss), grads

    losses, grads = zip(*run(work, batch_shares(images, config, workers)), strict=True)
    return sum(losses), sum_grads(grads, workers)


def parallel_update(
    step: Callable[..., Any], params: dict[str, Array], grads: Mapping[str, Array], state: Any,
    workers: int | None = None, **options: Any,
) -> Any:  # fmt: skip
    """An optimizer step, each thread its share of the names: replaces the entries of `params` and of the state.

    `step(params, grads, state, **options)` is `adamw_step` or `sgd_step`. It runs name by name, and the old arrays of
    one name are freed before the next is stepped: at no time are there two copies of the model and its moments.
    """
    names = list(params)
    moments = {field: value for field, value in state._asdict().items() if isinstance(value, dict)}

    def work(share: slice) -> Any:
        new_state = state
        for name in names[share]:
            mine = state._replace(**{field: {name: values[name]} for field, values in moments.items()})
            new, new_state = step({name: params[name]}, {name: grads[name]}, mine, **options)
            params[name] = new[name]
            for field, values in moments.items():
                values[name] = getattr(new_state, field)[name]
        return new_state

    threads = _threads(workers, sum(p.size for p in params.values()), LEAST_PARAMS)
    new_state = run(work, split(len(names), threads))[0]
    return new_state._replace(**moments)  # the step count is the same for all names


class LastUse(list):
    """A list that forgets what is read: the backward frees each block's cache as soon as it is through with it."""

    def __getitem__(self, index: Any) -> Any:
        value = super().__getitem__(index)
        self[index] = None
        return value


def batch_shares(images: Array, config: ViTConfig, workers: int | None = None) -> list[slice]:
    """The shares of a batch, a thread each; see `parallel_loss_and_grads` for `workers`."""
    return split(len(images), _threads(workers, len(images) * config.num_tokens * config.embed_dim, LEAST_TOKENS))


def _threads(workers: int | None, numbers: int, least: int) -> int:
    """`workers`; of None as many as BLAS has, but for each at least so many of the numbers."""
    return max(1, min(blas_threads(), numbers // least)) if workers is None else workers


def split(count: int, workers: int | None = None) -> list[slice]:
    """`count` images in at most `workers` shares, as even as can be; one share, perhaps empty, at least."""
    shares = max(1, min(count, blas_threads() if workers is None else workers))
    ends = [count * i // shares for i in range(shares + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def share_of(masks: Mapping[str, Array] | None, share: slice) -> dict[str, Array]:
    """The masks' rows for these images; an `attn_mask` (T, T) or (1, ...) holds for all of them."""
    common = {site for site, mask in (masks or {}).items() if site == "attn_mask" and (mask.ndim < 4 or len(mask) == 1)}
    return {site: mask if site in common else mask[share] for site, mask in (masks or {}).items()}


def run(work: Callable[[Any], Any], shares: Sequence[Any]) -> list[Any]:
    """`work` on every share, each in a thread of its own with BLAS held to one; the results in order."""
    if len(shares) == 1:
        return [work(shares[0])]
    from concurrent.futures import ThreadPoolExecutor

    with one_blas_thread(), ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(work, shares))


def sum_grads(parts: Sequence[dict[str, Array]], workers: int | None = None) -> dict[str, Array]:
    """Sum by name, into the arrays of the first part; the names are shared out over threads too."""
    total, *others = parts
    names, threads = list(total), _threads(workers, sum(g.size for g in total.values()), LEAST_PARAMS)

    def add(share: slice) -> None:
        for name in names[share]:
            for other in others:
                total[name] += other[name]

    run(add, split(len(names), threads))
    return total
