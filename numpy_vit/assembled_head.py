r"""Head of variants: pool, norm, pre-logits, one or two classifiers."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.attention import SoftmaxCache, softmax_backward, softmax_forward
from numpy_vit.attention_pool import AttentionPoolCache, attention_pool_backward, attention_pool_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.refined_pool import RefinedPoolCache, refined_pool_backward, refined_pool_forward
from numpy_vit.token_pool import TokenPoolCache, token_pool_backward, token_pool_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_shape
from vit_common.params import sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class AssembledHeadCache(NamedTuple):
    x_shape: tuple[int, int, int]
    skipped: int  # prefix tokens that attention pooling does not read
    pool: TokenPoolCache | AttentionPoolCache | RefinedPoolCache
    norm: NormCache | None
    pre: tuple[LinearCache, Array] | None  # of the linear layer, and the tanh
    head: LinearCache | None
    head_dist: LinearCache | None
    softmax: SoftmaxCache | None


def assembled_head_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, tape: Tape = None
) -> tuple[Array, AssembledHeadCache]:
    r"""(B, T, D) -> logits (B, K), with `num_classes=0` the features; (B, T, ...) where `pool` is "none".

    $$\mathrm{logits} = W \tanh(W_p \operatorname{norm}(\operatorname{pool}(x)) + b_p) + b$$

    less the stages that the configuration lacks; with `head_softmax`, their softmax. With a distillation head the
    logits are the mean of both heads', $\tfrac12(W \operatorname{norm}(x_0) + b + W' x_1 + b')$, as in timm; Touvron et
    al. 2021, section 4, add the two softmax outputs instead. Parameters: `attn_pool.*`, `fc_norm.*`,
    `pre_logits.fc.*`, `head.*`, `head_dist.*`. **Backward**: with $t = \tanh(\cdot)$ and its gradient $g$, the argument
    gets $(1 - t^2) \odot g$; two heads get half the gradient each.
    """
    skipped = 0 if config.pool_include_prefix else config.num_prefix_tokens
    c_pool: TokenPoolCache | AttentionPoolCache | RefinedPoolCache
    if config.pool == "map":
        y, c_pool = attention_pool_forward(sub(params, "attn_pool"), x[:, skipped:], config, scope(tape, "attn_pool"))
        note(tape, attn_pool=y)
    elif config.pool == "refined":
        y, c_pool = refined_pool_forward(x, config.num_heads, config.class_token, tape)
        note(tape, refined=y)
    else:
        y, c_pool = token_pool_forward(x, config.pool, config.num_prefix_tokens, config.pool_include_prefix)
    note(tape, pooled=y)
    c_norm = c_pre = c_head = c_dist = c_softmax = None
    if config.fc_norm:
        y, c_norm = norm_forward(sub(params, "fc_norm"), y, config.norm, config.norm_eps)
        note(tape, fc_norm=y)
    if config.pre_logits:
        hidden, c_fc = linear_forward(y, params["pre_logits.fc.weight"], params["pre_logits.fc.bias"])
        y = np.tanh(hidden)
        c_pre = c_fc, y
        note(tape, **{"pre_logits.fc": hidden, "pre_logits.act": y, "pre_logits": y})
    if config.num_classes:
        y, c_head = linear_forward(y, params["head.weight"], params.get("head.bias"))
        note(tape, head=y)
        if config.dist_head:
            other, c_dist = linear_forward(x[:, 1], params["head_dist.weight"], params.get("head_dist.bias"))
            note(tape, head_dist=other)
            y = 0.5 * (y + other)
    if config.head_softmax:
        y, c_softmax = softmax_forward(y)
    return y, AssembledHeadCache(x.shape, skipped, c_pool, c_norm, c_pre, c_head, c_dist, c_softmax)


def assembled_head_backward(dy: Array, cache: AssembledHeadCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, K) -> dx (B, T, D), gradients of the parameters."""
    grads: dict[str, Array] = {}
    if cache.softmax is not None:
        dy = softmax_backward(dy, cache.softmax)
    dother = None
    if cache.head_dist is not None:
        dy = 0.5 * dy  # y = (head + head_dist) / 2
        note(tape, head_dist=dy)
        dother, g = linear_backward(dy, cache.head_dist)
        grads |= under("head_dist", g)
    if cache.head is not None:
        note(tape, head=dy)
        dy, g = linear_backward(dy, cache.head)
        grads |= under("head", g)
    if cache.pre is not None:
        c_fc, tanh = cache.pre
        check_shape("dy of pre_logits", dy, tanh.shape)
        dhidden = dy * (1.0 - tanh * tanh)  # y = tanh(hidden)
        note(tape, **{"pre_logits.fc": dhidden, "pre_logits.act": dy, "pre_logits": dy})
        dy, g = linear_backward(dhidden, c_fc)
        grads |= under("pre_logits.fc", g)
    if cache.norm is not None:
        note(tape, fc_norm=dy)
        dy, g = norm_backward(dy, cache.norm)
        grads |= under("fc_norm", g)
    note(tape, pooled=dy)
    if isinstance(cache.pool, TokenPoolCache):
        dx = token_pool_backward(dy, cache.pool)
    elif isinstance(cache.pool, RefinedPoolCache):
        note(tape, refined=dy)
        dx = refined_pool_backward(dy, cache.pool, tape)
    else:
        note(tape, attn_pool=dy)
        inside, g = attention_pool_backward(dy, cache.pool, scope(tape, "attn_pool"))
        grads |= under("attn_pool", g)
        dx = np.zeros(cache.x_shape, dy.dtype)
        dx[:, cache.skipped :] = inside
    if dother is not None:
        dx[:, 1] += dother  # head_dist reads token 1
    return dx, grads
