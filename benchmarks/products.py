"""The matrix products of a model, and nothing else: what the engine would take if all the rest were free."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.measure import Timing, interleave
from vit_common.config import ViTConfig
from vit_common.cost import model_costs, totals


class Product(NamedTuple):
    """`repeats` products of (batch, rows, inner) and (batch, inner, columns)."""

    repeats: int
    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.repeats * self.batch * self.rows * self.inner * self.columns


def forward(config: ViTConfig, images: int) -> Iterator[Product]:
    """Those of one forward pass."""
    rows, width, hidden, depth = images * config.num_tokens, config.embed_dim, config.mlp_dim, config.depth
    heads, tokens, head = images * config.num_heads, config.num_tokens, config.head_dim
    yield Product(1, 1, images * config.num_patches, config.patch_dim, width)
    yield Product(depth, 1, rows, width, 3 * width)
    yield Product(depth, heads, tokens, head, tokens)
    yield Product(depth, heads, tokens, tokens, head)
    yield Product(depth, 1, rows, width, width)
    yield Product(depth, 1, rows, width, hidden)
    yield Product(depth, 1, rows, hidden, width)
    if config.num_classes:
        yield Product(1, 1, images, width, config.num_classes)


def backward(config: ViTConfig, images: int) -> Iterator[Product]:
    """Two for each of the forward: the gradient of the left factor, dC B^T, and of the right one, A^T dC."""
    for p in forward(config, images):
        yield p._replace(inner=p.columns, columns=p.inner)
        yield p._replace(rows=p.inner, inner=p.rows)


def flops(config: ViTConfig, images: int, train: bool) -> int:
    """By the cost model: a training step makes three times the products of the forward."""
    return totals(model_costs(config)).flops * images * (3 if train else 1)


def numpy_time(products: list[Product], budget: float) -> float:
    """Seconds of all the products in NumPy, each shape measured alone and at its best."""
    return _time(
        products, budget, lambda shape: np.random.default_rng(0).standard_normal(shape, np.float32), np.matmul
    )


def torch_time(products: list[Product], budget: float) -> float:
    """The same in torch, two-dimensional products the way the engine's linear layers take."""
    import torch

    from torch_vit.linear import linear_forward

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return linear_forward(a, b.T) if a.ndim == 2 else a @ b

    with torch.inference_mode():
        return _time(products, budget, lambda shape: torch.randn(shape), product)


def _time(products: list[Product], budget: float, draw: Callable, product: Callable) -> float:
    shapes: dict[tuple[int, ...], int] = {}
    for p in products:
        shapes[p[1:]] = shapes.get(p[1:], 0) + p.repeats
    calls = {}
    for batch, rows, inner, columns in shapes:
        lead = (batch,) if batch > 1 else ()
        a, b = draw((*lead, rows, inner)), draw((*lead, inner, columns))
        calls[batch, rows, inner, columns] = partial(product, a, b)
    times: dict[tuple[int, ...], Timing] = interleave(calls, repeats=15, budget=budget, pause=0.0)
    return sum(count * times[shape].minimum for shape, count in shapes.items())
