r"""The bounds of what stands around the variants' blocks: the encoder that runs them, and the head after them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parity_tests.block_bounds import assembled_block, parallel_block, parallel_things_block
from parity_tests.bound_parts import chain, norm, total
from parity_tests.bounds import Grads, Pullback, linear, softmax, sub, under
from parity_tests.stem_bounds import attention_pool
from parity_tests.token_bounds import token_pool
from parity_tests.tolerances import Bounded, unit_roundoff

BLOCKS = {"pre_norm": assembled_block, "res_post": assembled_block, "parallel": parallel_block,
          "diff_parallel": parallel_block, "parallel_things": parallel_things_block}  # fmt: skip


class Places(NamedTuple):
    """What a block's attention knows: the engines' Positions, the rotary tables with their error."""

    layer: int
    sin: Bounded | None
    cos: Bounded | None
    bias: np.ndarray | None


def assembled_encoder(params: Grads, x: Bounded, config, masks) -> tuple[Bounded, Pullback]:
    r"""Blocks in a row; fixed rotary tables are rounded once, a key that is not read has probability 0 exactly."""
    sin = cos = None
    if config.rope != "none":
        from torch_vit import rope_table  # the values only set the size of the bound

        tables = [t.numpy() for t in rope_table(config)]  # (1, 1, N, HD/2)
        if "patch_drop" in masks:
            tables = [np.stack([t[0][:, kept] for kept in masks["patch_drop"]]) for t in tables]
        sin, cos = (x.new(t, rotary_error(config) + x.u * np.abs(t)) for t in tables)
    bias, stages = score_bias(x, config, masks), []
    for i in range(config.depth):
        rate = config.drop_path_rate * i / max(config.depth - 1, 1)
        inside = sub(params, f"blocks.{i}"), x, config, Places(i, sin, cos, bias)
        x, back = BLOCKS[config.block](*inside, sub(masks, f"blocks.{i}"), rate)
        stages.append((f"blocks.{i}", back))
    return x, chain(*stages)


def rotary_error(config) -> float:
    r"""How far sin and cos of $t \omega$, computed in float64, are from the truth: at most what their angle is, and 2u.

    Roundings: 3 of the place $t$, 2 of the power, 2 of the product and its factor; and of the exponent of
    $\omega = b^{-e}$, which count $e \ln b$ times: $e\,b^{-e} \ln b \le 1/\mathrm{e} < 1$. Bands by pixels grow with
    theirs, $\omega \le \pi r / 2$, and its 4 roundings count $\ln r$ times.
    """
    furthest = max(*config.grid_size, *(config.rope_ref_grid or ())) + abs(config.rope_grid_offset)
    angle, roundings = 2 * np.pi * furthest, 8.0
    if config.rope_freqs == "pixel":
        angle, roundings = np.pi * config.rope_max_res / 2, 8.0 + 4 * np.log(config.rope_max_res)
    return (roundings * angle + 2) * unit_roundoff(np.float64)


def score_bias(x: Bounded, config, masks) -> np.ndarray | None:
    """0 where a query may read a key, -inf elsewhere, query by query; of the patches kept."""
    given, padding = masks.get("attn_mask"), masks.get("padding_mask")
    if given is None and padding is None:
        return None
    tokens, lead = config.num_tokens, config.num_prefix_tokens
    reads = np.ones((len(x.v), 1, tokens, tokens), bool)
    if given is not None:
        reads &= given
    if padding is not None:
        for image, there in zip(reads, padding, strict=True):
            image[:, :, lead:][..., ~there] = False
    if "patch_drop" in masks:
        kept = [np.flatnonzero(np.concatenate((np.ones(lead, bool), row))) for row in masks["patch_drop"]]
        reads = np.stack([image[:, places][:, :, places] for image, places in zip(reads, kept, strict=True)])
    return np.where(reads, 0.0, -np.inf)


def assembled_head(params: Grads, x: Bounded, config) -> tuple[Bounded, Pullback]:
    r"""Pool, norm, a linear layer with tanh, linear; two heads are averaged, and softmax may follow."""
    skipped, stages = 0 if config.pool_include_prefix else config.num_prefix_tokens, []
    if config.pool == "map":
        y, inside = attention_pool(sub(params, "attn_pool"), x[:, skipped:], config)

        def pad(dy: Bounded) -> Grads:
            return {"x": dy.map(lambda a: np.pad(a, ((0, 0), (skipped, 0), (0, 0))))}

        stages += [("", pad), ("attn_pool", inside)]
    else:
        y, back = token_pool(x, config.pool, config.num_prefix_tokens, config.pool_include_prefix)
        stages.append(("", back))
    if config.fc_norm:
        y, back = norm(sub(params, "fc_norm"), y, config.norm, config.norm_eps)
        stages.append(("fc_norm", back))
    if config.pre_logits:
        y, back = linear(y, params["pre_logits.fc.weight"], params["pre_logits.fc.bias"])
        stages.append(("pre_logits.fc", back))
        y, back = tanh(y)
        stages.append(("", back))
    if config.num_classes:
        y, back = linear(y, params["head.weight"], params.get("head.bias"))
        stages.append(("head", back))
    main = chain(*stages)
    if not config.dist_head:
        return _softmaxed(y, main, config)
    other, dist = linear(x[:, 1], params["head_dist.weight"], params.get("head_dist.bias"))

    def both(dy: Bounded) -> Grads:
        half, tokens = dy * 0.5, x.v.shape[1]
        g = dist(half)
        to_token = g.pop("x").map(lambda a: np.pad(a[:, None], ((0, 0), (1, tokens - 2), (0, 0))))
        return total(main(half), {"x": to_token, **under("head_dist", g)})

    return _softmaxed((y + other) * 0.5, both, config)


def _softmaxed(y: Bounded, back: Pullback, config) -> tuple[Bounded, Pullback]:
    if not config.head_softmax:
        return y, back
    probs, softmax_back = softmax(y)
    return probs, chain(("", back), ("", softmax_back))


def tanh(x: Bounded) -> tuple[Bounded, Pullback]:
    r"""$|\hat t - t|$ as in `Bounded.tanh`; the slope $1 - t^2$ is known to $u$ absolutely."""
    t = x.tanh()
    return t, lambda dy: {"x": dy * (-(t * t) + 1.0)}
