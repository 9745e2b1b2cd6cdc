"""Hypothesis strategies: shapes, numbers, memory layouts, and the cases of every stage.

An array is drawn as (shape, seed, scale) rather than number by number: a failure shrinks to the smallest shape, seed 0
and scale 1, which is readable, and a thousand examples take seconds.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from parity_tests.layouts import LAYOUTS as LAYOUTS
from parity_tests.layouts import repeated as repeated
from vit_common import ViTConfig
from vit_common.masks import drop_path_rates, make_masks
from vit_common.params import block_spec, linear_spec, param_spec, under

Array = np.ndarray


class Case(NamedTuple):
    """One example of a stage: its differentiable inputs (float64 masters, by name) and everything else."""

    arrays: dict[str, Array]
    options: dict[str, Any]

    def __repr__(self) -> str:
        """Shapes rather than numbers; small arrays whole. The blob that hypothesis prints reproduces the rest."""

        def brief(value: Any) -> str:
            if isinstance(value, dict):
                return "{" + ", ".join(f"{k}: {brief(v)}" for k, v in value.items()) + "}"
            if isinstance(value, ViTConfig):
                default = ViTConfig()
                own = {n: v for n, v in vars(value).items() if v != getattr(default, n)}
                return f"ViTConfig({', '.join(f'{n}={v!r}' for n, v in own.items())})"
            if not isinstance(value, np.ndarray):
                return repr(value)
            if value.size <= 4:
                return f"{value.tolist()}"
            return f"{value.dtype}{value.shape} within {np.abs(value).max():.3g}"

        return f"Case({brief(self.arrays)}, {brief(self.options)})"


DEEP = 2000  # examples a property in the profile "deep"
seeds = st.integers(0, 2**16)


def at_most(examples: int, shares: int = 1) -> settings:
    """Fewer examples than the profile has, for one check of many alike; in a deep run as many as any, in equal shares
    where one property is run in several forms."""
    most = settings.default.max_examples
    return settings(max_examples=most // shares if most >= DEEP else min(most, examples))


dims = st.integers(1, 5)
batches = st.integers(1, 4)
dtypes = st.sampled_from([np.float64, np.float32])
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9])
# Powers of ten that keep a product of two inside float32's range, so that every stage should survive them.
scales = st.one_of(st.just(1.0), st.integers(-8, 8).map(lambda k: 10.0**k))
gentle = st.one_of(st.just(1.0), st.integers(-2, 1).map(lambda k: 10.0**k))
# Where one array alone sets the size of the results: all of float32's range but what a sum of a few would leave.
wide = st.one_of(scales, st.integers(-30, 30).map(lambda k: 10.0**k))


layouts = st.sampled_from(sorted(LAYOUTS))


def normal(seed: int, shape: tuple[int, ...], scale: float = 1.0, kind: str = "normal") -> Array:
    """Reproducible numbers, exactly representable in float32 so that both precisions start from the same values."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, shape).astype(np.float64) if kind == "integers" else rng.normal(size=shape)
    return (values * scale).astype(np.float32).astype(np.float64)


kinds = st.sampled_from(["integers", "normal", "normal", "normal"])


@st.composite
def arrays(draw, shape: tuple[int, ...], scale=scales) -> Array:
    return normal(draw(seeds), shape, draw(scale), draw(kinds))


@st.composite
def leading(draw) -> tuple[int, ...]:
    return tuple(draw(st.lists(dims, min_size=1, max_size=3)))


# Scales of two arrays that are multiplied: both large or small, or one of them very.
factors = st.sampled_from([(scales, scales), (wide, gentle), (gentle, wide)])


@st.composite
def linear_cases(draw) -> Case:
    width, out, bias = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.booleans())
    of_x, of_weight = draw(factors)
    values = {"x": draw(arrays((*draw(leading()), width), of_x)), "weight": draw(arrays((out, width), of_weight))}
    return Case({**values, "bias": draw(arrays((out,)))} if bias else values, {})


