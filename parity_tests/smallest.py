"""The smallest legal shapes of every stage, all of them in every run: where axes of size one hide mistakes or raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from parity_tests.strategies import Case, composite_case, normal
from vit_common import ViTConfig

FEW = (1, 2)


def named(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: normal(seed + i, shape) for i, (name, shape) in enumerate(shapes.items())}


def linear() -> Iterator[Case]:
    for rows, width, out in product(FEW, FEW, FEW):
        yield Case(named(rows, x=(rows, width), weight=(out, width)), {})
        yield Case(named(rows, x=(rows, width), weight=(out, width), bias=(out,)), {})


def patch_embed() -> Iterator[Case]:
    for batch, channels, out, patch, grid in product(FEW, FEW, FEW, [(1, 1), (1, 2), (2, 1)], [(1, 1), (2, 1), (1, 2)]):
        size = patch[0] * grid[0], patch[1] * grid[1]
        yield Case(named(batch, x=(batch, channels, *size), weight=(out, channels, *patch), bias=(out,)), {})


def class_token() -> Iterator[Case]:
    for batch, patches, width in product(FEW, FEW, FEW):
        yield Case(named(batch, x=(batch, patches, width), cls_token=(1, 1, width)), {})


def pos_embed() -> Iterator[Case]:
    for batch, tokens, width in product(FEW, FEW, FEW):
        yield Case(named(batch, x=(batch, tokens, width), pos_embed=(1, tokens, width)), {})


def layer_norm() -> Iterator[Case]:
    for lead, width in product([(1,), (2,), (1, 1), (1, 2)], (1, 2, 3)):
        yield Case(named(width, x=(*lead, width), weight=(width,), bias=(width,)), {"eps": 1e-6})


def gelu() -> Iterator[Case]:
    for shape in ((1,), (2,), (1, 1), (1, 2)):
        yield Case(named(1, x=shape), {})


softmax = gelu


def dropout() -> Iterator[Case]:
    for shape, keep in product([(1,), (2,), (1, 1), (2, 1)], (False, True)):
        yield Case(named(1, x=shape), {"mask": np.full(shape, keep), "rate": 0.5})


def drop_path() -> Iterator[Case]:
    for shape, keep in product([(1,), (2,), (1, 1), (2, 1)], (False, True)):
        yield Case(named(1, x=shape), {"mask": np.full(shape[0], keep), "rate": 0.5})


def attention() -> Iterator[Case]:
    for batch, heads, tokens, keys, dim in product(FEW, FEW, FEW, FEW, FEW):
        lead = batch, heads
        shapes = {"q": (*lead, tokens, dim), "k": (*lead, keys, dim), "v": (*lead, keys, dim)}
        yield Case(named(batch, **shapes), {"drop_mask": None, "drop_rate": 0.0})


def pool() -> Iterator[Case]:
    for batch, kind, prefix, patches, width in product(FEW, ("cls", "mean"), (0, 1), FEW, FEW):
        yield Case(named(batch, x=(batch, prefix + patches, width)), {"pool": kind, "prefix": prefix})


def cross_entropy() -> Iterator[Case]:
    for batch, classes, smoothing in product(FEW, FEW, (0.0, 0.1)):
        labels = np.arange(batch) % classes
        yield Case(named(batch, x=(batch, classes)), {"labels": labels, "label_smoothing": smoothing})


def composite(kind: str) -> Iterator[Case]:
    """One patch, one head, a head of width one, one class, one image; and two of each."""
    for grid, heads, dim, classes, batch, token in product([(1, 1), (1, 2)], FEW, FEW, FEW, FEW, (False, True)):
        config = ViTConfig(
            image_size=(grid[0], 2 * grid[1]), patch_size=(1, 2), in_channels=1, num_classes=classes, depth=1,
            num_heads=heads, embed_dim=heads * dim, mlp_ratio=1.0, class_token=token, pool="cls" if token else "mean",
        )  # fmt: skip
        yield composite_case(kind, config, batch, seed=batch + dim)


def vit() -> Iterator[Case]:
    """And every kind of position and pooling, which few drawn examples put together."""
    yield from composite("vit")
    kinds = "learned", "sincos_1d", "sincos_2d", "none"
    for kind, token, pooling, depth in product(kinds, (False, True), ("cls", "mean"), (0, 1)):
        if token or pooling == "mean":
            config = ViTConfig(
                image_size=(2, 3), patch_size=1, in_channels=1, num_classes=2, depth=depth, num_heads=1, embed_dim=4,
                mlp_ratio=1.0, pos_embed=kind, class_token=token, pool=pooling,
            )  # fmt: skip
            yield composite_case("vit", config, batch=2)


def smallest(stage: str) -> list[Case]:
    own: Callable[[], Iterator[Case]] | None = globals().get(stage)
    return list(own() if own else composite(stage))
