"""Every backward refuses a gradient of another shape than its forward's output; most would broadcast without a word."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import numpy_vit
from parity_tests.choices import smallest_cases
from parity_tests.harness import STAGES
from parity_tests.smallest import smallest
from parity_tests.strategies import Array, normal, random_params
from parity_tests.variant_cases import CASES
from parity_tests.variants import VARIANTS
from vit_common import ShapeError, ViTConfig
from vit_common.assembled_spec import assembled_spec
from vit_common.mae_config import MaeConfig, mae_spec
from vit_common.params import param_spec, sub

REGISTERED = {**STAGES, **VARIANTS}
LOSSES = {name for name, stage in REGISTERED.items() if stage.scalar} | {"mae"}
EACH = {"table_bias", "block_bias"}  # one bias for all images takes a gradient for each of them, and adds them up
PAIRS = sorted(n.removesuffix("_backward") for n in numpy_vit.__all__ if n.endswith("_backward"))


class Run(NamedTuple):
    """A forward that was run: its outputs, and its backward as a function of one gradient for each."""

    outputs: tuple[Array, ...]
    backward: Callable[..., Any]


def run(name: str, /, *arguments: Any, **options: Any) -> Run:
    *ys, cache = getattr(numpy_vit, f"{name}_forward")(*arguments, **options)
    backward = getattr(numpy_vit, f"{name}_backward")
    outputs = ys[0] if isinstance(ys[0], tuple) else tuple(ys)
    if name == "mae":
        outputs = outputs[:1]  # the prediction is for looking at
    return Run(outputs, (lambda dy: backward(cache, dy)) if name in LOSSES else lambda *dys: backward(*dys, cache))


def branch() -> Iterator[Run]:
    config = ViTConfig(image_size=(4, 6), patch_size=2, in_channels=2, embed_dim=8, num_heads=2, depth=1, reg_tokens=1)
    params = sub(random_params(assembled_spec(config), 0), "blocks.0")
    names = numpy_vit.BranchNames("norm2", "mlp", "ls2.gamma", "drop_path2")
    x = normal(0, (2, config.num_tokens, 8))
    yield run("branch", params, x, config, names, numpy_vit.Positions(), 0.0, {})


def prefix_tokens() -> Iterator[Run]:
    yield run("prefix_tokens", normal(0, (2, 3, 4)), {"cls_token": normal(1, (1, 1, 4))})


def qk_positions() -> Iterator[Run]:
    q, k = normal(0, (2, 2, 7, 4)), normal(1, (2, 1, 7, 4))
    turned = numpy_vit.Positions(0, normal(2, (1, 1, 6, 2)), normal(3, (1, 1, 6, 2)))
    for where in (numpy_vit.Positions(), turned):
        yield run("qk_positions", {}, q, k, ViTConfig(embed_dim=8, num_heads=2), where)


def qkv_project() -> Iterator[Run]:
    x, weights = normal(0, (2, 3, 4)), [normal(i, (n, 4)) for i, n in enumerate((4, 2, 2))]
    yield run("qkv_project", {"qkv.weight": normal(1, (12, 4))}, x, (2, 2, 2))
    yield run("qkv_project", {f"{n}_proj.weight": w for n, w in zip("qkv", weights, strict=True)}, x, (2, 1, 1))


def table_bias() -> Iterator[Run]:
    config = ViTConfig(image_size=(4, 6), patch_size=2, rel_pos_bias="shared", embed_dim=8, num_heads=2)
    for grid in ((2, 3), (3, 3)):
        yield run("table_bias", normal(0, (18, 2)), config, grid)


def block_bias() -> Iterator[Run]:
    config = ViTConfig(image_size=(4, 6), patch_size=2, rel_pos_bias="block", embed_dim=8, num_heads=2)
    yield run("block_bias", normal(0, (18, 2)), config, numpy_vit.Positions(grid=(2, 3)))


SMALL = ViTConfig(image_size=(4, 6), patch_size=2, in_channels=2, embed_dim=8, num_heads=2, depth=1, num_classes=3)
IMAGES = normal(9, (2, 2, 4, 6))


def assembled(name: str = "assembled") -> Iterator[Run]:
    for fields in ({"reg_tokens": 1}, {"final_norm": False}, {"num_classes": 0, "pre_logits": 3}):
        config = SMALL.replace(**fields)
        yield run(name, random_params(assembled_spec(config), 0), IMAGES, config, {})


def assembled_features() -> Iterator[Run]:
    yield from assembled("assembled_features")


def mae() -> Iterator[Run]:
    config = MaeConfig(SMALL.replace(num_classes=0), decoder_dim=8, decoder_depth=1, decoder_heads=2)
    seen = np.array([[True, False] * 3, [False, True] * 3])
    yield run("mae", random_params(mae_spec(config), 0), IMAGES, config, seen)


def packed(name: str = "packed") -> Iterator[Run]:
    for fields in ({}, {"num_classes": 0}, {"class_token": False, "pool": "mean", "pos_embed": "none"}):
        config = SMALL.replace(**fields)
        yield run(name, random_params(param_spec(config), 0), [IMAGES[0], IMAGES[1, :, :, :4]], config)


def packed_tokens() -> Iterator[Run]:
    yield from packed("packed_tokens")


def registered(name: str) -> Iterator[Run]:
    """Every option of the stage, in its smallest shapes."""
    stage = REGISTERED[name]
    for case in smallest(name) if name in STAGES else smallest_cases(CASES[name]):
        if stage.kind == "leaf":
            yield run(name, *case.arrays.values(), **case.options)
        elif name == "diff_attention":
            params = {n: a for n, a in case.arrays.items() if n not in ("q", "k", "v")}
            yield run(name, params, *(case.arrays[n] for n in "qkv"), **case.options)
        else:
            yield run(name, {n: a for n, a in case.arrays.items() if n != "x"}, case.arrays["x"], **case.options)


def runs(name: str) -> Iterator[Run]:
    return registered(name) if name in REGISTERED else globals()[name]()


def misfits(y: Array, axes: range) -> Iterator[Any]:
    """Gradients of other shapes: a number, an axis more, and along these axes one entry more, or one for all."""
    dy = normal(7, np.shape(y))
    yield dy[None]
    yield np.ones((1, 1))
    if dy.ndim:
        yield np.float64(1.0)
        yield 1.0
    for axis in axes:
        first = dy.take([0], axis)
        yield np.concatenate((dy, first), axis)
        yield first


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_of_another_shape_are_refused(name):
    for outputs, backward in runs(name):
        right = [normal(i, np.shape(y)) for i, y in enumerate(outputs)]
        backward(*right)
        for i, y in enumerate(outputs):
            for wrong in misfits(y, range(name in EACH, np.ndim(y))):
                if np.shape(wrong) == np.shape(y):
                    continue
                with pytest.raises(ShapeError, match="has shape"):
                    backward(*right[:i], wrong, *right[i + 1 :])