@st.composite
def patch_embed_cases(draw) -> Case:
    channels, out = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    patch = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = grid[0] * patch[0], grid[1] * patch[1]
    of_x, of_weight = draw(factors)
    values = {"x": draw(arrays((draw(batches), channels, *size), of_x))}
    values["weight"] = draw(arrays((out, channels, *patch), of_weight))
    return Case({**values, "bias": draw(arrays((out,)))} if draw(st.booleans()) else values, {})


@st.composite
def class_token_cases(draw) -> Case:
    width = draw(dims)
    x = draw(arrays((draw(batches), draw(dims), width), wide))
    return Case({"x": x, "cls_token": draw(arrays((1, 1, width), wide))}, {})


@st.composite
def pos_embed_cases(draw) -> Case:
    shape = draw(dims), draw(dims)
    x = draw(arrays((draw(batches), *shape), wide))
    return Case({"x": x, "pos_embed": draw(arrays((1, *shape), wide))}, {})


@st.composite
def layer_norm_cases(draw) -> Case:
    width = draw(st.integers(1, 17))
    # Down to 1e-30, where eps alone is left; up to where the sum of squares still fits float32.
    x = draw(arrays((*draw(leading()), width), st.one_of(scales, st.integers(-30, 16).map(lambda k: 10.0**k))))
    shift = draw(st.sampled_from([0.0, 1.0, -30.0]))
    x = (x + shift * np.abs(x).max()).astype(np.float32).astype(np.float64)
    eps = draw(st.sampled_from([1e-6, 1e-5, 1e-12, 0.1]))
    return Case({"x": x, "weight": draw(arrays((width,))), "bias": draw(arrays((width,)))}, {"eps": eps})


@st.composite
def gelu_cases(draw) -> Case:
    return Case({"x": draw(arrays(draw(leading()), st.integers(-30, 30).map(lambda k: 10.0**k)))}, {})


@st.composite
def dropout_cases(draw) -> Case:
    shape, rate = draw(leading()), draw(rates)
    mask = draw(st.one_of(st.none(), seeds.map(lambda s: np.random.default_rng(s).random(shape) >= rate)))
    return Case({"x": draw(arrays(shape, wide))}, {"mask": mask, "rate": rate})


@st.composite
def drop_path_cases(draw) -> Case:
    shape, rate = draw(leading()), draw(rates)
    mask = draw(st.one_of(st.none(), seeds.map(lambda s: np.random.default_rng(s).random(shape[0]) >= rate)))
    return Case({"x": draw(arrays(shape, wide))}, {"mask": mask, "rate": rate})


@st.composite
def softmax_cases(draw) -> Case:
    x = draw(arrays((*draw(leading()), draw(st.integers(1, 17))), st.integers(-30, 30).map(lambda k: 10.0**k)))
    return Case({"x": x}, {})


@st.composite
def attention_cases(draw) -> Case:
    lead, tokens, keys = (draw(batches), draw(st.integers(1, 3))), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    dim, value_dim, rate = draw(dims), draw(dims), draw(rates)
    q, k = draw(arrays((*lead, tokens, dim), gentle)), draw(arrays((*lead, keys, dim), gentle))
    shape = *lead, tokens, keys
    mask = draw(st.one_of(st.none(), seeds.map(lambda s: np.random.default_rng(s).random(shape) >= rate)))
    return Case(
        {"q": q, "k": k, "v": draw(arrays((*lead, keys, value_dim), wide))}, {"drop_mask": mask, "drop_rate": rate}
    )


depths = st.integers(0, 2)


@st.composite
def configs(draw, depth: st.SearchStrategy[int] = depths, plain_rates: bool = False) -> ViTConfig:
    """Small models over every option of the configuration."""
    patch = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    heads, pos = draw(st.integers(1, 3)), draw(st.sampled_from(["learned", "sincos_1d", "sincos_2d", "none"]))
    head_dim = draw(st.integers(1, 3)) * (4 if pos == "sincos_2d" else 1)
    class_token = draw(st.booleans())
    drop = st.just(0.0) if plain_rates else st.sampled_from([0.0, 0.0, 0.3])
    return ViTConfig(
        image_size=(grid[0] * patch[0], grid[1] * patch[1]), patch_size=patch, in_channels=draw(st.integers(1, 3)),
        num_classes=draw(st.integers(0, 4)), embed_dim=heads * head_dim, depth=draw(depth), num_heads=heads,
        mlp_ratio=draw(st.sampled_from([1.0, 1.5, 4.0])), pos_embed=pos, class_token=class_token,
        pool=draw(st.sampled_from(["cls", "mean"])) if class_token else "mean",
        norm_eps=draw(st.sampled_from([1e-6, 1e-5])), pos_drop_rate=draw(drop), attn_drop_rate=draw(drop),
        proj_drop_rate=draw(drop), drop_path_rate=draw(drop),
    )  # fmt: skip


def random_params(spec, seed: int) -> dict[str, Array]:
    """Parameters that hide nothing: no ones, no zeros; norm weights around one, matrices scaled by their fan-in."""
    values = {}
    for i, (name, p) in enumerate(spec.items()):
        fan_in = max(1, int(np.prod(p.shape[1:]))) if len(p.shape) > 1 else 4
        centre = 1.0 if p.init == "ones" else 0.0
        values[name] = (centre + normal(seed + i, p.shape, fan_in**-0.5)).astype(np.float32).astype(np.float64)
    return values


def masks_below(config: ViTConfig, batch: int, seed: int, prefix: str) -> dict[str, Array]:
    masks = make_masks(config, batch, seed, 0)
    return {name[len(prefix) :]: mask for name, mask in masks.items() if name.startswith(prefix)}


def composite_case(
    kind: str, config: ViTConfig, batch: int, seed: int = 0, params_seed: int = 0, scale: float = 1.0,
    masks_seed: int | None = None,
) -> Case:  # fmt: skip
    """multi_head, mlp, encoder_block, encoder, head, vit: input, parameters, and masks where rates are not 0."""
    prefix, options = "", {"config": config}
    stream = batch, config.num_tokens, config.embed_dim
    match kind:
        case "multi_head" | "mlp":
            prefix = {"multi_head": "attn.", "mlp": "mlp."}[kind]
            spec = {n[len(prefix) :]: p for n, p in block_spec(config).items() if n.startswith(prefix)}
            prefix = "blocks.0." + prefix
        case "encoder_block":
            spec, prefix = block_spec(config), f"blocks.{config.depth - 1}."
            options["drop_path_rate"] = drop_path_rates(config)[-1]
        case "encoder":
            spec, prefix = {}, "blocks."
            for i in range(config.depth):
                spec |= under(str(i), block_spec(config))
        case "head":
            spec = linear_spec(config.num_classes, config.embed_dim) if config.num_classes else {}
        case "vit":
            spec, stream = param_spec(config), (batch, config.in_channels, *config.image_size)
    if kind != "head":
        options["masks"] = None if masks_seed is None else masks_below(config, batch, masks_seed, prefix)
    return Case({"x": normal(seed, stream, scale), **random_params(spec, params_seed)}, options)


@st.composite
def composite_cases(draw, kind: str) -> Case:
    """`composite_case` over every option of the configuration."""
    least = 1 if kind in ("multi_head", "mlp", "encoder_block") else 0
    most = 3 if kind == "encoder" else 2  # the rate of stochastic depth is neither zero nor full from three blocks on
    config = draw(configs(depth=st.integers(least, most)))
    masks_seed = draw(st.one_of(seeds, seeds, st.none()))
    return composite_case(kind, config, draw(batches), draw(seeds), draw(seeds), draw(gentle), masks_seed)


@st.composite
def pool_cases(draw) -> Case:
    prefix, pool = draw(st.integers(0, 2)), draw(st.sampled_from(["cls", "mean"]))
    return Case(
        {"x": draw(arrays((draw(batches), prefix + draw(dims), draw(dims)), wide))}, {"pool": pool, "prefix": prefix}
    )


@st.composite
def loss_cases(draw) -> Case:
    batch, classes = draw(batches), draw(st.integers(1, 7))
    labels = np.random.default_rng(draw(seeds)).integers(0, classes, batch)
    smoothing = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    logits = draw(arrays((batch, classes), wide))
    return Case({"x": logits}, {"labels": labels, "label_smoothing": smoothing})
